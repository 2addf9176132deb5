use std::{
    any::Any,
    cell::Cell,
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, request::Parts};
use opentelemetry::{
    Context, KeyValue, StringValue, global,
    propagation::TextMapPropagator,
    trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};

use super::{
    Networks, Skip, Trust, addresses::AddressRules, headers::RecordedHeaders,
    response_headers::ResponseHeaders, rpc::Methods,
};
use crate::{
    metrics::{HttpMetrics, RpcMetrics, StageMetrics},
    propagation::{ContextLines, Propagators, RANDOM, RandomRoot, with_flags},
    redact::Redaction,
};

/// What a layer does with each request; shared by all its services and their requests.
pub(crate) struct Config {
    /// Whether there are spans at all.
    pub(super) traces: bool,
    pub(crate) tracer: Box<dyn StartSpan>,
    pub(crate) propagation: Propagation,
    pub(crate) propagate_external: bool,
    /// Whether the trace ids that the tracer makes are random (W3C Trace Context level 2).
    pub(super) random_trace_ids: bool,
    pub(crate) http_metrics: Option<HttpMetrics>,
    pub(crate) rpc_metrics: Option<RpcMetrics>,
    pub(crate) stage_metrics: Option<StageMetrics>,
    pub(crate) redaction: Redaction,
    /// Whether the sampler is asked before there are any attributes.
    pub(super) attributes_after_sampling: bool,
    pub(super) filter: Option<Box<Filter>>,
    pub(super) trust: Option<TrustRule>,
    pub(super) addresses: AddressRules,
    pub(super) request_headers: Option<RecordedHeaders>,
    pub(super) response_headers: Option<RecordedHeaders>,
    pub(crate) added_headers: ResponseHeaders,
    pub(super) known_methods: Vec<(Method, StringValue)>,
    pub(super) rpc_methods: Methods,
    pub(super) error_views: Vec<ErrorView>,
}

pub(super) type Filter = dyn Fn(&Parts) -> Skip + Send + Sync;

/// Decides what a request's propagated context is worth.
pub(super) enum TrustRule {
    Closure(Box<dyn Fn(&Parts) -> Trust + Send + Sync>),
    /// Peers in these networks are trusted, the others as said.
    Networks(Networks, Trust),
}

/// Sees a service's error as the [`Error`] that it is, if it is of the type that the view is for.
pub(crate) type ErrorView = fn(&dyn Any) -> Option<(&(dyn Error + 'static), &'static str)>;

/// The view for errors of type `E`.
pub(crate) fn view_as<E: Error + 'static>(
    error: &dyn Any,
) -> Option<(&(dyn Error + 'static), &'static str)> {
    let error = error.downcast_ref::<E>()?;
    Some((error, std::any::type_name::<E>()))
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("propagation", &self.propagation)
            .field("metrics", &self.http_metrics.is_some())
            .finish_non_exhaustive()
    }
}

/// A tracer of any provider. Unlike the API's `BoxedTracer` it puts the span into its context
/// while its type is still known, which saves a box a span.
pub(crate) trait StartSpan: Send + Sync {
    /// A context with the new span in it, and whether that span records. Only if it does, it gets
    /// the `late` attributes. A root span with a random trace id has the random flag.
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Context,
        late: Option<&Attributes<'_>>,
        has_random_id: bool,
    ) -> (Context, bool);

    /// [`start_root`](Self::start_root) for a span of a trace that has begun.
    fn start(
        &self,
        span: SpanBuilder,
        parent: &Context,
        late: Option<&Attributes<'_>>,
    ) -> (Context, bool) {
        self.start_root(span, parent, late, false)
    }

    /// Records a span that has a start time and is over after so long.
    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration);
}

/// Adds attributes.
pub(crate) type Attributes<'a> = dyn Fn(&mut Vec<KeyValue>) + 'a;

thread_local! {
    /// Where the late attributes of a span are, one span at a time.
    static LATE_ATTRIBUTES: Cell<Vec<KeyValue>> = const { Cell::new(Vec::new()) };
}

impl<T> StartSpan for T
where
    T: Tracer + Send + Sync,
    T::Span: Send + Sync + 'static,
{
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Context,
        late: Option<&Attributes<'_>>,
        has_random_id: bool,
    ) -> (Context, bool) {
        let mut span = self.build_with_context(span, parent);
        if span.is_recording() {
            if let Some(late) = late {
                // Only while the thread is ending there is none to be had.
                let kept = LATE_ATTRIBUTES.try_with(Cell::take);
                let mut attributes = kept.unwrap_or_default();
                late(&mut attributes);
                span.set_attributes(attributes.drain(..));
                let _ = LATE_ATTRIBUTES.try_with(|kept| kept.set(attributes));
            }
            let context = match has_random_id {
                true => parent.with_span(RandomRoot::new(span)),
                false => parent.with_span(span),
            };
            (context, true)
        } else {
            // All that is left of it, without the box that a span is kept in.
            let span = match has_random_id {
                true => with_flags(span.span_context(), RANDOM),
                false => span.span_context().clone(),
            };
            (parent.with_remote_span_context(span), false)
        }
    }

    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration) {
        let started_at = span.start_time.unwrap_or_else(SystemTime::now);
        let mut span = self.build_with_context(span, parent);
        if status != Status::Unset {
            span.set_status(status);
        }
        span.end_with_timestamp(started_at + elapsed);
    }
}

/// Reads and writes the propagated context of HTTP headers.
#[derive(Clone, Debug)]
pub(crate) enum Propagation {
    /// Whatever is set globally when a request comes.
    Global,
    /// The crate's own propagators read the header map itself.
    Own(Propagators),
    Custom(Arc<dyn TextMapPropagator + Send + Sync>),
}

impl Propagation {
    pub(crate) fn new(propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        match (&propagator as &dyn Any).downcast_ref::<Propagators>() {
            Some(own) => Self::Own(own.clone()),
            None => Self::Custom(Arc::new(propagator)),
        }
    }

    /// Whether the headers may add anything to the current context.
    pub(super) fn may_find(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Own(_) => Propagators::may_find(headers),
            Self::Global | Self::Custom(_) => true,
        }
    }

    /// The current context with what the headers add to it.
    pub(super) fn extract(&self, headers: &HeaderMap, lines: &ContextLines<'_>) -> Context {
        match self {
            Self::Own(propagators) => {
                Context::map_current(|context| propagators.extract_noted(context, headers, lines))
            }
            Self::Global => global::get_text_map_propagator(|propagator| {
                propagator.extract(&HeaderExtractor(headers))
            }),
            Self::Custom(propagator) => propagator.extract(&HeaderExtractor(headers)),
        }
    }

    pub(crate) fn inject(&self, context: &Context, headers: &mut HeaderMap) {
        match self {
            Self::Own(propagators) => propagators.inject_headers(context, headers),
            Self::Global => global::get_text_map_propagator(|propagator| {
                propagator.inject_context(context, &mut HeaderInjector(headers));
            }),
            Self::Custom(propagator) => {
                propagator.inject_context(context, &mut HeaderInjector(headers));
            }
        }
    }
}
