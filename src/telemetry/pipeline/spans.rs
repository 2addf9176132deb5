//! The way of spans from the SDK into the queue.

use std::{cell::Cell, fmt, sync::Arc, time::Duration};

#[cfg(feature = "_otlp")]
use opentelemetry::trace::{Span as _, TraceContextExt};
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor},
};

#[cfg(any(feature = "_otlp", feature = "page"))]
use super::ended::Ended;
#[cfg(feature = "page")]
use super::gathered::Gathered;
#[cfg(feature = "_otlp")]
use super::{at_start::AtStart, keeper::Keeper};
use super::{
    io_thread::is_exporting,
    queue::{AnyQueue, Gather, Queue},
};
#[cfg(any(feature = "_otlp", feature = "page"))]
use crate::attribute::{REQUEST_CANCELLED, STAGE_CANCELLED};
use crate::propagation::{is_forced, without_threshold};
#[cfg(feature = "_otlp")]
use crate::telemetry::otlp::Batch;
#[cfg(any(feature = "_otlp", feature = "page"))]
use crate::telemetry::otlp::encode::{self, Recorded};

#[cfg(feature = "_otlp")]
impl Gather for Batch {
    fn items(&self) -> u64 {
        self.items()
    }

    fn size(&self) -> usize {
        self.size()
    }

    fn close(&mut self) -> Self {
        self.shrink();
        self.like()
    }
}

/// A batch into which spans go.
#[cfg_attr(not(any(feature = "_otlp", feature = "page")), allow(dead_code))]
pub(crate) trait SpanBatch: Gather + fmt::Debug {
    /// Whether the batch is made of entries, or of the spans themselves.
    const TAKES_ENTRIES: bool;

    fn push_entry(_: &Queue<Self>, _: &SpanData, _: &[u8]) {}

    fn push_span(_: &Queue<Self>, _: SpanData) {}
}

/// The terminal prints the span itself.
impl SpanBatch for Vec<SpanData> {
    const TAKES_ENTRIES: bool = false;

    fn push_span(queue: &Queue<Self>, span: SpanData) {
        queue.push(1, 0, |batch| batch.push(span));
    }
}

/// The span is encoded on the thread that has ended it, and its memory is free where it was taken.
#[cfg(feature = "_otlp")]
impl SpanBatch for Batch {
    const TAKES_ENTRIES: bool = true;

    fn push_entry(queue: &Queue<Self>, span: &SpanData, entry: &[u8]) {
        let scope = &span.instrumentation_scope;
        queue.push(1, entry.len(), |batch| batch.push(scope, None, entry));
    }
}

