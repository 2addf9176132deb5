//! The attributes that are known when a request arrives (semconv http-spans, HTTP server).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Request, Uri, header};

#[cfg(feature = "page")]
use super::finish::Seen;
use super::{
    addresses::{AddressRules, Addresses},
    config::Config,
    facts::Facts,
    rpc::Call,
};
use crate::{
    instrument::{AddAttributes, ROUTE, TextRules},
    propagation::{ContextLines, DEBUG_ID},
    redact::Redaction,
    request::Route,
    semconv::OTHER,
};

/// An arriving request, seen as the source of its span's attributes.
pub(super) struct Incoming<'a, B> {
    pub(super) request: &'a Request<B>,
    pub(super) headers: &'a CommonHeaders<'a>,
    /// Read early only behind trusted proxies, whose headers decide the scheme.
    pub(super) addresses: Option<&'a Addresses<'a>>,
    pub(super) facts: &'a Facts,
    /// The request is a gRPC call: its span and duration follow semconv rpc, not http.
    pub(super) call: Option<&'a Call>,
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
    pub(super) content_length: Option<&'a HeaderValue>,
    pub(super) context: ContextLines<'a>,
}

impl<'a> CommonHeaders<'a> {
    /// Finds them, in their place.
    pub(super) fn find(&mut self, headers: &'a HeaderMap) {
        for (name, value) in headers {
            let place = match *name {
                header::HOST => &mut self.host,
                header::USER_AGENT => &mut self.user_agent,
                header::CONTENT_LENGTH => &mut self.content_length,
                _ => {
                    self.context.note(name.as_str(), value);
                    continue;
                }
            };
            if place.is_none() && !value.is_empty() {
                *place = Some(value);
            }
        }
        if headers.len() != headers.keys_len() && headers.get_all(header::HOST).iter().count() > 1 {
            self.host = None;
        }
    }
}

impl<'a> CommonHeaders<'a> {
    #[inline(always)]
    pub(super) fn addresses<B>(
        &self,
        rules: &AddressRules,
        request: &'a Request<B>,
    ) -> Addresses<'a> {
        Addresses::of(rules, request, text(self.host))
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    str::from_utf8(value?.as_bytes()).ok()
}

impl<B> Incoming<'_, B> {
    /// What is shown of the request while it runs, by a page that lists such requests.
    #[cfg(feature = "page")]
    pub(super) fn seen(&self) -> Seen {
        Seen {
            uri: original_uri(self.request).clone(),
            call: self.call.map(Call::span_name),
        }
    }

    pub(super) fn span_name(&self, route: Option<&Route>) -> Cow<'static, str> {
        match self.call {
            Some(call) => call.span_name(),
            None => self.facts.span_name(route),
        }
    }

    /// The attributes that samplers may look at (semconv http-spans: provided at span creation).
    pub(super) fn add_attributes<A: AddAttributes + ?Sized>(
        &self,
        config: &Config,
        route: Option<&Route>,
        attributes: &mut A,
    ) {
        let texts = &config.recording.texts;
        let read;
        let addresses = match self.addresses {
            Some(addresses) => addresses,
            None => {
                read = self.headers.addresses(&config.addresses, self.request);
                &read
            }
        };
        match self.call {
            // Semconv rpc-spans, server: calls have neither the protocol nor the client's address.
            Some(call) => {
                call.add_attributes(attributes);
                addresses.add_server(attributes);
                self.add_agent(texts, attributes);
            }
            None => {
                self.add_url(&texts.redaction, attributes);
                // What a proxy says is not in the texts below.
                if self.addresses.is_some() || !attributes.keeps_recurring() {
                    self.add_recurring(texts, route, addresses, attributes);
                } else {
                    let (server, place) = addresses.server().whole();
                    let of = [
                        self.facts.method,
                        self.facts.scheme,
                        self.facts.protocol_version,
                        route.map_or("", |route| route.path.as_str()),
                        place,
                        server,
                        text(self.headers.user_agent).unwrap_or_default(),
                    ];
                    attributes.recurring(&of, &|attributes| {
                        self.add_recurring(texts, route, addresses, attributes);
                    });
                }
                addresses.add_client(attributes);
            }
        }
        addresses.add_peer(attributes);
        if let Some(recorded) = &config.request_headers {
            let headers = self.request.headers();
            let is_rpc = self.call.is_some();
            for attribute in recorded.attributes(headers, is_rpc, &texts.redaction) {
                attributes.other(attribute);
            }
        }
    }

    /// What someone who debugs has called the request.
    pub(super) fn add_debug_id(&self, texts: &TextRules, attributes: &mut dyn AddAttributes) {
        if let Some(id) = text(self.request.headers().get(&DEBUG_ID)) {
            attributes.text("jaeger-debug-id", &texts.text(id));
        }
    }

    fn add_url<A: AddAttributes + ?Sized>(&self, redaction: &Redaction, attributes: &mut A) {
        if self.facts.method == OTHER {
            let method = self.request.method().as_str();
            attributes.text("http.request.method_original", method);
        }
        let uri = original_uri(self.request);
        attributes.text("url.path", &redaction.path(uri.path()));
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            attributes.text("url.query", &redaction.query(query));
        }
    }

    /// The attributes that many requests share.
    fn add_recurring<A: AddAttributes + ?Sized>(
        &self,
        texts: &TextRules,
        route: Option<&Route>,
        addresses: &Addresses<'_>,
        attributes: &mut A,
    ) {
        attributes.fixed("http.request.method", self.facts.method);
        attributes.fixed("url.scheme", self.facts.scheme);
        if let Some(route) = route {
            attributes.shared(ROUTE, &route.path);
        }
        attributes.fixed("network.protocol.version", self.facts.protocol_version);
        addresses.add_server(attributes);
        self.add_agent(texts, attributes);
    }

    fn add_agent<A: AddAttributes + ?Sized>(&self, texts: &TextRules, attributes: &mut A) {
        let Some(agent) = text(self.headers.user_agent) else {
            return;
        };
        match texts.recurring(agent) {
            Some(known) => attributes.fixed("user_agent.original", known),
            None => attributes.text("user_agent.original", &texts.text(agent)),
        }
    }
}
