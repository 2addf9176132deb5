//! A result as HTTP knows it: a picture with its type, its `ETag`, and for how long it may be kept.

use std::{
    hash::{DefaultHasher, Hasher},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tower_image_trace::RequestTrace;

use super::{body::PictureBody, options::Format};

#[derive(Clone, Debug)]
pub(crate) struct Rendition {
    pub(crate) bytes: Bytes,
    format: Format,
    /// A hash of the bytes, so that all instances of the service have the same one.
    etag: String,
    made: Instant,
}

impl Rendition {
    pub(crate) fn new(bytes: Vec<u8>, format: Format) -> Self {
        let mut hash = DefaultHasher::new();
        hash.write(&bytes);
        Self {
            etag: format!("\"{:016x}-{:x}\"", hash.finish(), bytes.len()),
            // Without what the encoder's vector has left over.
            bytes: bytes.into_boxed_slice().into(),
            format,
            made: Instant::now(),
        }
    }

    pub(crate) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// The answer: 304 when the client has the picture already, or else the picture.
    pub(crate) fn respond(
        self,
        request: &HeaderMap,
        max_age: Duration,
        negotiated: bool,
        trace: &RequestTrace,
    ) -> Response {
        let age = self.age().as_secs();
        let known = self.is_known(request);
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let content_type = [(CONTENT_TYPE, self.format.content_type())];
            let body = PictureBody::new(self.bytes, trace.stream());
            (content_type, Body::new(body)).into_response()
        };
        // RFC 9110 §15.4.5: a 304 has these as the 200 would have them.
        let headers = response.headers_mut();
        let mut insert = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        insert(ETAG, self.etag);
        let seconds = max_age.as_secs();
        insert(CACHE_CONTROL, format!("public, max-age={seconds}"));
        if negotiated {
            insert(VARY, ACCEPT.to_string());
        }
        if age > 0 {
            insert(AGE, age.to_string());
        }
        response
    }

    /// RFC 9110 §13.1.2. Tags are compared weakly there.
    fn is_known(&self, request: &HeaderMap) -> bool {
        let lines = request.get_all(IF_NONE_MATCH).iter();
        let mut tags = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

/// Whether the client names WebP among the types that it accepts (RFC 9110 §12.5.1). `*/*` does not tell: clients
/// that know nothing of WebP send it too.
pub(crate) fn accepts_webp(request: &HeaderMap) -> bool {
    let lines = request.get_all(ACCEPT).iter();
    let mut types = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    types.any(|accepted| {
        let mut parts = accepted.split(';').map(str::trim);
        let is_webp = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("image/webp"));
        let refused = parts.any(|parameter| {
            let weight = parameter
                .strip_prefix("q=")
                .or(parameter.strip_prefix("Q="));
            weight.is_some_and(|weight| !weight.parse().is_ok_and(|weight: f32| weight > 0.0))
        });
        is_webp && !refused
    })
}