thread_local! {
    /// Whether this thread flushes the other span processors, while the queue is flushed elsewhere.
    static OTHERS_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Does something with all span processors but the queue's own, which then does not wait.
pub(super) fn others_only<T>(work: impl FnOnce() -> T) -> T {
    OTHERS_ONLY.set(true);
    let done = work();
    OTHERS_ONLY.set(false);
    done
}

/// Hands ended spans on, and never waits: into the queue those that are sampled, and all of them to what
/// keeps or gathers them by their traces.
#[derive(Debug)]
#[cfg_attr(not(any(feature = "_otlp", feature = "page")), allow(dead_code))]
pub(crate) struct EndedSpans<B> {
    pub(crate) queue: Option<Arc<Queue<B>>>,
    /// Fills the queue, where traces are kept or not at their end.
    #[cfg(feature = "_otlp")]
    pub(crate) keeper: Option<Arc<Keeper>>,
    /// Whether the terminal shows what is not sampled, too.
    pub(crate) prints_all: bool,
    #[cfg(feature = "page")]
    pub(crate) gathered: Option<Arc<Gathered>>,
    /// Texts of attributes have so many characters at most.
    pub(crate) value_limit: Option<usize>,
}

impl<B: SpanBatch> EndedSpans<B> {
    /// Encodes the span once, for all who take entries.
    #[cfg(any(feature = "_otlp", feature = "page"))]
    fn hand_on_entry(&self, span: &SpanData, queue: Option<&Queue<B>>) {
        let queue = queue.filter(|_| B::TAKES_ENTRIES);
        #[cfg(feature = "page")]
        let is_gathered = self.gathered.is_some();
        #[cfg(not(feature = "page"))]
        let is_gathered = false;
        #[cfg(feature = "_otlp")]
        let is_held = is_gathered || self.keeper.is_some();
        #[cfg(not(feature = "_otlp"))]
        let is_held = is_gathered;
        if queue.is_none() && !is_held {
            return;
        }
        let recorded = Recorded::from(span);
        encode::span(&recorded, self.value_limit, |entry| {
            if let Some(queue) = queue {
                B::push_entry(queue, span, entry);
            }
            if !is_held {
                return;
            }
            let is_cancelled = span.attributes.iter().any(says_cancelled);
            #[cfg_attr(not(feature = "_otlp"), allow(unused_mut))]
            let mut ended = Ended::new(&recorded, is_cancelled, &span.instrumentation_scope, entry);
            #[cfg(feature = "_otlp")]
            if let Some(keeper) = &self.keeper {
                keeper.ended(&mut ended);
            }
            #[cfg(feature = "page")]
            if let Some(gathered) = &self.gathered {
                gathered.ended(&ended);
            }
        });
    }
}

/// Whether this attribute says that a request or a stage was cancelled.
#[cfg(any(feature = "_otlp", feature = "page"))]
pub(crate) fn says_cancelled(attribute: &KeyValue) -> bool {
    [REQUEST_CANCELLED, STAGE_CANCELLED].contains(&attribute.key.as_str())
}

impl<B: SpanBatch> SpanProcessor for EndedSpans<B> {
    #[cfg_attr(not(feature = "_otlp"), allow(unused_variables))]
    fn on_start(&self, span: &mut Span, parent: &Context) {
        #[cfg(feature = "_otlp")]
        if let Some(keeper) = &self.keeper {
            keeper.started(span.span_context(), parent.span().span_context());
        }
    }

    fn on_end(&self, span: SpanData) {
        if is_exporting() {
            return;
        }
        let queue = self.queue.as_deref();
        let queue = queue.filter(|_| self.prints_all || span.span_context.is_sampled());
        #[cfg(feature = "_otlp")]
        let queue = queue.filter(|_| self.keeper.is_none());
        #[cfg(any(feature = "_otlp", feature = "page"))]
        self.hand_on_entry(&span, queue);
        if let Some(queue) = queue {
            B::push_span(queue, span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        match &self.queue {
            Some(queue) if !OTHERS_ONLY.get() => queue.flush_within(queue.limits().export_timeout),
            _ => Ok(()),
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        #[cfg(feature = "_otlp")]
        if let Some(keeper) = &self.keeper {
            keeper.close();
        }
        queue.close();
        match OTHERS_ONLY.get() {
            true => Ok(()),
            false => queue.flush_within(timeout),
        }
    }
}

/// Samples as `S` does, but nothing of what the export itself does: each of its spans would be exported,
/// and make the next one.
#[derive(Clone, Debug)]
pub(crate) struct Sampling<S> {
    pub(crate) sampler: S,
    /// Whether the sampler follows the caller's decision.
    pub(crate) follows_callers: bool,
    /// Decides in place of the sampler, where traces are kept or not at their end.
    #[cfg(feature = "_otlp")]
    pub(crate) at_start: Option<AtStart>,
    /// Whether spans that are not sampled are recorded all the same, for this process alone.
    pub(crate) records_all: bool,
}

impl<S: ShouldSample + Clone + 'static> ShouldSample for Sampling<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = &self.sampler;
        let mut result = sampler.should_sample(parent, trace_id, name, kind, attributes, links);
        // A threshold of the caller's says nothing about another decision.
        if is_forced() || !self.follows_callers {
            result.trace_state = without_threshold(result.trace_state);
        }
        #[cfg(feature = "_otlp")]
        if let Some(at_start) = &self.at_start {
            at_start.change(&mut result, parent, trace_id);
        }
        if is_forced() {
            result.decision = SamplingDecision::RecordAndSample;
        }
        if is_exporting() {
            result.decision = SamplingDecision::Drop;
        } else if self.records_all && result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}
