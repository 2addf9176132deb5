//! Which request follows another: a redirect (RFC 9110 §15.4), or the same once more.

use http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING},
    request::{Parts, Request},
};
use reqwest::{Body, Url};

use super::credentials;

/// What is sent again after a redirect or in a retry. Headers that a layer adds to an attempt are not among it.
pub(super) struct Resend {
    parts: Parts,
    /// `None`: the body is a stream, and gone.
    body: Option<Body>,
}

impl Resend {
    pub(super) fn new(parts: Parts, body: &Body) -> Self {
        let body = body.as_bytes().map(|bytes| Body::from(bytes.to_vec()));
        Self { parts, body }
    }

    /// The same request; `None` where its body is gone.
    pub(super) fn same(self) -> Option<Request<Body>> {
        Some(Request::from_parts(self.parts, self.body?))
    }

    /// The request to where a response redirects; `None` where it does not, or names no address.
    pub(super) fn next(self, status: StatusCode, headers: &HeaderMap) -> Option<Request<Body>> {
        let Self { mut parts, body } = self;
        let location = str::from_utf8(headers.get(LOCATION)?.as_bytes()).ok()?;
        let previous = Url::parse(&parts.uri.to_string()).ok()?;
        let next = previous.join(location).ok()?;
        let uri = next.as_str().parse::<Uri>().ok()?;

        let becomes_get = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => parts.method == Method::POST,
            StatusCode::SEE_OTHER => parts.method != Method::HEAD,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        let body = if becomes_get {
            parts.method = Method::GET;
            for name in [
                CONTENT_TYPE,
                CONTENT_LENGTH,
                CONTENT_ENCODING,
                TRANSFER_ENCODING,
            ] {
                parts.headers.remove(name);
            }
            Body::default()
        } else {
            body?
        };
        if next.origin() != previous.origin() {
            credentials::remove(&mut parts.headers);
        }
        parts.uri = uri;
        Some(Request::from_parts(parts, body))
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn next(method: Method, status: u16, location: &str) -> Option<Request<Body>> {
        let request = Request::builder()
            .method(method)
            .uri("http://a.example/pictures/cat.jpg?v=1")
            .header(AUTHORIZATION, "secret")
            .header("cookie2", "$Version=1")
            .header(CONTENT_TYPE, "text/plain")
            .body(Body::from("content"))
            .expect("a request");
        let (parts, body) = request.into_parts();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().expect("a header"));
        let status = StatusCode::from_u16(status).expect("a status");
        Resend::new(parts, &body).next(status, &headers)
    }

    #[test]
    fn the_address_is_resolved_and_the_method_follows_the_status() {
        const PUT: Method = Method::PUT;
        for (method, status, location, expected) in [
            (
                Method::GET,
                301,
                "/b.jpg",
                Some("GET http://a.example/b.jpg"),
            ),
            (
                Method::GET,
                302,
                "?v=2",
                Some("GET http://a.example/pictures/cat.jpg?v=2"),
            ),
            (Method::GET, 307, "../x", Some("GET http://a.example/x")),
            (
                Method::GET,
                308,
                "//b.example:81/ü",
                Some("GET http://b.example:81/%C3%BC"),
            ),
            (
                Method::POST,
                301,
                "x",
                Some("GET http://a.example/pictures/x"),
            ),
            (
                Method::POST,
                302,
                "x",
                Some("GET http://a.example/pictures/x"),
            ),
            (PUT, 302, "x", Some("PUT http://a.example/pictures/x")),
            (PUT, 303, "x", Some("GET http://a.example/pictures/x")),
            (
                Method::HEAD,
                303,
                "x",
                Some("HEAD http://a.example/pictures/x"),
            ),
            (
                Method::POST,
                307,
                "x",
                Some("POST http://a.example/pictures/x"),
            ),
            (Method::GET, 300, "x", None),
            (Method::GET, 304, "x", None),
            (Method::GET, 200, "x", None),
            (Method::GET, 302, "http://[", None),
        ] {
            let request = next(method, status, location);
            let said = request.map(|it| format!("{} {}", it.method(), it.uri()));
            assert_eq!(said.as_deref(), expected, "{status} {location}");
        }
    }

    #[test]
    fn credentials_stay_with_their_origin_and_content_with_its_method() {
        for (location, keeps) in [
            ("/other", true),
            ("http://A.example:80/other", true),
            ("http://a.example:8080/", false),
            ("https://a.example/", false),
            ("http://b.example/", false),
        ] {
            let headers = next(Method::GET, 307, location).expect("a request");
            for name in ["authorization", "cookie2"] {
                let has = headers.headers().contains_key(name);
                assert_eq!(has, keeps, "{name} {location}");
            }
        }
        let get = next(Method::POST, 303, "/").expect("a request");
        assert!(!get.headers().contains_key(CONTENT_TYPE));
        assert_eq!(get.body().as_bytes(), Some(&b""[..]));
        let post = next(Method::POST, 308, "/").expect("a request");
        assert!(post.headers().contains_key(CONTENT_TYPE));
        assert_eq!(post.body().as_bytes(), Some(&b"content"[..]));
    }
}
