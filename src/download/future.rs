use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{DownloadBody, finish::Finish};
use crate::request::Attached;

pin_project! {
    /// The response future of [`Download`](super::Download).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct DownloadFuture<F> {
        // Before the span's end: what the future drops still belongs to the attempt.
        #[pin]
        inner: Attached<F>,
        finish: Option<Finish>,
    }
}

impl<F> DownloadFuture<F> {
    pub(super) fn new(inner: F, finish: Option<Finish>) -> Self {
        let context = finish.as_ref().map(|finish| finish.context().clone());
        Self {
            inner: Attached::new(context, inner),
            finish,
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
        let this = self.project();
        let polled = match catch_unwind(AssertUnwindSafe(|| this.inner.poll(cx))) {
            Ok(polled) => polled,
            Err(payload) => {
                if let Some(finish) = this.finish {
                    finish.panicked(&*payload);
                }
                resume_unwind(payload)
            }
        };
        let result = ready!(polled);
        if let Some(finish) = this.finish {
            match &result {
                Ok(response) => finish.head(response),
                Err(error) => finish.failed(error),
            }
        }
        let finish = this.finish.take();
        Poll::Ready(result.map(|response| response.map(|body| DownloadBody::new(body, finish))))
    }
}
