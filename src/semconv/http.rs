use std::str::FromStr;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use crate::intern;

/// The value of an attribute of bounded cardinality, for everything that has no value of its own.
pub(crate) const OTHER: &str = "_OTHER";

/// Semconv registry, `http.request.method`: the methods of RFC 9110, PATCH and QUERY.
const KNOWN_METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
];

/// The methods that are recorded by name, case-sensitive. Their names are recorded without an allocation.
#[derive(Debug)]
pub(crate) struct KnownMethods(Vec<(Method, &'static str)>);

impl KnownMethods {
    /// The given methods, or those of `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`, or the default ones.
    pub(crate) fn new(given: Option<Vec<Method>>) -> Self {
        let methods = given.or_else(|| {
            let list = std::env::var("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS").ok()?;
            parse_methods(&list)
        });
        match methods {
            Some(methods) => Self(methods.into_iter().map(named).collect()),
            None => Self::default(),
        }
    }

    /// The value of `http.request.method`: the method's name, or [`OTHER`].
    pub(crate) fn name(&self, method: &Method) -> &'static str {
        let known = self.0.iter().find(|(known, _)| known == method);
        known.map_or(OTHER, |(_, name)| name)
    }
}

impl Default for KnownMethods {
    fn default() -> Self {
        let methods = KNOWN_METHODS.iter().filter_map(|name| {
            let method = Method::from_bytes(name.as_bytes()).ok()?;
            Some((method, *name))
        });
        Self(methods.collect())
    }
}

/// A comma-separated list of methods; `None` when it names none.
fn parse_methods(list: &str) -> Option<Vec<Method>> {
    let names = list.split(',').map(str::trim);
    let methods: Vec<Method> = names
        .filter(|name| !name.is_empty())
        .filter_map(|name| Method::from_bytes(name.as_bytes()).ok())
        .collect();
    (!methods.is_empty()).then_some(methods)
}

/// The name is never freed. Methods come from settings, and the same name is mostly kept once.
fn named(method: Method) -> (Method, &'static str) {
    let name = method.as_str();
    let name = intern::known(name).unwrap_or_else(|| name.to_owned().leak());
    (method, name)
}

/// `url.scheme`: only `http` and `https`, because over HTTP/1.1 a client may write any scheme into
/// the request line.
pub(crate) fn scheme(scheme: Option<&str>) -> &'static str {
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    }
}

/// `network.protocol.version`
pub(crate) fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Whether the response to a HEAD or CONNECT request, or to any other, has no body whatever its
/// headers announce (RFC 9110 §6.4.1). No consumer polls such a body.
pub(crate) fn is_bodiless(head: bool, connect: bool, status: StatusCode) -> bool {
    head || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || (connect && status.is_success())
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    parse_length(headers.get(header::CONTENT_LENGTH)?)
}

/// The value of `Content-Length`: digits (RFC 9110 §8.6).
pub(crate) fn parse_length(value: &HeaderValue) -> Option<u64> {
    number(str::from_utf8(value.as_bytes()).ok()?)
}

/// The number that the digits say. A sign, which Rust's own parser takes, is no digit.
pub(crate) fn number<N: FromStr>(digits: &str) -> Option<N> {
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_digits)
}

/// The port of an `http` or `https` URI that names none.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The attribute value of a size; attributes have no unsigned integers.
pub(crate) fn int(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_are_a_comma_separated_list() {
        assert_eq!(
            parse_methods("GET, PURGE ,,purge"),
            Some(vec![
                Method::GET,
                Method::from_bytes(b"PURGE").unwrap(),
                Method::from_bytes(b"purge").unwrap()
            ])
        );
        assert_eq!(parse_methods(" , "), None);
    }

    #[test]
    fn a_scheme_from_the_request_line_is_not_taken_over() {
        for (uri, expected) in [
            ("/", "http"),
            ("https://a/", "https"),
            ("HTTPS://a/", "https"),
            ("gopher://a/", "http"),
        ] {
            assert_eq!(
                scheme(uri.parse::<http::Uri>().unwrap().scheme_str()),
                expected,
                "{uri}"
            );
        }
    }

    /// RFC 9110 §6.4.1, §9.3.6.
    #[test]
    fn responses_without_a_body() {
        const HEAD: (bool, bool) = (true, false);
        const CONNECT: (bool, bool) = (false, true);
        const GET: (bool, bool) = (false, false);
        for (method, status, expected) in [
            (GET, 200, false),
            (GET, 101, true),
            (GET, 204, true),
            (GET, 205, false),
            (GET, 304, true),
            (GET, 404, false),
            (HEAD, 200, true),
            (HEAD, 404, true),
            (CONNECT, 200, true),
            (CONNECT, 407, false),
        ] {
            let code = StatusCode::from_u16(status).unwrap();
            let (head, connect) = method;
            assert_eq!(
                is_bodiless(head, connect, code),
                expected,
                "{method:?} {status}"
            );
        }
    }
}
