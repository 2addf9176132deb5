use std::borrow::Cow;

use opentelemetry::StringValue;

use crate::{intern, metrics::ActiveSeries, request::Route, semconv::OTHER};

/// What the end of a request needs to know of its beginning; all of bounded cardinality.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) method: StringValue,
    pub(super) scheme: &'static str,
    pub(super) protocol_version: &'static str,
    /// `Content-Length`
    pub(super) announced_body_size: Option<u64>,
    /// The response has no body whatever its headers announce (RFC 9110 §9.3.2, §9.3.6).
    pub(super) head: bool,
    pub(super) connect: bool,
}

impl Facts {
    /// `{method} {route}`, or `{method}` when there is no route; never the path (semconv
    /// http-spans: Name).
    pub(super) fn span_name(&self, route: Option<&Route>) -> Cow<'static, str> {
        let method = match self.method.as_str() {
            OTHER => "HTTP",
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
