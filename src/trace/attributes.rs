//! What is known of a request when it comes (semconv http-spans, HTTP server).

use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use opentelemetry::{KeyValue, StringValue};

use super::{addresses::Addresses, config::Config, rpc::Call};
use crate::{redact::Redaction, request::Route};

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
    /// The request is a gRPC call: its span and duration follow semconv rpc, not http.
    pub(super) call: Option<Call>,
}

impl Facts {
    pub(super) fn of<B>(config: &Config, request: &Request<B>, addresses: &Addresses<'_>) -> Self {
        let method = request.method();
        Self {
            method: method_name(&config.known_methods, method),
            scheme: addresses.scheme,
            protocol_version: protocol_version(request.version()),
            request_body_size: content_length(request.headers()),
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
            call: Call::of(&config.rpc_methods, request),
        }
    }

    /// `{method} {route}`, or `{method}` when there is no route; never the path (semconv
    /// http-spans: Name).
    pub(super) fn span_name(&self, route: Option<&Route>) -> String {
        if let Some(call) = &self.call {
            return call.span_name();
        }
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
    pub(super) fn span_attributes<B>(
        &self,
        config: &Config,
        request: &Request<B>,
        addresses: &Addresses<'_>,
    ) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(20);
        match &self.call {
            Some(call) => call.push_attributes(&mut attributes),
            None => self.push_http_attributes(request, &config.redaction, &mut attributes),
        }
        attributes.push(KeyValue::new(
            "network.protocol.version",
            self.protocol_version,
        ));
        addresses.push_attributes(&mut attributes);
        if let Some(agent) = text(request.headers(), header::USER_AGENT) {
            attributes.push(KeyValue::new("user_agent.original", agent.to_owned()));
        }
        if let Some(size) = self.request_body_size {
            attributes.push(KeyValue::new("http.request.body.size", int(size)));
        }
        if let Some(recorded) = &config.request_headers {
            let is_rpc = self.call.is_some();
            attributes.extend(recorded.attributes(request.headers(), is_rpc, &config.redaction));
        }
        attributes
    }

    fn push_http_attributes<B>(
        &self,
        request: &Request<B>,
        redaction: &Redaction,
        attributes: &mut Vec<KeyValue>,
    ) {
        let uri = request.uri();
        attributes.push(KeyValue::new("http.request.method", self.method.clone()));
        if self.method.as_str() == OTHER_METHOD {
            attributes.push(KeyValue::new(
                "http.request.method_original",
                request.method().as_str().to_owned(),
            ));
        }
        attributes.push(KeyValue::new("url.scheme", self.scheme));
        attributes.push(KeyValue::new(
            "url.path",
            redaction.path(uri.path()).into_owned(),
        ));
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            attributes.push(KeyValue::new(
                "url.query",
                redaction.query(query).into_owned(),
            ));
        }
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

pub(crate) fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
