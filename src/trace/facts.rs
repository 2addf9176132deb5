use std::borrow::Cow;

use http::{HeaderValue, Method, Request};

use crate::{
    intern,
    metrics::ActiveSeries,
    request::Route,
    semconv::{self, KnownMethods, OTHER, parse_length, protocol_version},
};

/// What the end of a request needs to know of its beginning; all of bounded cardinality.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) method: &'static str,
    pub(super) scheme: &'static str,
    pub(super) protocol_version: &'static str,
    /// `Content-Length`
    pub(super) announced_body_size: Option<u64>,
    /// The response has no body whatever its headers announce (RFC 9110 §9.3.2, §9.3.6).
    pub(super) head: bool,
    pub(super) connect: bool,
}

impl Facts {
    /// `scheme`: as a trusted proxy says it.
    #[inline]
    pub(super) fn of<B>(
        methods: &KnownMethods,
        request: &Request<B>,
        content_length: Option<&HeaderValue>,
        scheme: Option<&'static str>,
    ) -> Self {
        let method = request.method();
        Self {
            method: methods.name(method),
            scheme: scheme.unwrap_or_else(|| semconv::scheme(request.uri().scheme_str())),
            protocol_version: protocol_version(request.version()),
            announced_body_size: content_length.and_then(parse_length),
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
        }
    }

    /// `{method} {route}`, or `{method}` when there is no route; never the path (semconv
    /// http-spans: Name).
    pub(super) fn span_name(&self, route: Option<&Route>) -> Cow<'static, str> {
        let method = match self.method {
            OTHER => "HTTP",
            known => known,
        };
        match route {
            Some(route) => intern::span_name(method, route.path.as_str()),
            None => Cow::Borrowed(method),
        }
    }

    pub(super) fn active_series(&self) -> ActiveSeries {
        ActiveSeries {
            method: self.method,
            scheme: self.scheme,
        }
    }
}
