//! OTLP over HTTP with protobuf.

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    answer::{Accepted, Failure},
    client::Client,
    transport::Encoded,
};

pub(super) async fn send(
    client: &Client,
    uri: &Uri,
    request: &Encoded,
) -> Result<Accepted, Failure> {
    let mut headers = HeaderMap::from_iter([
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        ),
        (ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    if request.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let answer = client.post(uri, headers, request.body.clone()).await?;
    if answer.status.is_success() {
        answer.accepted()
    } else {
        Err(answer.failure())
    }
}
