//! Spans of the crate's layers on their way to a collector, without the SDK's span.
//!
//! A span of the SDK is a list of attributes that is moved and freed as a whole. These attributes are
//! written to bytes when they come, and the rest of the span when it ends. For everybody else, such as
//! `Context::current().span()`, it behaves as a span of the SDK does.
//!
//! The SDK makes all spans whose provider has a sampler or a span processor of the service's, those that
//! are printed, and those that others start with the provider.

mod data;
mod runs;
mod span;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, InstrumentationScope,
    trace::{
        SpanBuilder, SpanContext, SpanKind, SpanRef, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState,
    },
};
use opentelemetry_sdk::trace::{
    IdGenerator, Sampler as SdkSampler, SamplingDecision, ShouldSample,
};

use self::{
    data::{Data, cut, cut_events, cut_links},
    runs::Runs,
    span::{Owner, Span},
};
#[cfg(feature = "page")]
use super::pipeline::Gathered;
use super::{
    id_generator::{AnyIdGenerator, ContinuingIdGenerator},
    otlp::{
        Batch,
        encode::{self, Header, Recorded},
    },
    pipeline::{AtStart, Ended, Keeper, Queue, is_exporting, says_cancelled},
    settings::{Sampler, Settings, SpanLimits},
};
use crate::{
    instrument::{Begun, First, StartSpan, scope},
    propagation::{Parent, RANDOM, is_forced, without_threshold},
};

/// Starts the spans of the layers.
#[derive(Clone, Debug)]
pub(super) struct SpanWriter(Arc<Writing>);

/// What all spans of a writer share.
struct Writing {
    ids: ContinuingIdGenerator<AnyIdGenerator>,
    sampler: Sampler,
    /// Decides in place of the sampler, where traces are kept or not at their end.
    at_start: Option<AtStart>,
    limits: SpanLimits,
    scope: InstrumentationScope,
    header: Arc<Header>,
    /// Takes all spans, sampled or not.
    #[cfg(feature = "page")]
    gathered: Option<Arc<Gathered>>,
    queue: Arc<Queue<Batch>>,
    runs: Runs,
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing")
            .field("sampler", &self.sampler)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl SpanWriter {
    /// `gathered` takes all spans, sampled or not.
    pub(super) fn new(
        settings: &Settings,
        queue: Arc<Queue<Batch>>,
        at_start: Option<AtStart>,
        #[cfg(feature = "page")] gathered: Option<Arc<Gathered>>,
    ) -> Self {
        Self(Arc::new(Writing {
            ids: ContinuingIdGenerator::new(settings.trace_id_generator.into()),
            sampler: settings.sampler.clone(),
            at_start,
            limits: settings.span_limits,
            header: Arc::new(Header::scope(&scope(), None)),
            scope: scope(),
            #[cfg(feature = "page")]
            gathered,
            queue,
            runs: Runs::default(),
        }))
    }
}

impl Writing {
    /// The context of a new span, and whether the span is recorded. The context is empty where nothing is.
    fn begin(&self, below: Below<'_>, has_random_id: bool) -> (SpanContext, bool) {
        if below.around.is_telemetry_suppressed() {
            return (SpanContext::empty_context(), false);
        }
        let span_id = self.ids.new_span_id();
        let outer = below.outer;
        let (trace_id, flags, state) = match outer.is_valid() {
            true => (
                outer.trace_id(),
                outer.trace_flags(),
                outer.trace_state().clone(),
            ),
            false => (
                self.ids.new_trace_id(),
                TraceFlags::default(),
                TraceState::NONE,
            ),
        };
        let (decision, state) = match &self.at_start {
            _ if is_exporting() => (SamplingDecision::Drop, state),
            Some(at_start) => at_start.decide(Some(outer), || below.is_recording(), trace_id),
            None => {
                let decision = match self.samples(below, trace_id) {
                    true => SamplingDecision::RecordAndSample,
                    false => SamplingDecision::Drop,
                };
                // Below a span of this process, the threshold is that of its root.
                let is_followed = self.sampler.follows_callers() && !is_forced();
                match is_followed || !outer.is_remote() {
                    true => (decision, state),
                    false => (decision, without_threshold(state)),
                }
            }
        };
        let is_sampled = decision == SamplingDecision::RecordAndSample;
        let mut flags = match is_sampled {
            true => flags.with_sampled(true),
            // The SDK clears all flags; W3C Trace Context level 2 keeps this one.
            false => flags & RANDOM,
        };
        if has_random_id {
            flags = flags | RANDOM;
        }
        let context = SpanContext::new(trace_id, span_id, flags, false, state);
        let is_recorded = decision != SamplingDecision::Drop || self.is_gathered();
        (context, is_recorded)
    }

    /// The decision of the SDK's sampler of the same name. None of them looks at anything else.
    fn samples(&self, below: Below<'_>, trace_id: TraceId) -> bool {
        if is_forced() {
            return true;
        }
        let by_ratio = |ratio| {
            let sampler = SdkSampler::TraceIdRatioBased(ratio);
            let result = sampler.should_sample(None, trace_id, "", &SpanKind::Internal, &[], &[]);
            result.decision == SamplingDecision::RecordAndSample
        };
        match self.sampler {
            Sampler::AlwaysOn => true,
            Sampler::AlwaysOff => false,
            Sampler::TraceIdRatio(ratio) => by_ratio(ratio),
            _ if below.is_active() => below.outer.is_sampled(),
            Sampler::ParentBasedAlwaysOn => true,
            Sampler::ParentBasedAlwaysOff => false,
            Sampler::ParentBasedTraceIdRatio(ratio) => by_ratio(ratio),
            // Its rules look at attributes, so that the spans of layers are the SDK's.
            Sampler::Xray(_) => false,
        }
    }

