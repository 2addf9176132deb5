use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use reqwest::{Body, Client, Error};
use tower_service::Service;

/// A [`reqwest::Client`] as a service of `http` requests and responses, as layers take it.
///
/// For a client that is there already, and for redirects and retries by layers of your own:
///
/// ```
/// use tower::{Layer, ServiceExt};
/// use tower_image_trace::{DownloadLayer, download::ReqwestService};
///
/// # async fn run(client: reqwest::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let service = DownloadLayer::new().layer(ReqwestService::new(client));
/// let request = http::Request::get("http://cdn.example/cat.jpg").body(reqwest::Body::default())?;
/// let response = service.oneshot(request).await?;
/// # drop(response);
/// # Ok(())
/// # }
/// ```
///
/// Redirects that the client follows by itself are inside of one attempt, whose `url.full` is the first
/// address, and they carry the trace context wherever they lead. Build the client with
/// [`redirect::Policy::none()`](reqwest::redirect::Policy::none), or use
/// [`DownloadLayer::reqwest`](crate::DownloadLayer::reqwest), which does.
#[derive(Clone, Debug)]
pub struct ReqwestService(Client);

impl ReqwestService {
    /// Wraps a client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self(client)
    }
}

impl<B: Into<Body>> Service<Request<B>> for ReqwestService {
    type Response = Response<Body>;
    type Error = Error;
    type Future = ReqwestFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ReqwestFuture {
        let state = match request.try_into() {
            Ok(request) => State::Sent {
                response: self.0.call(request),
            },
            Err(error) => State::Invalid { error: Some(error) },
        };
        ReqwestFuture { state }
    }
}

pin_project! {
    /// The response future of [`ReqwestService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ReqwestFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State {
        Sent {
            #[pin]
            response: <Client as Service<reqwest::Request>>::Future,
        },
        // The address is none that reqwest takes.
        Invalid { error: Option<Error> },
    }
}

impl Future for ReqwestFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Sent { response } => response.poll(cx).map_ok(Into::into),
            StateProjection::Invalid { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                // To poll a finished future is a mistake of the caller's; it never becomes ready again.
                None => Poll::Pending,
            },
        }
    }
}

impl fmt::Debug for ReqwestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFuture").finish_non_exhaustive()
    }
}
