use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::events::Stream;

/// The response body of [`TracePage`](super::TracePage): one frame, or one for each event.
#[derive(Default)]
pub struct TracePageBody(Content);

enum Content {
    Whole(Option<Bytes>),
    Events(Stream),
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl TracePageBody {
    pub(super) fn whole(content: Bytes) -> Self {
        Self(Content::Whole((!content.is_empty()).then_some(content)))
    }

    pub(super) const fn events(stream: Stream) -> Self {
        Self(Content::Events(stream))
    }
}

impl Body for TracePageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.0 {
            Content::Whole(content) => Poll::Ready(content.take()),
            Content::Events(stream) => stream.poll(cx),
        };
        data.map(|data| Some(Ok(Frame::data(data?))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64))
            }
            Content::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for TracePageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TracePageBody")
    }
}
