//! What is known of a request when it comes (semconv http-spans, HTTP server).

use std::borrow::Cow;

use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use opentelemetry::{KeyValue, StringValue};

use super::{addresses::Addresses, config::Config, rpc::Call};
use crate::{intern, metrics::ActiveSeries, redact::Redaction, request::Route};

/// A method that semconv does not know.
pub(crate) const OTHER_METHOD: &str = "_OTHER";

/// The values that the root span and the metrics share, all of bounded cardinality.
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

/// The headers that most requests have and that are always recorded, found in one go.
#[derive(Debug, Default)]
pub(super) struct CommonHeaders<'a> {
    pub(super) host: Option<&'a str>,
    user_agent: Option<&'a str>,
    content_length: Option<&'a str>,
}

impl<'a> CommonHeaders<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let place = if *name == header::HOST {
                &mut found.host
            } else if *name == header::USER_AGENT {
                &mut found.user_agent
            } else if *name == header::CONTENT_LENGTH {
                &mut found.content_length
            } else {
                continue;
            };
            if place.is_none() {
                let text = str::from_utf8(value.as_bytes());
                *place = text.ok().filter(|text| !text.is_empty());
            }
        }
        found
    }
}

impl Facts {
    pub(super) fn of<B>(
        config: &Config,
        request: &Request<B>,
        headers: &CommonHeaders<'_>,
        addresses: &Addresses<'_>,
    ) -> Self {
        let method = request.method();
        Self {
            method: method_name(&config.known_methods, method),
            scheme: addresses.scheme,
            protocol_version: protocol_version(request.version()),
            request_body_size: headers
                .content_length
                .and_then(|length| length.parse().ok()),
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
        }
    }

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

    /// The attributes of the root span that samplers may want to see.
    pub(super) fn push_attributes<B>(
        &self,
        config: &Config,
        request: &Request<B>,
        call: Option<&Call>,
        headers: &CommonHeaders<'_>,
        addresses: &Addresses<'_>,
        push: &mut dyn FnMut(KeyValue),
    ) {
        match call {
            Some(call) => call.push_attributes(push),
            None => self.push_http_attributes(request, &config.redaction, push),
        }
        push(KeyValue::new(
            "network.protocol.version",
            self.protocol_version,
        ));
        addresses.push_attributes(push);
        if let Some(agent) = headers.user_agent {
            push(KeyValue::new("user_agent.original", intern::text(agent)));
        }
        if let Some(size) = self.request_body_size {
            push(KeyValue::new("http.request.body.size", int(size)));
        }
        if let Some(recorded) = &config.request_headers {
            let is_rpc = call.is_some();
            recorded
                .attributes(request.headers(), is_rpc, &config.redaction)
                .for_each(push);
        }
    }

    fn push_http_attributes<B>(
        &self,
        request: &Request<B>,
        redaction: &Redaction,
        push: &mut dyn FnMut(KeyValue),
    ) {
        let uri = request.uri();
        push(KeyValue::new("http.request.method", self.method.clone()));
        if self.method.as_str() == OTHER_METHOD {
            push(KeyValue::new(
                "http.request.method_original",
                request.method().as_str().to_owned(),
            ));
        }
        push(KeyValue::new("url.scheme", self.scheme));
        push(KeyValue::new(
            "url.path",
            redaction.path(uri.path()).into_owned(),
        ));
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            push(KeyValue::new(
                "url.query",
                redaction.query(query).into_owned(),
            ));
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
