//! The response body: the picture in chunks, and the stage that lasts until the client has taken them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower_image_trace::Stage;

/// Bytes that are given to the connection at once.
const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct PictureBody {
    rest: Bytes,
    /// Ends when this body is dropped: by the layer after the last chunk, or because the client left.
    _stage: Stage,
}

impl PictureBody {
    pub(crate) fn new(picture: impl Into<Bytes>, stage: Stage) -> Self {
        Self {
            rest: picture.into(),
            _stage: stage,
        }
    }
}

impl Body for PictureBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = CHUNK.min(self.rest.len());
        let chunk = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    /// Exact, so the response has a `Content-Length`.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