    /// Whether what gathers spans takes all of them.
    fn is_gathered(&self) -> bool {
        #[cfg(feature = "page")]
        return self.gathered.is_some() && !is_exporting();
        #[cfg(not(feature = "page"))]
        false
    }

    fn keeper(&self) -> Option<&Keeper> {
        self.at_start.as_ref()?.keeper.as_deref()
    }

    /// Hands a span on that has ended: into the queue if it is sampled, unless its trace is decided at its end.
    /// A leaf was in no context, so that nothing has begun below it.
    fn write(&self, span: &Recorded<'_>, is_cancelled: bool, is_leaf: bool) {
        if is_exporting() {
            return;
        }
        encode::span(span, self.limits.attribute_value_length, |entry| {
            let keeper = self.keeper();
            if keeper.is_none() && span.context.is_sampled() {
                let add = |batch: &mut Batch| batch.push_encoded(&self.header, entry, 1);
                self.queue.push(1, entry.len(), add);
            }
            if keeper.is_none() && !self.is_gathered() {
                return;
            }
            let mut ended = Ended::new(span, is_cancelled, &self.scope, entry);
            ended.is_leaf = is_leaf;
            if let Some(keeper) = keeper {
                keeper.ended(&mut ended);
            }
            #[cfg(feature = "page")]
            if let Some(gathered) = &self.gathered {
                gathered.ended(&ended);
            }
        });
    }
}

/// The span that a new one begins below, and what is around it.
#[derive(Clone, Copy)]
struct Below<'a> {
    around: &'a Context,
    outer: &'a SpanContext,
    /// The span is the caller's, and not in the context around it.
    is_apart: bool,
}

impl<'a> Below<'a> {
    fn context(around: &'a Context, active: &'a SpanRef<'a>) -> Self {
        Self {
            around,
            outer: active.span_context(),
            is_apart: false,
        }
    }

    fn is_active(self) -> bool {
        self.is_apart || self.around.has_active_span()
    }

    fn is_recording(self) -> bool {
        !self.is_apart && self.around.span().is_recording()
    }
}

impl SpanWriter {
    #[inline]
    fn start_below(
        &self,
        span: SpanBuilder,
        below: Below<'_>,
        has_random_id: bool,
        first: Option<First<'_>>,
    ) -> Begun {
        let (context, is_recorded) = self.0.begin(below, has_random_id);
        if !is_recorded {
            return Begun::unrecorded(context, below.around);
        }
        if let Some(keeper) = self.0.keeper() {
            keeper.started(&context, below.outer);
        }
        let data = Data::new(span, below.outer, &self.0.limits);
        let started_at = Some(data.start);
        let span = Span::new(context, &self.0, data, first);
        Begun {
            context: below.around.with_span(span),
            is_recording: true,
            started_at,
            written: Some(&Owner),
        }
    }
}

impl StartSpan for SpanWriter {
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Parent,
        has_random_id: bool,
        first: Option<First<'_>>,
    ) -> Begun {
        let active;
        let below = match parent {
            Parent::Caller {
                around,
                span: outer,
            } => Below {
                around,
                outer,
                is_apart: true,
            },
            Parent::Context(context) => {
                active = context.span();
                Below::context(context, &active)
            }
        };
        self.start_below(span, below, has_random_id, first)
    }

    fn start(&self, span: SpanBuilder, parent: &Context) -> Begun {
        let active = parent.span();
        let below = Below::context(parent, &active);
        self.start_below(span, below, false, None)
    }

    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration) {
        let active = parent.span();
        let below = Below::context(parent, &active);
        let (context, is_recorded) = self.0.begin(below, false);
        if !is_recorded {
            return;
        }
        let limits = &self.0.limits;
        let mut attributes = span.attributes.unwrap_or_default();
        let mut events = span.events.unwrap_or_default();
        let mut links = span.links.unwrap_or_default();
        let start = span.start_time.unwrap_or_else(SystemTime::now);
        let span = Recorded {
            context: &context,
            parent: below.outer.span_id(),
            parent_is_remote: below.outer.is_valid() && below.outer.is_remote(),
            name: &span.name,
            kind: &span.span_kind.unwrap_or(SpanKind::Internal),
            start,
            end: start + elapsed,
            written: &[],
            dropped_attributes: cut(&mut attributes, limits.attributes),
            attributes: &attributes,
            dropped_events: cut_events(&mut events, limits),
            events: &events,
            dropped_links: cut_links(&mut links, limits),
            links: &links,
            status: &status,
        };
        if let Some(keeper) = self.0.keeper().filter(|_| span.is_local_root()) {
            keeper.started(&context, below.outer);
        }
        let is_cancelled = attributes.iter().any(says_cancelled);
        self.0.write(&span, is_cancelled, true);
    }
}
