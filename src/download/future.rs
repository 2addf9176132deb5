use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{DownloadBody, finish::Finish};
use crate::instrument::Guarded;

pin_project! {
    /// The response future of [`Download`](super::Download).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct DownloadFuture<F> {
        #[pin]
        inner: Guarded<F, Finish>,
    }
}

impl<F> DownloadFuture<F> {
    pub(super) fn new(inner: F, finish: Option<Finish>) -> Self {
        Self {
            inner: Guarded::new(inner, finish),
        }
    }
}

impl<F, B, E> Future for DownloadFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: fmt::Display + 'static,
{
    type Output = Result<Response<DownloadBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll_response(cx, DownloadBody::new)
    }
}
