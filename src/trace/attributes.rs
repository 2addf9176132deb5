//! What is known of a request when it comes (semconv http-spans, HTTP server).

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use opentelemetry::{KeyValue, StringValue};

use super::config::Config;
use crate::{redact, request::Route};

/// A method that semconv does not know.
pub(crate) const OTHER_METHOD: &str = "_OTHER";

/// The values that the root span and the metrics share, all of bounded cardinality.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) method: StringValue,
    pub(super) scheme: &'static str,
    pub(super) protocol_version: &'static str,
    pub(super) request_body_size: Option<u64>,
    /// The response has no body whatever its headers announce (RFC 9110 §9.3.2, §9.3.6).
    pub(super) head: bool,
    pub(super) connect: bool,
}

impl Facts {
    pub(super) fn of<B>(config: &Config, request: &Request<B>) -> Self {
        let method = request.method();
        Self {
            method: method_name(&config.known_methods, method),
            scheme: scheme(request.uri()),
            protocol_version: protocol_version(request.version()),
            request_body_size: content_length(request.headers()),
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
        }
    }

    /// `{method} {route}`, or `{method}` when there is no route; never the path (semconv
    /// http-spans: Name).
    pub(super) fn span_name(&self, route: Option<&Route>) -> String {
        let method = match self.method.as_str() {
            OTHER_METHOD => "HTTP",
            known => known,
        };
        match route {
            Some(route) => format!("{method} {}", route.path),
            None => method.to_owned(),
        }
    }

    /// The attributes of the root span that samplers may want to see, with room for those that
    /// the end of the request adds.
    pub(super) fn span_attributes<B>(&self, request: &Request<B>) -> Vec<KeyValue> {
        let uri = request.uri();
        let mut attributes = Vec::with_capacity(20);
        attributes.push(KeyValue::new("http.request.method", self.method.clone()));
        if self.method.as_str() == OTHER_METHOD {
            attributes.push(KeyValue::new(
                "http.request.method_original",
                request.method().as_str().to_owned(),
            ));
        }
        attributes.push(KeyValue::new("url.scheme", self.scheme));
        attributes.push(KeyValue::new("url.path", uri.path().to_owned()));
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            attributes.push(KeyValue::new(
                "url.query",
                redact::query(query).into_owned(),
            ));
        }
        attributes.push(KeyValue::new(
            "network.protocol.version",
            self.protocol_version,
        ));
        if let Some((host, port)) = server(uri, request.headers()) {
            attributes.push(KeyValue::new("server.address", host.to_owned()));
            if let Some(port) = port {
                attributes.push(KeyValue::new("server.port", i64::from(port)));
            }
        }
        if let Some(agent) = text(request.headers(), header::USER_AGENT) {
            attributes.push(KeyValue::new("user_agent.original", agent.to_owned()));
        }
        if let Some(size) = self.request_body_size {
            attributes.push(KeyValue::new("http.request.body.size", int(size)));
        }
        attributes
    }

    /// The attributes of `http.server.active_requests`.
    pub(super) fn active_attributes(&self) -> [KeyValue; 2] {
        [
            KeyValue::new("http.request.method", self.method.clone()),
            KeyValue::new("url.scheme", self.scheme),
        ]
    }
}

/// The value of `http.request.method`.
pub(crate) fn method_name(known: &[(Method, StringValue)], method: &Method) -> StringValue {
    known
        .iter()
        .find(|(known, _)| known == method)
        .map_or_else(|| OTHER_METHOD.into(), |(_, name)| name.clone())
}

/// Whether the response to a HEAD or CONNECT request, or to any other, has no body whatever its
/// headers announce (RFC 9110 §6.4.1), so that nobody will poll one.
pub(crate) fn is_bodiless(head: bool, connect: bool, status: StatusCode) -> bool {
    head || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || (connect && status.is_success())
}

/// An attribute value of a size; more than 8 EiB does not occur.
pub(crate) fn int(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_LENGTH)?.parse().ok()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers
        .get(name)?
        .to_str()
        .ok()
        .filter(|text| !text.is_empty())
}

/// Only `http` and `https`: over HTTP/1.1 a client may write any scheme into the request line.
fn scheme(uri: &Uri) -> &'static str {
    match uri.scheme_str() {
        Some("https") => "https",
        _ => "http",
    }
}

pub(crate) fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Host and port that the client asked for: `:authority`, or the `Host` header (semconv http-spans:
/// server.address). The brackets of an IPv6 address are not part of it.
pub(crate) fn server<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<(&'a str, Option<u16>)> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => text(headers, header::HOST)?,
    };
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    (!host.is_empty()).then(|| (host, port.and_then(|port| port.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_the_authority_or_else_the_host_header() {
        let cases = [
            ("/", "images.example", Some(("images.example", None))),
            (
                "/",
                "images.example:8080",
                Some(("images.example", Some(8080))),
            ),
            ("/", "[2001:db8::1]:8080", Some(("2001:db8::1", Some(8080)))),
            ("/", "[::1]", Some(("::1", None))),
            ("/", "[::1", None),
            ("/", ":80", None),
            ("/", "", None),
            ("/", "host:99999", Some(("host", None))),
            (
                "http://h2.example:8443/x",
                "ignored",
                Some(("h2.example", Some(8443))),
            ),
            (
                "http://user:pass@h2.example/x",
                "ignored",
                Some(("h2.example", None)),
            ),
        ];
        for (uri, host, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(
                server(&uri.parse().unwrap(), &headers),
                expected,
                "{uri} {host}"
            );
        }
        assert_eq!(server(&"/".parse().unwrap(), &HeaderMap::new()), None);
    }

    #[test]
    fn a_scheme_from_the_request_line_is_not_taken_over() {
        for (uri, expected) in [
            ("/", "http"),
            ("https://a/", "https"),
            ("gopher://a/", "http"),
        ] {
            assert_eq!(scheme(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
