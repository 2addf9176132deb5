#[cfg(feature = "axum")]
use std::any::Any;
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
    Record, ResponseBody, ResponseFuture, Trust,
    active::Active,
    attributes::{CommonHeaders, Incoming},
    config::{Config, StartLabels, TrustRule},
    facts::Facts,
    finish::{Finish, Root},
    rpc::Call,
};
use crate::{
    instrument::{AddAttributes, Begun, Clock, First, SpanAttributes, Work, guarded, watch},
    propagation::{
        ContextLines, Parent, continued_trace_id, denied_parent, is_debug, is_denied,
        with_forced_sampling, with_next_trace_id,
    },
    request::{RequestState, RequestTrace, Route},
};

/// Room for the attributes of a request and of its end. At this size allocators serve the list from a
/// cache of the thread (glibc: up to 1 KiB).
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

    /// The service that answers.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service that answers, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service that answers, without this one around it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ImageTrace<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: fmt::Display + 'static,
    ReqBody: 'static,
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
    B: 'static,
{
    let mut decided = Decided::default();
    if config.sees_parts {
        let (parts, body) = request.into_parts();
        decided = config.decide(&parts);
        request = Request::from_parts(parts, body);
    }
    let Some(mut active) = config.begin(decided, &mut request) else {
        return ResponseFuture::new(inner.call(request), None);
    };
    let current = active.attach();
    let future = watch(&mut active, || inner.call(request));
    active.detach(current);
    ResponseFuture::new(future, Some(active))
}

/// What the closures of the service's own say of a request.
#[derive(Default)]
struct Decided {
    record: Record,
    trust: Trust,
    /// Its trace is sampled, whatever the sampler says.
    is_forced: bool,
    labels: Option<Box<StartLabels>>,
}

