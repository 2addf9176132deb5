//! The attributes that are known when a request arrives (semconv http-spans, HTTP server).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use opentelemetry::KeyValue;

#[cfg(feature = "page")]
use super::finish::Seen;
use super::{addresses::Addresses, config::Config, facts::Facts, rpc::Call};
use crate::{
    instrument::add,
    propagation::ContextLines,
    redact::Redaction,
    request::Route,
    semconv::{OTHER, parse_length, protocol_version, scheme},
};

/// An arriving request, seen as the source of its span's attributes.
pub(super) struct Incoming<'a, B> {
    request: &'a Request<B>,
    headers: CommonHeaders<'a>,
    /// Read early only behind trusted proxies, whose headers decide the scheme.
    addresses: Option<Addresses<'a>>,
    pub(super) facts: Facts,
    /// The request is a gRPC call: its span and duration follow semconv rpc, not http.
    pub(super) call: Option<Call>,
}

/// The URI that the client has sent, which an axum router shortens for the routers that are nested in it.
#[cfg(feature = "axum")]
fn original_uri<B>(request: &Request<B>) -> &Uri {
    let original = request.extensions().get::<axum::extract::OriginalUri>();
    original.map_or_else(|| request.uri(), |original| &original.0)
}

#[cfg(not(feature = "axum"))]
fn original_uri<B>(request: &Request<B>) -> &Uri {
    request.uri()
}

/// The headers that most requests have, found in one pass.
#[derive(Debug, Default)]
pub(super) struct CommonHeaders<'a> {
    /// `None` also when there are several: RFC 9112 §3.2 demands to refuse such a request.
    host: Option<&'a HeaderValue>,
    user_agent: Option<&'a HeaderValue>,
    content_length: Option<&'a HeaderValue>,
    pub(super) context: ContextLines<'a>,
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
        if headers.len() != headers.keys_len() && headers.get_all(header::HOST).iter().count() > 1 {
            found.host = None;
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
            None => scheme(request.uri().scheme_str()),
        };
        let method = request.method();
        let facts = Facts {
            method: config.known_methods.name(method),
            scheme,
            protocol_version: protocol_version(request.version()),
            announced_body_size: headers.content_length.and_then(parse_length),
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

    /// What is shown of the request while it runs, by a page that lists such requests.
    #[cfg(feature = "page")]
    pub(super) fn seen(&self) -> Seen {
        Seen {
            uri: original_uri(self.request).clone(),
            call: self.call.as_ref().map(Call::span_name),
        }
    }

    pub(super) fn span_name(&self, route: Option<&Route>) -> Cow<'static, str> {
        match &self.call {
            Some(call) => call.span_name(),
            None => self.facts.span_name(route),
        }
    }

    /// The attributes that samplers may look at (semconv http-spans: provided at span creation).
    pub(super) fn add_attributes(
        &self,
        config: &Config,
        route: Option<&Route>,
        attributes: &mut Vec<KeyValue>,
    ) {
        match &self.call {
            Some(call) => call.add_attributes(attributes),
            None => {
                self.add_http_attributes(&config.recording.texts.redaction, attributes);
                if let Some(route) = route {
                    add(attributes, || {
                        KeyValue::new("http.route", route.path.clone())
                    });
                }
            }
        }
        let is_rpc = self.call.is_some();
        // Semconv rpc-spans, server: calls have neither the protocol nor the client's address.
        if !is_rpc {
            add(attributes, || {
                KeyValue::new("network.protocol.version", self.facts.protocol_version)
            });
        }
        let read;
        let addresses = match &self.addresses {
            Some(addresses) => addresses,
            None => {
                read = Addresses::of(&config.addresses, self.request, text(self.headers.host));
                &read
            }
        };
        addresses.add_attributes(!is_rpc, attributes);
        if let Some(agent) = text(self.headers.user_agent) {
            let agent = config.recording.texts.recurring(agent);
            add(attributes, || KeyValue::new("user_agent.original", agent));
        }
        if let Some(recorded) = &config.request_headers {
            let headers = self.request.headers();
            attributes.extend(recorded.attributes(
                headers,
                is_rpc,
                &config.recording.texts.redaction,
            ));
        }
    }

    fn add_http_attributes(&self, redaction: &Redaction, attributes: &mut Vec<KeyValue>) {
        let uri = original_uri(self.request);
        let method = &self.facts.method;
        add(attributes, || {
            KeyValue::new("http.request.method", method.clone())
        });
        if method.as_str() == OTHER {
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
