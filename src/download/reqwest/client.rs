use std::{
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Uri};
use reqwest::{Body, Client, ClientBuilder, IntoUrl, Request, Response, ResponseBuilderExt, Url};
use tower_layer::Layer;
use tower_service::Service;

use super::{credentials, redirect::Resend, retry::is_unprocessed, service::ReqwestService};
use crate::{
    download::{Attempts, Download, DownloadBody, DownloadLayer},
    redact,
};

/// As many as reqwest follows by default.
const MAX_REDIRECTS: usize = 10;

/// As often as reqwest sends a request again by default, on top of the first time.
const MAX_RETRIES: usize = 2;

/// A [`reqwest::Client`] with a client span for each attempt: made by
/// [`DownloadLayer::reqwest`](crate::DownloadLayer::reqwest).
///
/// Redirects are followed as reqwest follows them, up to 10. A request that an HTTP/2 server has not processed
/// is sent again, up to twice, as reqwest does by default. Each is an attempt with a span of its own and with
/// `http.request.resend_count`. Credentials stay with their origin, also those among the
/// [`default_headers`](Self::default_headers); no `Referer` is sent. A timeout of the client, or of a request, is
/// one of each attempt.
///
/// It is a [`Service`] of reqwest's requests, so that layers that retry can stand around it. A request made
/// from an [`http::Request`] keeps its extensions; an [`Attempts`] among them numbers the retries too.
#[derive(Clone, Debug)]
pub struct ReqwestClient {
    client: Client,
    attempts: Download<ReqwestService>,
    max_redirects: usize,
    default_headers: Arc<HeaderMap>,
}

/// Why a [`ReqwestClient`] has no response.
///
/// Its texts show URLs without secrets, also those of reqwest's errors.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ReqwestError {
    /// reqwest's own error.
    #[error(transparent)]
    Request(reqwest::Error),
    /// Credentials are among the default headers of reqwest's own builder, which would add them to every
    /// request, whatever origin a redirect leads to.
    #[error(
        "reqwest's ClientBuilder has \"{header}\" among its default headers, which every origin that a redirect \
         leads to would get: set it with ReqwestClient::default_headers"
    )]
    DefaultCredentials {
        /// The name of the header.
        header: &'static str,
    },
    /// This release of reqwest does not tell which default headers its builder has.
    #[error(
        "the default headers of reqwest's ClientBuilder cannot be read, and might have credentials that every \
         origin a redirect leads to would get: use the release of reqwest that this crate was tested with"
    )]
    UnknownDefaultHeaders,
    /// The source redirects to another address too often.
    #[error("more than {limit} redirects, the last to {}", redact::url(.location))]
    TooManyRedirects {
        /// How many were followed.
        limit: usize,
        /// Where the next one leads.
        location: String,
    },
}

impl fmt::Debug for ReqwestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => fmt::Debug::fmt(error, f),
            other => write!(f, "{other}"),
        }
    }
}

impl From<reqwest::Error> for ReqwestError {
    fn from(error: reqwest::Error) -> Self {
        let url = error.url().map(|url| redact::url(url.as_str()).parse());
        Self::Request(match url {
            Some(Ok(url)) => error.with_url(url),
            _ => error.without_url(),
        })
    }
}

impl DownloadLayer {
    /// A client of reqwest whose attempts are recorded, with what `builder` sets. Its redirect and retry policies
    /// are replaced, because what reqwest sends by itself is no attempt: see [`ReqwestClient`].
    ///
    /// ```
    /// use tower_image_trace::{
    ///     DownloadLayer, RequestTrace,
    ///     download::{ReqwestClient, ReqwestError},
    /// };
    ///
    /// async fn fetch(client: &ReqwestClient, url: &str) -> Result<Vec<u8>, ReqwestError> {
    ///     let response = client.get(url).await?.error_for_status()?;
    ///     Ok(response.bytes().await?.into())
    /// }
    ///
    /// # async fn run(trace: RequestTrace) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// // Once, at the start; `telemetry.download_layer()` where there is a `Telemetry`.
    /// let client = DownloadLayer::new().reqwest(reqwest::Client::builder())?;
    ///
    /// let url = "http://cdn.example/cat.jpg";
    /// let source = trace.download(url).run(fetch(&client, url)).await?;
    /// # drop(source);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `builder` says when it builds the client. Credentials among its default headers are refused
    /// ([`ReqwestError::DefaultCredentials`]): set them with [`ReqwestClient::default_headers`].
    pub fn reqwest(&self, builder: ClientBuilder) -> Result<ReqwestClient, ReqwestError> {
        credentials::refuse(&builder)?;
        let client = builder
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()?;
        Ok(ReqwestClient {
            attempts: self.layer(ReqwestService::new(client.clone())),
            client,
            max_redirects: MAX_REDIRECTS,
            default_headers: Arc::default(),
        })
    }
}

