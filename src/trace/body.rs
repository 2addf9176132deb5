use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::active::Active;
use crate::instrument::Guarded;

pin_project! {
    /// The response body of [`ImageTrace`](super::ImageTrace): passes frames on untouched, and
    /// ends the request's span with the last one.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: Guarded<B, Active>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(inner: Guarded<B, Active>) -> Self {
        Self { inner }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(Guarded::new(B::default(), None))
    }
}

impl<B> Body for ResponseBody<B>
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
