use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{DownloadBody, DownloadFuture, config::Config, finish::Finish};

/// The service of [`DownloadLayer`](super::DownloadLayer).
#[derive(Clone, Debug)]
pub struct Download<S> {
    inner: S,
    /// `None`: tracing is off.
    config: Option<Arc<Config>>,
}

impl<S> Download<S> {
    pub(super) fn new(inner: S, config: Option<Arc<Config>>) -> Self {
        Self { inner, config }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Download<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: fmt::Display + 'static,
    ResBody: Body,
{
    type Response = Response<DownloadBody<ResBody>>;
    type Error = S::Error;
    type Future = DownloadFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let Some(config) = &self.config else {
            return DownloadFuture::new(self.inner.call(request), None);
        };
        let mut finish = Finish::start(config, &mut request);
        let _current = finish.attach();
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(future) => DownloadFuture::new(future, Some(finish)),
            Err(payload) => {
                finish.panicked(&*payload);
                resume_unwind(payload)
            }
        }
    }
}
