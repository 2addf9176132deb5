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

use std::{fmt, sync::Arc, time::Duration};

use opentelemetry::{
    Context, InstrumentationScope,
    trace::{
        SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState,
    },
};
use opentelemetry_sdk::trace::{
    IdGenerator, Sampler as SdkSampler, SamplingDecision, ShouldSample,
};

use self::{
    data::{Data, Origin},
    runs::Runs,
    span::{Open, Span},
};
#[cfg(feature = "page")]
use super::pipeline::Gathered;
use super::{
    id_generator::{AnyIdGenerator, ContinuingIdGenerator},
    otlp::{
        Batch,
        encode::{self, Header, Recorded},
    },
    pipeline::{AtStart, Ended, Keeper, Queue, is_exporting},
    settings::{Sampler, Settings, SpanLimits},
};
use crate::{
    instrument::{Begun, First, StartSpan, scope},
    propagation::{RANDOM, is_forced, without_threshold},
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
    fn begin(&self, parent: &Context, has_random_id: bool) -> (SpanContext, bool) {
        if parent.is_telemetry_suppressed() {
            return (SpanContext::empty_context(), false);
        }
        let span_id = self.ids.new_span_id();
        let outer = parent.span();
        let outer = outer.span_context();
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
            Some(at_start) => at_start.decide(Some(parent), trace_id),
            None => {
                let decision = match self.samples(parent, trace_id) {
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
    fn samples(&self, parent: &Context, trace_id: TraceId) -> bool {
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
            _ if parent.has_active_span() => parent.span().span_context().is_sampled(),
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
    fn write(&self, span: &Recorded<'_>, is_cancelled: bool) {
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

impl StartSpan for SpanWriter {
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Context,
        has_random_id: bool,
        first: Option<First<'_>>,
    ) -> Begun {
        let (context, is_recorded) = self.0.begin(parent, has_random_id);
        if !is_recorded {
            return Begun::unrecorded(context, parent);
        }
        if let Some(keeper) = self.0.keeper() {
            keeper.started(&context, parent.span().span_context());
        }
        let open = Arc::new(Open::new(&self.0, parent, span, first));
        Begun {
            context: parent.with_span(Span::new(context, Arc::clone(&open))),
            is_recording: true,
            written: Some(open),
        }
    }

    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration) {
        let (context, is_recorded) = self.0.begin(parent, false);
        if is_recorded {
            let origin = Origin::of(&span, parent);
            if let Some(keeper) = self.0.keeper().filter(|_| origin.is_local_root()) {
                keeper.started(&context, parent.span().span_context());
            }
            let mut data = Data::new(span, &self.0.limits);
            data.set_status(status);
            let end = origin.start + elapsed;
            self.0
                .write(&data.recorded(&context, &origin, end), data.is_cancelled);
            data.recycle();
        }
    }
}
