use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{DownloadBody, DownloadFuture, config::Config, finish::Finish};
use crate::instrument::{Work, watch};

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

    /// The service that fetches.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service that fetches, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service that fetches, without this one around it.
    pub fn into_inner(self) -> S {
        self.inner
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

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let Some(config) = &self.config else {
            return DownloadFuture::new(self.inner.call(request), None);
        };
        let mut finish = Finish::start(config, &mut request);
        let _current = finish.attach();
        let future = watch(&mut finish, || self.inner.call(request));
        DownloadFuture::new(future, Some(finish))
    }
}
