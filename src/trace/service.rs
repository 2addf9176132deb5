use std::{
    fmt,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use http::{HeaderMap, Request, Response, request::Parts};
use http_body::Body;
use opentelemetry::{
    Context,
    baggage::{BaggageExt, KeyValueMetadata},
    trace::{Link, SpanBuilder, SpanKind, TraceContextExt},
};
use tower_service::Service;

use super::{
    ResponseBody, ResponseFuture, Skip, Trust,
    attributes::{CommonHeaders, Incoming},
    config::{Attributes, Config, TrustRule},
    finish::Finish,
    future::Active,
};
use crate::{
    propagation::{ContextLines, continued_trace_id, denied_parent, is_denied, with_next_trace_id},
    request::{Clock, RequestState, RequestTrace, Route},
};

/// Room for those of a request and of its end, in a block of memory (glibc: up to 1 KiB) that
/// threads keep for themselves.
const ROOT_ATTRIBUTES: usize = 18;

/// The service of [`ImageTraceLayer`](super::ImageTraceLayer).
#[derive(Clone, Debug)]
pub struct ImageTrace<S> {
    inner: S,
    /// `None`: tracing is off.
    config: Option<Arc<Config>>,
}

impl<S> ImageTrace<S> {
    pub(super) fn new(inner: S, config: Option<Arc<Config>>) -> Self {
        Self { inner, config }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ImageTrace<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: fmt::Display + 'static,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        match &self.config {
            None => ResponseFuture::new(self.inner.call(request), None),
            Some(config) => serve(&mut self.inner, config, request),
        }
    }
}

fn serve<S, B>(
    inner: &mut S,
    config: &Arc<Config>,
    mut request: Request<B>,
) -> ResponseFuture<S::Future>
where
    S: Service<Request<B>>,
{
    let (mut skip, mut trust) = (Skip::Nothing, Trust::Parent);
    if config.filter.is_some() || config.trust.is_some() {
        let (parts, body) = request.into_parts();
        (skip, trust) = config.decide(&parts);
        request = Request::from_parts(parts, body);
    }
    let Some(mut active) = config.begin(skip, trust, &mut request) else {
        return ResponseFuture::new(inner.call(request), None);
    };
    let _current = active.attach();
    let future = active.watch(|| inner.call(request));
    ResponseFuture::new(future, Some(active))
}

impl Config {
    /// Opens the root span and puts the handle into the request; there is nothing to be active for
    /// a request that is skipped and that no caller sent a context with.
    fn begin<B>(
        self: &Arc<Self>,
        skip: Skip,
        trust: Trust,
        request: &mut Request<B>,
    ) -> Option<Active> {
        if skip == Skip::All
            && !self.propagation.may_find(request.headers())
            && !Context::map_current(carries_anything)
        {
            return None;
        }
        let headers = CommonHeaders::of(request.headers());
        let (parent, links) = self.parent(trust, request.headers(), &headers.context);
        if skip == Skip::All {
            return carries_anything(&parent).then_some(Active::Skipped(parent));
        }
        let has_span = self.traces && skip != Skip::Span;
        let incoming = Incoming::of(self, request, headers);
        let mut route = matched_route(request);
        let clock = Clock::start(has_span);
        let has_context = has_span || carries_anything(&parent);
        let (context, recording) = if !has_span {
            (parent, false)
        } else {
            let mut span = SpanBuilder::from_name(incoming.span_name(route.as_ref()));
            if let Some(route) = &mut route {
                route.is_in_name = true;
            }
            span.span_kind = Some(SpanKind::Server);
            span.start_time = Some(clock.started_at());
            span.links = links;
            self.start(span, parent, &incoming)
        };

        let Incoming { facts, call, .. } = incoming;
        let state = Arc::new(RequestState::new(
            Arc::clone(self),
            context,
            recording,
            facts,
            clock,
            route,
        ));
        let trace = RequestTrace::new(Arc::clone(&state));
        request.extensions_mut().insert(trace);
        Some(Active::Traced(Finish::new(state, call, has_context)))
    }

