//! The HTTP client under both OTLP transports.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header::USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use super::{
    answer::{Answer, Failure, Retry},
    tls::Tls,
};
use crate::telemetry::settings::{OtlpExporter, Protocol};

#[derive(Debug)]
enum Inner {
    Plain(legacy::Client<HttpConnector, Full<Bytes>>),
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Inner {
    fn request(&self, request: Request<Full<Bytes>>) -> legacy::ResponseFuture {
        match self {
            Self::Plain(client) => client.request(request),
            Self::Tls(client) => client.request(request),
        }
    }
}

/// A collector answers with a few bytes; anything longer does not come from a collector.
const MAX_ANSWER: usize = 1024 * 1024;

/// A client for one endpoint; it must be used on the I/O thread, where its connections live.
#[derive(Debug)]
pub(super) struct Client {
    inner: Inner,
    headers: HeaderMap,
    timeout: Duration,
    http2: bool,
    tls: Option<Tls>,
}

impl Client {
    pub(super) fn new(exporter: &OtlpExporter, tls: Option<Tls>) -> Self {
        let http2 = exporter.protocol == Protocol::Grpc;
        let agent = concat!("tower-image-trace/", env!("CARGO_PKG_VERSION"));
        let secret = |(name, value): &(HeaderName, HeaderValue)| {
            let mut value = value.clone();
            value.set_sensitive(true);
            (name.clone(), value)
        };
        let mut headers = HeaderMap::from_iter(exporter.headers.iter().map(secret));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(agent));
        Self {
            inner: build(http2, tls.as_ref()),
            tls,
            headers,
            timeout: exporter.timeout,
            http2,
        }
    }

    #[cfg(feature = "otlp-grpc")]
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Posts `body` and reads the whole answer, all within the timeout of one attempt.
    ///
    /// `own` are the headers that make the protocol; they win over those from the settings.
    pub(super) async fn post(
        &mut self,
        uri: &Uri,
        own: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(own);
        let message = match timeout(self.timeout, self.exchange(request)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(message)) => message,
            Err(_) => {
                // On an HTTP/2 connection that hangs, all further requests would hang too.
                self.inner = build(self.http2, self.tls.as_ref());
                format!("no answer within {:?}", self.timeout)
            }
        };
        Err(Failure {
            message,
            retry: Retry::Backoff,
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let response = self.inner.request(request).await;
        let response = response.map_err(|error| self.message(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.message(&*error))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            #[cfg(feature = "otlp-grpc")]
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        })
    }

    fn message(&self, error: &(dyn Error + 'static)) -> String {
        let message = chain(error);
        match self.tls.as_ref().and_then(|tls| tls.explain(error)) {
            Some(explained) => format!("{explained} ({message})"),
            None => message,
        }
    }
}

fn build(http2: bool, tls: Option<&Tls>) -> Inner {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut client = legacy::Client::builder(TokioExecutor::new());
    client
        .http2_only(http2)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new());
    let Some(tls) = tls else {
        return Inner::Plain(client.build(connector));
    };
    connector.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls.config())
        .https_only();
    Inner::Tls(client.build(match http2 {
        true => https.enable_http2().wrap_connector(connector),
        false => https.enable_http1().wrap_connector(connector),
    }))
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in crate::instrument::chain(error).skip(1) {
        let cause_text = cause.to_string();
        // Many errors repeat their cause.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
    }
    text
}
