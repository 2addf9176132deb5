use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Instant, SystemTime},
};

use http::{Request, Response};
use http_body::Body;
use opentelemetry::{
    Context,
    baggage::{BaggageExt, KeyValueMetadata},
    trace::{Link, SpanBuilder, SpanKind, TraceContextExt},
};
use tower_service::Service;

use super::{
    ResponseBody, ResponseFuture, Skip, Trust,
    addresses::Addresses,
    attributes::Facts,
    config::{Config, TrustRule},
    finish::Finish,
    future::Active,
};
use crate::{
    propagation::{continued_trace_id, with_next_trace_id},
    request::{RequestState, RequestTrace, Route},
};

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
        let Some(config) = &self.config else {
            return ResponseFuture::new(self.inner.call(request), None);
        };
        let (active, request) = config.begin(request);
        let Some(mut active) = active else {
            return ResponseFuture::new(self.inner.call(request), None);
        };
        let _current = active.attach();
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(future) => ResponseFuture::new(future, Some(active)),
            Err(payload) => {
                if let Some(finish) = &mut active.finish {
                    finish.panicked(&*payload);
                }
                resume_unwind(payload)
            }
        }
    }
}

impl Config {
    /// Opens the root span and puts the handle into the request; there is nothing to be active for
    /// a request that is skipped and that no caller sent a context with.
    fn begin<B>(self: &Arc<Self>, request: Request<B>) -> (Option<Active>, Request<B>) {
        let (skip, trust, mut request) = self.decide(request);
        let (mut parent, mut links) = self.parent(trust, &request);
        if skip == Skip::All {
            let active = carries_anything(&parent).then_some(Active {
                context: parent,
                finish: None,
            });
            return (active, request);
        }
        let addresses = Addresses::of(&self.addresses, &request);
        let facts = Facts::of(self, &request, &addresses);
        let route = matched_route(&request);
        let started = Instant::now();
        let started_at = SystemTime::now();
        let (context, recording) = if skip == Skip::Span {
            (parent, false)
        } else {
            let continued = continued_trace_id(&parent);
            if continued.is_some() {
                (parent, links) = without_parent(&parent);
            }
            let mut span = SpanBuilder::from_name(facts.span_name(route.as_ref()))
                .with_kind(SpanKind::Server)
                .with_start_time(started_at);
            span.attributes = Some(facts.span_attributes(self, &request, &addresses));
            span.links = links;
            match continued {
                Some(id) => with_next_trace_id(id, || self.tracer.start(span, &parent)),
                None => self.tracer.start(span, &parent),
            }
        };

        let state = Arc::new(RequestState::new(
            Arc::clone(self),
            context.clone(),
            recording,
            route,
        ));
        request
            .extensions_mut()
            .insert(RequestTrace::new(Arc::clone(&state)));
        let finish = Finish::new(state, facts, started, started_at);
        let active = Active {
            context,
            finish: Some(finish),
        };
        (Some(active), request)
    }

    /// Asks the filter and the trust rule, where there are any.
    fn decide<B>(&self, request: Request<B>) -> (Skip, Trust, Request<B>) {
        if self.filter.is_none() && self.trust.is_none() {
            return (Skip::Nothing, Trust::Parent, request);
        }
        let (parts, body) = request.into_parts();
        let skip = self
            .filter
            .as_ref()
            .map_or(Skip::Nothing, |filter| filter(&parts));
        let trust = match &self.trust {
            None => Trust::Parent,
            Some(TrustRule::Closure(trust)) => trust(&parts),
            Some(TrustRule::Networks(networks, others)) => {
                match self.addresses.peer(&parts.extensions) {
                    Some(peer) if networks.contains(peer.ip()) => Trust::Parent,
                    _ => *others,
                }
            }
        };
        (skip, trust, Request::from_parts(parts, body))
    }

    /// The context that the root span begins in, and the links it begins with.
    fn parent<B>(&self, trust: Trust, request: &Request<B>) -> (Context, Option<Vec<Link>>) {
        match trust {
            Trust::Parent => (self.propagation.extract(request.headers()), None),
            Trust::Ignore => (Context::current(), None),
            Trust::Link => {
                let callers = self.propagation.extract(request.headers());
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
    let path = request
        .extensions()
        .get::<axum::extract::MatchedPath>()?
        .as_str();
    Some(Route {
        path: path.to_owned().into(),
        named: false,
    })
}

#[cfg(not(feature = "axum"))]
fn matched_route<B>(_: &Request<B>) -> Option<Route> {
    None
}
