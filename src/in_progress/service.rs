use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::{InProgressBody, InProgressFuture, RequestsInProgress};

/// The service of [`RequestsInProgressLayer`](super::RequestsInProgressLayer).
#[derive(Clone, Debug)]
pub struct InProgress<S> {
    inner: S,
    in_progress: RequestsInProgress,
}

impl<S> InProgress<S> {
    pub(super) fn new(inner: S, in_progress: RequestsInProgress) -> Self {
        Self { inner, in_progress }
    }

    /// The service that is counted.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service that is counted, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service that is counted, without this one around it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for InProgress<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<InProgressBody<ResBody>>;
    type Error = S::Error;
    type Future = InProgressFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // Counted before the call, which may panic.
        let guard = self.in_progress.request();
        InProgressFuture::new(self.inner.call(request), guard)
    }
}