impl Config {
    /// Opens the root span and puts the handle into the request. Returns `None` for a request that is
    /// not recorded and came without a context.
    #[inline]
    fn begin<B: 'static>(
        self: &Arc<Self>,
        decided: Decided,
        request: &mut Request<B>,
    ) -> Option<Active> {
        let Decided {
            record,
            trust,
            is_forced,
            labels,
        } = decided;
        if record == Record::Nothing
            && !self.recording.propagation.may_find(request.headers())
            && !Context::map_current(carries_anything)
        {
            return None;
        }
        let mut headers = CommonHeaders::default();
        headers.find(request.headers());
        let outer = RequestTrace::of_outer(request.extensions());
        let mut links = None;
        let parent = match &outer {
            // The layer around this one has read the headers.
            Some(outer) => Parent::Context(outer.inner_context()),
            None => self.parent(trust, request.headers(), &headers.context, &mut links),
        };
        if record == Record::Nothing {
            let is_known = parent.beside().is_none_or(carries_anything);
            return is_known.then(|| Active::Skipped(parent.into_context()));
        }
        let has_span = self.traces && record == Record::All;
        let proxied = self.addresses.proxies.is_some();
        let addresses = proxied.then(|| headers.addresses(&self.addresses, request));
        let facts = Facts::of(
            &self.known_methods,
            request,
            headers.content_length,
            addresses.as_ref().map(|addresses| addresses.scheme),
        );
        let call = Call::of(&self.rpc_methods, request).map(Box::new);
        let incoming = Incoming {
            request,
            headers: &headers,
            addresses: addresses.as_ref(),
            facts: &facts,
            call: call.as_deref(),
        };
        let mut route = matched_route(request);
        let mut clock = Clock::start();
        let has_context = has_span || parent.beside().is_none_or(carries_anything);
        let mut attributes = SpanAttributes::None;
        let context = if !has_span {
            parent.into_context()
        } else {
            let mut span = SpanBuilder::from_name(incoming.span_name(route.as_ref()));
            // Behind a wildcard the service mostly names the route itself, which the span could not take
            // in place of one that its sampler has seen.
            let known = route
                .as_mut()
                .filter(|route| !route.path.as_str().contains("{*"));
            if let Some(route) = known {
                route.is_on_span = true;
            }
            span.span_kind = Some(match &outer {
                Some(_) => SpanKind::Internal,
                None => SpanKind::Server,
            });
            span.links = links;
            let route = route.as_ref().filter(|route| route.is_on_span);
            let is_debugged = parent.beside().is_some_and(is_debug);
            let start = || {
                let begun = self.start(span, &parent, &incoming, route, &mut attributes);
                clock.date(begun.started_at);
                begun.context
            };
            let context = match is_forced || is_debugged {
                true => with_forced_sampling(start),
                false => start(),
            };
            if is_debugged {
                let texts = &self.recording.texts;
                attributes.add(&context.span(), texts, |attributes| {
                    incoming.add_debug_id(texts, attributes);
                });
            }
            context
        };

        let is_recording = !matches!(attributes, SpanAttributes::None);
        #[cfg(feature = "page")]
        let seen = match self.running {
            Some(_) if is_recording && outer.is_none() => Some(incoming.seen()),
            _ => None,
        };
        let root = Root {
            #[cfg(feature = "page")]
            seen,
            config: Arc::clone(self),
            facts,
            outer,
            labels,
        };
        let state = Arc::new(RequestState::new(context, is_recording, clock, route, root));
        let handle: Arc<RequestState> = Arc::<RequestState<Root>>::clone(&state);
        let trace = RequestTrace::new(handle);
        count_body(request, &trace);
        request.extensions_mut().insert(trace);
        Some(Active::Traced(Finish::new(
            state,
            attributes,
            call,
            has_context,
        )))
    }

    /// Begins the root span, and sets the attributes that it began with.
    #[inline]
    fn start<B>(
        &self,
        mut span: SpanBuilder,
        parent: &Parent,
        incoming: &Incoming<'_, B>,
        route: Option<&Route>,
        begun_with: &mut SpanAttributes,
    ) -> Begun {
        let texts = &self.recording.texts;
        let mut seen = SpanAttributes::None;
        if !self.attributes_after_sampling {
            let mut attributes = Vec::with_capacity(ROOT_ATTRIBUTES);
            seen = SpanAttributes::seen(&mut attributes, texts, |attributes| {
                incoming.add_attributes(self, route, attributes);
            });
            span.attributes = Some(attributes);
        }
        let add = |attributes: &mut dyn AddAttributes| {
            incoming.add_attributes(self, route, attributes);
        };
        let first = self
            .attributes_after_sampling
            .then_some(First { texts, add: &add });
        let tracer = &self.recording.tracer;
        let beside = parent.beside();
        let continued = beside.and_then(continued_trace_id);
        let has_parent = |context: &Context| context.span().span_context().is_valid();
        let is_new = continued.is_none() && !beside.is_none_or(has_parent);
        let has_random_id = is_new && self.random_trace_ids;
        let begun = if let Some(context) = beside
            && let Some(denied) = denied_parent(context)
        {
            let parent = Parent::Context(context.with_remote_span_context(denied));
            tracer.start_root(span, &parent, has_random_id, first)
        } else if let Some(context) = beside
            && let Some(id) = continued
        {
            let (context, links) = without_parent(context);
            span.links = links;
            let parent = Parent::Context(context);
            with_next_trace_id(id, || tracer.start_root(span, &parent, false, first))
        } else {
            tracer.start_root(span, parent, has_random_id, first)
        };
        match begun.written {
            _ if !begun.is_recording => seen.recycle(),
            Some(written) => *begun_with = SpanAttributes::Written(written),
            None if self.attributes_after_sampling => {
                *begun_with = SpanAttributes::unseen();
                begun_with.add(&begun.context.span(), texts, add);
            }
            None => *begun_with = seen,
        }
        begun
    }

    /// Asks the filter, the trust rule, and the rules of sampling and of labels.
    fn decide(&self, parts: &Parts) -> Decided {
        // A panic in a closure of the service's must not fail the request.
        let filter = self.filter.as_ref().map(|filter| guarded(|| filter(parts)));
        let record = filter.map_or(Record::All, |record| record.unwrap_or(Record::All));
        let trust = match &self.trust {
            None => Trust::Parent,
            Some(TrustRule::Closure(trust)) => guarded(|| trust(parts)).unwrap_or(Trust::Ignore),
            Some(TrustRule::Networks(networks, others)) => {
                match self.addresses.peer(&parts.extensions) {
                    Some(peer) if networks.contains(peer.ip()) => Trust::Parent,
                    _ => *others,
                }
            }
        };
        // A request that is not trusted has no say in what is sampled.
        let mut rule = self.sample_when.iter().filter(|_| trust == Trust::Parent);
        let is_forced = rule.any(|rule| guarded(|| rule(parts)) == Some(true));
        let has_labels = record != Record::Nothing && self.labels.any();
        Decided {
            record,
            trust,
            is_forced,
            labels: has_labels.then(|| Box::new(self.labels.start(parts))),
        }
    }

    /// The context that the root span begins in. Sets the links it begins with.
    #[inline]
    fn parent(
        &self,
        trust: Trust,
        headers: &HeaderMap,
        lines: &ContextLines<'_>,
        links: &mut Option<Vec<Link>>,
    ) -> Parent {
        match trust {
            Trust::Parent => {
                let extracted = self.recording.propagation.extract(headers, lines);
                match extracted.beside().and_then(innermost) {
                    Some(current) => Parent::Context(current),
                    None => extracted,
                }
            }
            Trust::Ignore => Parent::Context(Context::current()),
            Trust::Link => {
                let callers = self.recording.propagation.extract(headers, lines);
                let caller = callers.context().span().span_context().clone();
                *links = caller.is_remote().then(|| vec![Link::with_context(caller)]);
                Parent::Context(Context::current())
            }
        }
    }
}

