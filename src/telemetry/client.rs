//! The HTTP client under both OTLP transports.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::settings::{OtlpExporter, Protocol};
use super::tls::Tls;
use super::transport::{Failure, Retry};

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

// a collector's answer is a few bytes; whatever talks that long is none
const MAX_ANSWER: usize = 1024 * 1024;

/// A client for one endpoint; must be used on the I/O thread, where its connections live.
#[derive(Debug)]
pub(super) struct Client {
    inner: Inner,
    headers: HeaderMap,
    timeout: Duration,
    http2: bool,
    tls: Option<Arc<Tls>>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Client {
    pub(super) fn new(exporter: &OtlpExporter) -> Self {
        let http2 = exporter.protocol == Protocol::Grpc;
        let agent = concat!("tower-image-trace/", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::from_iter(exporter.headers.iter().cloned());
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(agent));
        Self {
            inner: build(http2, exporter.tls.as_deref()),
            tls: exporter.tls.clone(),
            headers,
            timeout: exporter.timeout,
            http2,
        }
    }

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
        let exchange = async {
            let response = self
                .inner
                .request(request)
                .await
                .map_err(|error| self.message(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| self.message(&*error))?;
            let trailers = body.trailers().cloned();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
                trailers,
            })
        };
        let message = match timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(message)) => message,
            Err(_) => {
                // an HTTP/2 connection that hangs would hang for all further requests too
                self.inner = build(self.http2, self.tls.as_deref());
                format!("no answer within {:?}", self.timeout)
            }
        };
        Err(Failure {
            message,
            retry: Retry::Backoff,
        })
    }
}

impl Client {
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

impl Answer {
    /// What an answer other than success means, by OTLP's rules for HTTP.
    pub(super) fn failure(&self) -> Failure {
        let mut message = self.status.to_string();
        let excerpt = self.excerpt();
        if !excerpt.is_empty() {
            message = format!("{message}: {excerpt}");
        }
        let retry = match self.status.as_u16() {
            429 | 502 | 503 | 504 => self.retry_after().map_or(Retry::Backoff, Retry::After),
            _ => Retry::Never,
        };
        Failure { message, retry }
    }

    fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        if let Ok(time) = httpdate::parse_http_date(value) {
            return time.duration_since(std::time::SystemTime::now()).ok();
        }
        None
    }

    /// The beginning of the answer as one line of text: the title of an HTML page, or the text itself.
    fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text = match (text.find("<title>"), text.find("</title>")) {
            (Some(start), Some(end)) if start + 7 <= end => &text[start + 7..end],
            _ => &text,
        };
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(200).collect::<String>().trim().to_owned()
    }
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in crate::instrument::chain(error).skip(1) {
        let cause_text = cause.to_string();
        // many errors repeat their cause
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: &str, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.into(),
            trailers: None,
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let retry = |status, retry_after: &str| answer(status, retry_after, "").failure().retry;
        assert_eq!(retry(429, "7"), Retry::After(Duration::from_secs(7)));
        assert_eq!(retry(503, "soon"), Retry::Backoff);
        assert_eq!(retry(400, "7"), Retry::Never);
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        match retry(503, &httpdate::fmt_http_date(later)) {
            Retry::After(pause) => assert!(pause > Duration::from_secs(3000), "{pause:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(retry(503, "Thu, 01 Jan 1970 00:00:00 GMT"), Retry::Backoff);
    }

    #[test]
    fn a_failure_is_one_line_with_what_the_answer_says() {
        let message = |body| answer(400, "1", body).failure().message;
        assert_eq!(message(""), "400 Bad Request");
        assert_eq!(message("two\nlines\u{1b}"), "400 Bad Request: two lines");
        let page = "<html><head><title>No certificate</title></head><body>…</body></html>";
        assert_eq!(message(page), "400 Bad Request: No certificate");
        assert_eq!(
            message("</title><title>"),
            "400 Bad Request: </title><title>"
        );
    }
}
