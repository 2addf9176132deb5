//! The way of spans from the SDK into the queue.

use std::{cell::Cell, fmt, sync::Arc, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor},
};

use super::{
    io_thread::is_exporting,
    queue::{AnyQueue, Gather, Queue},
};
use crate::propagation::is_forced;
#[cfg(feature = "_otlp")]
use crate::telemetry::otlp::{Batch, encode};

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
pub(crate) trait SpanBatch: Gather + fmt::Debug {
    /// `value_limit`: texts of attributes have so many characters at most.
    fn push(queue: &Queue<Self>, span: SpanData, value_limit: Option<usize>);
}

/// The terminal prints the span itself.
impl SpanBatch for Vec<SpanData> {
    fn push(queue: &Queue<Self>, span: SpanData, _: Option<usize>) {
        queue.push(1, 0, |batch| batch.push(span));
    }
}

/// The span is encoded on the thread that has ended it, and its memory is free where it was taken.
#[cfg(feature = "_otlp")]
impl SpanBatch for Batch {
    fn push(queue: &Queue<Self>, span: SpanData, value_limit: Option<usize>) {
        let scope = &span.instrumentation_scope;
        encode::span(&(&span).into(), value_limit, |entry| {
            queue.push(1, entry.len(), |batch| batch.push(scope, None, entry));
        });
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

/// Puts ended spans into the queue, and never waits.
#[derive(Debug)]
pub(crate) struct QueueSpanProcessor<B> {
    queue: Arc<Queue<B>>,
    value_limit: Option<usize>,
}

impl<B> QueueSpanProcessor<B> {
    pub(crate) const fn new(queue: Arc<Queue<B>>, value_limit: Option<usize>) -> Self {
        Self { queue, value_limit }
    }
}

impl<B: SpanBatch> SpanProcessor for QueueSpanProcessor<B> {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && !is_exporting() {
            B::push(&self.queue, span, self.value_limit);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        if OTHERS_ONLY.get() {
            return Ok(());
        }
        self.queue.flush_within(self.queue.limits().export_timeout)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.close();
        if OTHERS_ONLY.get() {
            return Ok(());
        }
        self.queue.flush_within(timeout)
    }
}

/// Samples as `S` does, but nothing of what the export itself does: each of its spans would be exported,
/// and make the next one.
#[derive(Clone, Debug)]
pub(crate) struct ExceptExports<S>(pub(crate) S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for ExceptExports<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self
            .0
            .should_sample(parent, trace_id, name, kind, attributes, links);
        if is_forced() {
            result.decision = SamplingDecision::RecordAndSample;
        }
        if is_exporting() {
            result.decision = SamplingDecision::Drop;
        }
        result
    }
}