/// The current context in place of the caller's when its span is of the caller's trace: other middleware
/// has continued that already. The caller's baggage is kept.
fn innermost(extracted: &Context) -> Option<Context> {
    let (trace_id, span_id) = {
        let caller = extracted.span();
        let caller = caller.span_context();
        (caller.trace_id(), caller.span_id())
    };
    Context::map_current(|current| {
        let span = current.span();
        let span = span.span_context();
        let continues = span.is_valid()
            && !span.is_remote()
            && span.trace_id() == trace_id
            && span.span_id() != span_id;
        if !continues {
            return None;
        }
        let baggage = extracted.baggage().iter();
        Some(
            current.with_baggage(baggage.map(|(key, (value, metadata))| {
                KeyValueMetadata::new(key.clone(), value.clone(), metadata.clone())
            })),
        )
    })
}

/// Whether a context carries anything for the code that runs in it.
fn carries_anything(context: &Context) -> bool {
    context.has_active_span()
        || !context.baggage().is_empty()
        || continued_trace_id(context).is_some()
        || is_denied(context)
}

/// The context of a trace that came without a sampling decision. The sampler would take a parent for
/// the decision, so the caller's span becomes a link. The baggage stays.
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

/// Counts what the service reads of a body whose type hides where it comes from.
#[cfg(feature = "axum")]
fn count_body<B: 'static>(request: &mut Request<B>, trace: &RequestTrace) {
    let body: &mut dyn Any = request.body_mut();
    if let Some(body) = body.downcast_mut::<axum::body::Body>()
        && guarded(|| body.is_end_stream()) == Some(false)
    {
        let counted = trace.request_body(std::mem::take(body));
        *body = axum::body::Body::new(counted);
    }
}

#[cfg(not(feature = "axum"))]
fn count_body<B>(_: &mut Request<B>, _: &RequestTrace) {}

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
