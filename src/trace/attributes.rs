//! What is known of a request when it comes (semconv http-spans, HTTP server).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use opentelemetry::{KeyValue, StringValue};

use super::{
    addresses::{self, Addresses},
    config::Config,
    rpc::Call,
};
use crate::{
    intern, metrics::ActiveSeries, propagation::ContextLines, redact::Redaction, request::Route,
};

/// A method that semconv does not know.
pub(crate) const OTHER_METHOD: &str = "_OTHER";

/// A request as it comes: all that its span can say of it.
pub(super) struct Incoming<'a, B> {
    request: &'a Request<B>,
    headers: CommonHeaders<'a>,
    /// `None` until they are wanted: only a proxy's word on the scheme is wanted of each request.
    addresses: Option<Addresses<'a>>,
    pub(super) facts: Facts,
    /// The request is a gRPC call: its span and duration follow semconv rpc, not http.
    pub(super) call: Option<Call>,
}

/// What the headers say that most requests have, found in one look at each.
#[derive(Debug, Default)]
pub(super) struct CommonHeaders<'a> {
    host: Option<&'a HeaderValue>,
    user_agent: Option<&'a HeaderValue>,
    content_length: Option<&'a HeaderValue>,
    pub(super) context: ContextLines<'a>,
}

/// What the end of the request needs to know of its beginning; all of bounded cardinality.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(super) method: StringValue,
    pub(super) scheme: &'static str,
    pub(super) protocol_version: &'static str,
    pub(super) request_body_size: Option<u64>,
    /// The response has no body whatever its headers announce (RFC 9110 §9.3.2, §9.3.6).
    pub(super) head: bool,
    pub(super) connect: bool,
}

impl<'a> CommonHeaders<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "host" => &mut found.host,
                "user-agent" => &mut found.user_agent,
                "content-length" => &mut found.content_length,
                name => {
                    found.context.note(name, value);
                    continue;
                }
            };
            if place.is_none() && !value.is_empty() {
                *place = Some(value);
            }
        }
        found
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    str::from_utf8(value?.as_bytes()).ok()
}

impl<'a, B> Incoming<'a, B> {
    pub(super) fn of(config: &Config, request: &'a Request<B>, headers: CommonHeaders<'a>) -> Self {
        let rules = &config.addresses;
        let addresses = rules
            .proxies
            .is_some()
            .then(|| Addresses::of(rules, request, text(headers.host)));
        let scheme = match &addresses {
            Some(addresses) => addresses.scheme,
            None => addresses::scheme(request.uri().scheme_str()),
        };
        let method = request.method();
        let facts = Facts {
            method: method_name(&config.known_methods, method),
            scheme,
            protocol_version: protocol_version(request.version()),
            request_body_size: text(headers.content_length).and_then(|length| length.parse().ok()),
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
        };
        Self {
            request,
            headers,
            addresses,
            facts,
            call: Call::of(&config.rpc_methods, request),
        }
    }

    pub(super) fn span_name(&self, route: Option<&Route>) -> Cow<'static, str> {
        match &self.call {
            Some(call) => call.span_name(),
            None => self.facts.span_name(route),
        }
    }

    /// The attributes of the root span that samplers may want to see.
    pub(super) fn add_attributes(&self, config: &Config, attributes: &mut Vec<KeyValue>) {
        match &self.call {
            Some(call) => call.add_attributes(attributes),
            None => self.add_http_attributes(&config.redaction, attributes),
        }
        add(attributes, || {
            KeyValue::new("network.protocol.version", self.facts.protocol_version)
        });
        let read;
        let addresses = match &self.addresses {
            Some(addresses) => addresses,
            None => {
                read = Addresses::of(&config.addresses, self.request, text(self.headers.host));
                &read
            }
        };
        addresses.add_attributes(attributes);
        if let Some(agent) = text(self.headers.user_agent) {
            let agent = intern::text(&config.redaction.message(agent));
            add(attributes, || KeyValue::new("user_agent.original", agent));
        }
        if let Some(size) = self.facts.request_body_size {
            add(attributes, || {
                KeyValue::new("http.request.body.size", int(size))
            });
        }
        if let Some(recorded) = &config.request_headers {
            let (headers, is_rpc) = (self.request.headers(), self.call.is_some());
            attributes.extend(recorded.attributes(headers, is_rpc, &config.redaction));
        }
    }

    fn add_http_attributes(&self, redaction: &Redaction, attributes: &mut Vec<KeyValue>) {
        let uri = self.request.uri();
        let method = &self.facts.method;
        add(attributes, || {
            KeyValue::new("http.request.method", method.clone())
        });
        if method.as_str() == OTHER_METHOD {
            let method = self.request.method().as_str().to_owned();
            add(attributes, || {
                KeyValue::new("http.request.method_original", method)
            });
        }
        add(attributes, || {
            KeyValue::new("url.scheme", self.facts.scheme)
        });
        let path = redaction.path(uri.path()).into_owned();
        add(attributes, || KeyValue::new("url.path", path));
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            let query = redaction.query(query).into_owned();
            add(attributes, || KeyValue::new("url.query", query));
        }
    }
}

/// Adds an attribute that is made in its place. To make it elsewhere and move it there at once would
/// have the processor wait for what it has just written, at every attribute.
#[inline]
pub(super) fn add(attributes: &mut Vec<KeyValue>, attribute: impl FnOnce() -> KeyValue) {
    attributes.extend(std::iter::once_with(attribute));
}

impl Facts {
    /// `{method} {route}`, or `{method}` when there is no route; never the path (semconv
    /// http-spans: Name).
    pub(super) fn span_name(&self, route: Option<&Route>) -> Cow<'static, str> {
        let method = match self.method.as_str() {
            OTHER_METHOD => "HTTP",
            known => known,
        };
        match route {
            Some(route) => intern::span_name(method, route.path.as_str()),
            None => intern::name(method),
        }
    }

    pub(super) fn active_series(&self) -> ActiveSeries<'_> {
        ActiveSeries {
            method: &self.method,
            scheme: self.scheme,
        }
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
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
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
