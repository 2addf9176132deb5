//! OTLP over HTTP with protobuf.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Uri};

use super::client::{self, Client};
use super::transport::{Accepted, Failure, accepted};

pub(super) async fn send(client: &mut Client, uri: &Uri, body: Bytes) -> Result<Accepted, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    let body = if client.gzip() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        client::gzip(&body)
    } else {
        body
    };
    let answer = client.post(uri, headers, body).await?;
    if !answer.status.is_success() {
        return Err(answer.failure());
    }
    Ok(accepted(&answer.body))
}
