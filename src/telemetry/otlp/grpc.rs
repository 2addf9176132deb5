//! OTLP over gRPC: one unary call a request.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{CONTENT_TYPE, TE},
};
use percent_encoding::percent_decode;
use prost::Message;

use super::{
    answer::{Accepted, Failure, Retry},
    client::Client,
    encode::Encoded,
};
use crate::semconv::GrpcCode;

pub(super) async fn send(
    client: &mut Client,
    uri: &Uri,
    request: &Encoded,
) -> Result<Accepted, Failure> {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (TE, HeaderValue::from_static("trailers")),
    ]);
    if request.gzip {
        let name = HeaderName::from_static("grpc-encoding");
        headers.insert(name, HeaderValue::from_static("gzip"));
    }
    if let Ok(value) = format!("{}m", client.timeout().as_millis().min(99_999_999)).parse() {
        headers.insert(HeaderName::from_static("grpc-timeout"), value);
    }
    let answer = client.post(uri, headers, frame(request)).await?;
    // A proxy in front of the collector answers in plain HTTP.
    if answer.status != StatusCode::OK {
        return Err(answer.failure());
    }
    // An answer without a message has its status in the head.
    let status = answer.trailers.as_ref().and_then(Status::from_headers);
    match status.or_else(|| Status::from_headers(&answer.headers)) {
        Some(status) if status.code == GrpcCode::Ok => {
            let message = answer.body.get(5..).unwrap_or_default();
            Ok(Accepted::read(message))
        }
        Some(status) => Err(status.into_failure()),
        None => Err(Failure {
            message: "the answer is not gRPC: it has no grpc-status".to_owned(),
            retry: Retry::Never,
        }),
    }
}

/// Length-Prefixed-Message: a flag for compression, four bytes of length, the message.
fn frame(Encoded { body, gzip }: &Encoded) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + body.len());
    framed.put_u8((*gzip).into());
    // A request has the size of a batch, far below 4 GiB.
    framed.put_u32(body.len().try_into().unwrap_or(u32::MAX));
    framed.extend_from_slice(body);
    framed.freeze()
}

struct Status {
    code: GrpcCode,
    message: String,
    /// How long to wait, when the details (`google.rpc.RetryInfo`) say so.
    retry_after: Option<Duration>,
}

impl Status {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let code = GrpcCode::parse(headers.get("grpc-status")?.as_bytes());
        let message = headers
            .get("grpc-message")
            .map_or(&b""[..], |value| value.as_bytes());
        let details = headers.get("grpc-status-details-bin").and_then(|details| {
            let text = details.to_str().ok()?.trim_end_matches('=');
            STANDARD_NO_PAD.decode(text).ok()
        });
        Some(Self {
            code,
            message: percent_decode(message).decode_utf8_lossy().into_owned(),
            retry_after: details.and_then(|details| retry_info(&details)),
        })
    }

    fn into_failure(self) -> Failure {
        let name = self.code.as_str();
        let retry = match self.retry_after {
            pause if !self.code.is_retried(pause.is_some()) => Retry::Never,
            Some(pause) => Retry::After(pause),
            None => Retry::Backoff,
        };
        let message = match self.message.as_str() {
            "" => name.to_owned(),
            message => format!("{name}: {message}"),
        };
        Failure { message, retry }
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