    /// A context with the root span in it, and whether that records.
    fn start<B>(
        &self,
        mut span: SpanBuilder,
        mut parent: Context,
        incoming: &Incoming<'_, B>,
    ) -> (Context, bool) {
        let mut known = Vec::with_capacity(ROOT_ATTRIBUTES);
        let mut late: Option<&Attributes<'_>> = None;
        let add_attributes = |attributes: &mut _| incoming.add_attributes(self, attributes);
        if self.attributes_after_sampling {
            late = Some(&add_attributes);
        } else {
            add_attributes(&mut known);
        }
        span.attributes = Some(known);
        let continued = continued_trace_id(&parent);
        let is_new = continued.is_none() && !parent.span().span_context().is_valid();
        let has_random_id = is_new && self.random_trace_ids;
        if let Some(denied) = denied_parent(&parent) {
            parent = parent.with_remote_span_context(denied);
            return self.tracer.start_root(span, &parent, late, has_random_id);
        }
        match continued {
            None => self.tracer.start_root(span, &parent, late, has_random_id),
            Some(id) => {
                (parent, span.links) = without_parent(&parent);
                with_next_trace_id(id, || self.tracer.start(span, &parent, late))
            }
        }
    }

    /// Asks the filter and the trust rule, where there are any.
    fn decide(&self, parts: &Parts) -> (Skip, Trust) {
        let skip = self
            .filter
            .as_ref()
            .map_or(Skip::Nothing, |filter| filter(parts));
        let trust = match &self.trust {
            None => Trust::Parent,
            Some(TrustRule::Closure(trust)) => trust(parts),
            Some(TrustRule::Networks(networks, others)) => {
                match self.addresses.peer(&parts.extensions) {
                    Some(peer) if networks.contains(peer.ip()) => Trust::Parent,
                    _ => *others,
                }
            }
        };
        (skip, trust)
    }

    /// The context that the root span begins in, and the links it begins with.
    fn parent(
        &self,
        trust: Trust,
        headers: &HeaderMap,
        lines: &ContextLines<'_>,
    ) -> (Context, Option<Vec<Link>>) {
        match trust {
            Trust::Parent => (self.propagation.extract(headers, lines), None),
            Trust::Ignore => (Context::current(), None),
            Trust::Link => {
                let callers = self.propagation.extract(headers, lines);
                let caller = callers.span().span_context().clone();
                let links = caller.is_remote().then(|| vec![Link::with_context(caller)]);
                (Context::current(), links)
            }
        }
    }
}

/// Whether a context would make a difference to what is called in it.
fn carries_anything(context: &Context) -> bool {
    context.has_active_span()
        || !context.baggage().is_empty()
        || continued_trace_id(context).is_some()
        || is_denied(context)
}

/// For a trace that was begun without a sampling decision: the sampler would take a parent for a
/// decision, so the caller's span is only linked to. The baggage stays.
fn without_parent(undecided: &Context) -> (Context, Option<Vec<Link>>) {
    let caller = undecided.span().span_context().clone();
    if !caller.is_valid() {
        return (undecided.clone(), None);
    }
    let baggage = undecided.baggage().iter();
    let context = Context::map_current(|current| {
        current.with_baggage(baggage.map(|(key, (value, metadata))| {
            KeyValueMetadata::new(key.clone(), value.clone(), metadata.clone())
        }))
    });
    (context, Some(vec![Link::with_context(caller)]))
}

/// The route that axum has matched already, when the layer is inside the router.
#[cfg(feature = "axum")]
fn matched_route<B>(request: &Request<B>) -> Option<Route> {
    let path = request.extensions().get::<axum::extract::MatchedPath>()?;
    Some(Route::new(path.as_str(), false))
}

#[cfg(not(feature = "axum"))]
fn matched_route<B>(_: &Request<B>) -> Option<Route> {
    None
}
