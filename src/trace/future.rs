use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{ResponseBody, active::Active};
use crate::instrument::Guarded;

pin_project! {
    /// The response future of [`ImageTrace`](super::ImageTrace).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Guarded<F, Active>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, active: Option<Active>) -> Self {
        Self {
            inner: Guarded::new(inner, active),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: fmt::Display + 'static,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll_response(cx, ResponseBody::new)
    }
}
