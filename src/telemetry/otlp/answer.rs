//! What the collector said to a request.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

/// What the collector said to a request that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Items that it refused nevertheless (OTLP's partial success).
    pub(crate) rejected: u64,
    pub(crate) message: String,
}

impl Accepted {
    /// Reads the message of a successful answer.
    ///
    /// The messages of all signals are the same on the wire. An unreadable one counts as full
    /// success, because the collector has answered 2xx.
    pub(super) fn read(message: &[u8]) -> Self {
        match ExportTraceServiceResponse::decode(message)
            .ok()
            .and_then(|answer| answer.partial_success)
        {
            Some(partial) => Self {
                rejected: partial.rejected_spans.try_into().unwrap_or(0),
                message: partial.error_message,
            },
            None => Self::default(),
        }
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) retry: Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The same request would be refused again.
    Never,
    /// The collector is not there, or asks for a pause without saying how long.
    Backoff,
    /// The collector asks for a pause of this length.
    After(Duration),
}

/// A whole answer over HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Only gRPC has them.
    #[cfg(feature = "otlp-grpc")]
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// What an answer other than success means, by OTLP's rules for HTTP:
    /// <https://opentelemetry.io/docs/specs/otlp/#failures-1>
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

    /// Seconds or a date (RFC 9110 §10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(SystemTime::now()).ok()
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
            #[cfg(feature = "otlp-grpc")]
            trailers: None,
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let retry = |status, retry_after: &str| answer(status, retry_after, "").failure().retry;
        assert_eq!(retry(429, "7"), Retry::After(Duration::from_secs(7)));
        assert_eq!(retry(503, "soon"), Retry::Backoff);
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
