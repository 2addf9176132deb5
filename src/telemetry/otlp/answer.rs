//! What the collector said to a request.

use std::{
    borrow::Cow,
    io::Read,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::secrets::Secrets;
use crate::{
    semconv::{OTHER, number},
    telemetry::shown::without_secrets,
};

/// A decompressed answer is a few bytes too.
const MAX_DECOMPRESSED: u64 = 1024 * 1024;

/// What the collector said to a request that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Items that it refused nevertheless (OTLP's partial success).
    pub(crate) rejected: u64,
    pub(crate) message: String,
}

impl Accepted {
    /// Reads an export response. The responses of all signals are the same on the wire.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let answer = ExportTraceServiceResponse::decode(message).ok()?;
        Some(
            answer
                .partial_success
                .map_or_else(Self::default, |partial| Self {
                    rejected: partial.rejected_spans.try_into().unwrap_or(0),
                    message: partial.error_message,
                }),
        )
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One line.
    pub(crate) message: String,
    /// Of low cardinality: the value of `error.type`.
    pub(crate) error_type: Cow<'static, str>,
    pub(crate) retry: Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The same request would be refused again.
    Never,
    /// A smaller request may be taken.
    Smaller,
    /// The collector is not there, or asks for a pause without saying how long.
    Backoff,
    /// The collector asks for a pause of this length.
    After(Duration),
}

impl Failure {
    /// An answer that no collector gives.
    pub(super) fn no_otlp(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            error_type: OTHER.into(),
            retry: Retry::Never,
        }
    }
}

/// A whole answer over HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The body was longer, and the rest of it was not read.
    pub(super) is_cut: bool,
    /// Only gRPC has them.
    #[cfg(feature = "otlp-grpc")]
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// What an answer other than success means, by OTLP's rules for HTTP:
    /// <https://opentelemetry.io/docs/specs/otlp/#failures-1>
    pub(super) fn failure(&self, secrets: &Secrets) -> Failure {
        let mut message = self.status.to_string();
        let excerpt = secrets.excerpt(&self.decoded_body());
        if !excerpt.is_empty() {
            message = format!("{message}: {excerpt}");
        }
        if self.status.is_redirection()
            && let Some(location) = self.header(LOCATION.as_str())
        {
            let location = match location.contains("://") {
                true => secrets.one_line(&without_secrets(location)),
                false => "another path".to_owned(),
            };
            message = format!("{message}, to {location}: set the endpoint to that address");
        }
        // Go's server says "client sent an HTTP request to an HTTPS server", nginx "The plain HTTP
        // request was sent to HTTPS port".
        if self.status == StatusCode::BAD_REQUEST && excerpt.contains("HTTPS") {
            message = format!("{message} (use https:// in the endpoint)");
        }
        let retry = match self.status.as_u16() {
            413 => Retry::Smaller,
            429 | 502 | 503 | 504 => self.retry_after().map_or(Retry::Backoff, Retry::After),
            _ => Retry::Never,
        };
        Failure {
            message,
            error_type: self.status.as_str().to_owned().into(),
            retry,
        }
    }

    /// Seconds or a date (RFC 9110 §10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        let value = self.header(RETRY_AFTER.as_str())?.trim();
        if let Some(seconds) = number(value) {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(SystemTime::now()).ok()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body without its compression.
    pub(super) fn decoded_body(&self) -> Cow<'_, [u8]> {
        match self.header(CONTENT_ENCODING.as_str()) {
            Some(coding) if coding.eq_ignore_ascii_case("gzip") => {
                gunzip(&self.body).map_or(Cow::Borrowed(&self.body), Cow::Owned)
            }
            _ => Cow::Borrowed(&self.body),
        }
    }
}

/// The decompressed bytes, up to a bound.
pub(super) fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decompressed = Vec::new();
    let mut decoder = GzDecoder::new(bytes).take(MAX_DECOMPRESSED);
    decoder.read_to_end(&mut decompressed).ok()?;
    Some(decompressed)
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
            is_cut: false,
            #[cfg(feature = "otlp-grpc")]
            trailers: None,
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let failure = |status, after: &str| answer(status, after, "").failure(&Secrets::default());
        let retry = |status, after: &str| failure(status, after).retry;
        assert_eq!(retry(429, "7"), Retry::After(Duration::from_secs(7)));
        for unreadable in ["soon", "+5", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(retry(503, unreadable), Retry::Backoff);
        }
        assert_eq!(retry(400, "7"), Retry::Never);
        let later = SystemTime::now() + Duration::from_secs(3600);
        match retry(503, &httpdate::fmt_http_date(later)) {
            Retry::After(pause) => assert!(pause > Duration::from_secs(3000), "{pause:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(retry(503, "Thu, 01 Jan 1970 00:00:00 GMT"), Retry::Backoff);
    }

    #[test]
    fn a_failure_is_one_line_with_what_the_answer_says() {
        let message = |body| answer(400, "1", body).failure(&Secrets::default()).message;
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
