use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::finish::Finish;
use crate::instrument::Guarded;

pin_project! {
    /// The response body of [`Download`](super::Download): passes frames on untouched, and
    /// ends the span of the attempt with the last one.
    #[derive(Debug)]
    pub struct DownloadBody<B> {
        #[pin]
        inner: Guarded<B, Finish>,
    }
}

impl<B> DownloadBody<B> {
    pub(super) fn new(inner: Guarded<B, Finish>) -> Self {
        Self { inner }
    }
}

impl<B: Default> Default for DownloadBody<B> {
    fn default() -> Self {
        Self::new(Guarded::new(B::default(), None))
    }
}

impl<B> Body for DownloadBody<B>
where
    B: Body,
    B::Error: fmt::Display + 'static,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
