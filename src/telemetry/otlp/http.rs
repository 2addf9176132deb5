//! OTLP over HTTP with protobuf.

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    answer::{Accepted, Failure},
    client::Client,
    encode::Encoded,
};

pub(super) async fn send(
    client: &mut Client,
    uri: &Uri,
    request: &Encoded,
) -> Result<Accepted, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    if request.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let answer = client.post(uri, headers, request.body.clone()).await?;
    if !answer.status.is_success() {
        return Err(answer.failure());
    }
    Ok(Accepted::read(&answer.body))
}