impl ReqwestClient {
    /// How many redirects are followed; 10 by default. With 0, a redirect is a response like any other.
    #[must_use]
    pub fn max_redirects(self, max_redirects: usize) -> Self {
        Self {
            max_redirects,
            ..self
        }
    }

    /// Headers for each request that does not have them. Credentials among them (`Authorization`,
    /// `Proxy-Authorization`, `WWW-Authenticate` and cookies) are not sent on to another origin that a redirect
    /// leads to. Headers of an earlier call with other names stay.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
    /// use tower_image_trace::{
    ///     DownloadLayer,
    ///     download::{ReqwestClient, ReqwestError},
    /// };
    ///
    /// fn client(layer: &DownloadLayer, token: HeaderValue) -> Result<ReqwestClient, ReqwestError> {
    ///     let client = layer.reqwest(reqwest::Client::builder())?;
    ///     Ok(client.default_headers(HeaderMap::from_iter([(AUTHORIZATION, token)])))
    /// }
    /// ```
    #[must_use]
    pub fn default_headers(mut self, mut headers: HeaderMap) -> Self {
        credentials::hide(&mut headers);
        Arc::make_mut(&mut self.default_headers).extend(headers);
        self
    }

    /// Sends a GET request. Userinfo in the URL becomes an `Authorization` header.
    ///
    /// # Errors
    /// See [`ReqwestError`].
    pub async fn get(&self, url: impl IntoUrl) -> Result<Response, ReqwestError> {
        let request = self.client.get(url).build();
        self.execute(request?).await
    }

    /// Sends a request. The response ends its attempt with the last byte of its body.
    ///
    /// reqwest's own builder makes requests with headers and more:
    /// `reqwest::Client::get(…).header(…).build()?`.
    ///
    /// # Errors
    /// See [`ReqwestError`].
    pub async fn execute(&self, request: Request) -> Result<Response, ReqwestError> {
        self.clone().follow(request).await
    }

    async fn follow(mut self, request: Request) -> Result<Response, ReqwestError> {
        let mut request = http::Request::<Body>::try_from(request)?;
        request
            .extensions_mut()
            .get_or_insert_with(Attempts::default);
        add_defaults(request.headers_mut(), &self.default_headers);
        let (mut followed, mut retried) = (0, 0);
        loop {
            let (parts, body) = request.into_parts();
            let resend = Resend::new(parts.clone(), &body);
            let uri = parts.uri.clone();
            poll_fn(|cx| ready(&mut self.attempts, cx)).await?;
            let sent = self.attempts.call(http::Request::from_parts(parts, body));
            let response = match sent.await {
                Ok(response) => response,
                Err(error) if retried < MAX_RETRIES && is_unprocessed(&error) => {
                    request = resend.same().ok_or(error)?;
                    retried += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let follows = self.max_redirects > 0;
            let next = follows.then(|| resend.next(response.status(), response.headers()));
            let Some(next) = next.flatten() else {
                return Ok(of_reqwest(response, &uri));
            };
            if followed == self.max_redirects {
                return Err(ReqwestError::TooManyRedirects {
                    limit: self.max_redirects,
                    location: next.uri().to_string(),
                });
            }
            (followed, retried) = (followed + 1, 0);
            request = next;
        }
    }
}

impl Service<Request> for ReqwestClient {
    type Response = Response;
    type Error = ReqwestError;
    // reqwest's own futures are boxed, too.
    type Future = Pin<Box<dyn Future<Output = Result<Response, ReqwestError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReqwestError>> {
        ready(&mut self.attempts, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.clone().follow(request))
    }
}

fn ready(
    attempts: &mut Download<ReqwestService>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), reqwest::Error>> {
    Service::<http::Request<Body>>::poll_ready(attempts, cx)
}

/// Adds the headers whose names a request does not have.
fn add_defaults(headers: &mut HeaderMap, defaults: &HeaderMap) {
    for name in defaults.keys() {
        if !headers.contains_key(name) {
            for value in defaults.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }
}

/// The response as reqwest has it, which remembers where it comes from.
fn of_reqwest(response: http::Response<DownloadBody<Body>>, uri: &Uri) -> Response {
    let mut response = response.map(Body::wrap);
    if let Ok(url) = Url::parse(&uri.to_string()) {
        let mut named = http::Response::builder().url(url);
        let named = named.extensions_mut().map(mem::take);
        response.extensions_mut().extend(named.unwrap_or_default());
    }
    response.into()
}
