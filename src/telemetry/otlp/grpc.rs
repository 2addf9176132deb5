//! OTLP over gRPC: one unary call a request.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::{borrow::Cow, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{CONTENT_TYPE, TE},
};
use percent_encoding::percent_decode;
use prost::Message;

use super::{
    answer::{Accepted, Answer, Failure, Retry, gunzip},
    client::{Client, Encoded},
    secrets::Secrets,
};
use crate::semconv::GrpcCode;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

pub(super) async fn send(
    client: &Client,
    uri: &Uri,
    request: &Encoded,
) -> Result<Accepted, Failure> {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (TE, HeaderValue::from_static("trailers")),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip")),
    ]);
    if request.gzip {
        headers.insert(ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(value) = format!("{}m", client.timeout().as_millis().min(99_999_999)).parse() {
        headers.insert(TIMEOUT, value);
    }
    let answer = client.post(uri, headers, request.body.clone()).await?;
    // A proxy in front of the collector answers in plain HTTP.
    if answer.status != StatusCode::OK {
        return Err(answer.failure(client.secrets()));
    }
    // An answer without a message has its status in the head.
    let mut heads = answer.trailers.iter().chain([&answer.headers]);
    match heads.find_map(|head| Status::from_headers(head, client.secrets())) {
        Some(status) if status.code == GrpcCode::Ok => {
            let accepted = message(&answer).and_then(|message| Accepted::read(&message));
            accepted
                .ok_or_else(|| Failure::no_otlp("the collector's answer is not an OTLP message"))
        }
        Some(status) => Err(status.into_failure()),
        None => Err(Failure::no_otlp(match answer.is_cut {
            true => "the answer is not OTLP: it is longer than 1 MiB",
            false => "the answer is not gRPC: it has no grpc-status",
        })),
    }
}

/// The message of an answer, decompressed; empty when there is none.
fn message(answer: &Answer) -> Option<Cow<'_, [u8]>> {
    let Some((&[flag, a, b, c, d], rest)) = answer.body.split_first_chunk() else {
        return Some(Cow::Borrowed(&[]));
    };
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let message = rest.get(..len)?;
    match flag {
        0 => Some(Cow::Borrowed(message)),
        // gzip is the only coding that the request has offered.
        _ => gunzip(message).map(Cow::Owned),
    }
}

struct Status {
    code: GrpcCode,
    message: String,
    /// How long to wait, when the details (`google.rpc.RetryInfo`) say so.
    retry_after: Option<Duration>,
}

impl Status {
    fn from_headers(headers: &HeaderMap, secrets: &Secrets) -> Option<Self> {
        let code = GrpcCode::parse(headers.get("grpc-status")?.as_bytes());
        let message = headers
            .get("grpc-message")
            .map_or(&b""[..], |value| value.as_bytes());
        let details = headers.get("grpc-status-details-bin").and_then(|details| {
            let text = details.to_str().ok()?.trim_end_matches('=');
            STANDARD_NO_PAD.decode(text).ok()
        });
        let message = percent_decode(message).decode_utf8_lossy();
        Some(Self {
            code,
            message: secrets.one_line(&message),
            retry_after: details.and_then(|details| retry_info(&details)),
        })
    }

    fn into_failure(self) -> Failure {
        let retry = match self.retry_after {
            _ if self.is_too_large() => Retry::Smaller,
            pause if !self.code.is_retried(pause.is_some()) => Retry::Never,
            Some(pause) => Retry::After(pause),
            None => Retry::Backoff,
        };
        let name = self.code.as_str();
        let message = match self.message.as_str() {
            "" => name.to_owned(),
            message => format!("{name}: {message}"),
        };
        Failure {
            message,
            error_type: name.into(),
            retry,
        }
    }

    /// Whether the request was larger than the receiver takes, as the gRPC libraries say it: Go, C++
    /// and Java with RESOURCE_EXHAUSTED, tonic with OUT_OF_RANGE.
    fn is_too_large(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        let says = |part: &str| message.contains(part);
        matches!(
            self.code,
            GrpcCode::ResourceExhausted | GrpcCode::OutOfRange
        ) && (says("larger than max")
            || says("message length too large")
            || says("exceeds maximum size")
            || says("message too large")
            || says("request too large")
            || says("max message size"))
    }
}

/// The part of `google.rpc.Status` that is read here.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    let seconds = u64::try_from(delay.seconds).ok()?;
    let nanos = u32::try_from(delay.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        let names = vec!["grpc-status", "grpc-message", "grpc-status-details-bin"];
        let name = prop::sample::select(names).prop_map(HeaderName::from_static);
        let value = prop_oneof![
            "[0-9]{1,3}",
            "[A-Za-z0-9+/]{0,200}={0,2}",
            "(%[0-9a-fA-F]{2}|[ -~]){0,2000}",
        ];
        let value = value.prop_map(|text| HeaderValue::from_str(&text).expect("visible"));
        (name, value)
    }

    proptest! {
        #[test]
        fn any_status_is_one_bounded_line(headers in vec(header(), 0..4)) {
            let headers = HeaderMap::from_iter(headers);
            if let Some(status) = Status::from_headers(&headers, &Secrets::default()) {
                let failure = status.into_failure();
                prop_assert!(failure.message.chars().count() < 250);
                prop_assert!(!failure.message.contains(char::is_control));
            }
        }

        #[test]
        fn any_message_is_read_or_refused(body in vec(any::<u8>(), 0..100), gzip in any::<bool>()) {
            let mut framed = vec![gzip.into()];
            framed.extend((body.len() as u32).to_be_bytes());
            framed.extend(&body);
            for body in [body.clone(), framed] {
                let answer = Answer {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    body: body.into(),
                    is_cut: false,
                    trailers: None,
                };
                let _ = message(&answer).and_then(|message| Accepted::read(&message));
            }
        }
    }

    #[test]
    fn a_pause_is_read_from_the_details_of_a_status() {
        let info = RetryInfo {
            retry_delay: Some(ProtoDuration {
                seconds: 7,
                nanos: 500_000_000,
            }),
        };
        let status = |delay: RetryInfo| RpcStatus {
            details: vec![Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: delay.encode_to_vec(),
            }],
        };
        let read = |delay| retry_info(&status(delay).encode_to_vec());
        assert_eq!(read(info), Some(Duration::from_millis(7_500)));
        for (seconds, nanos) in [(-1, 0), (1, -1), (1, 1_000_000_000)] {
            let delay = ProtoDuration { seconds, nanos };
            let info = RetryInfo {
                retry_delay: Some(delay),
            };
            assert_eq!(read(info), None, "{seconds} {nanos}");
        }
    }
}
