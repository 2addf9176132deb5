//! The way of spans from the SDK into the queue.

use std::{cell::Cell, sync::Arc, time::Duration};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};

#[cfg(feature = "_otlp")]
use super::deliver::Encode;
use super::queue::{AnyQueue, Item, Queue};
#[cfg(feature = "_otlp")]
use crate::telemetry::otlp::{Encoded, SpanEncoder};

impl Item for SpanData {}

#[cfg(feature = "_otlp")]
impl Encode<SpanData> for SpanEncoder {
    async fn encode(&self, batch: Vec<SpanData>) -> Encoded {
        Self::encode(self, batch).await
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
pub(crate) struct QueueSpanProcessor(pub(crate) Arc<Queue<SpanData>>);

impl SpanProcessor for QueueSpanProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        if OTHERS_ONLY.get() {
            return Ok(());
        }
        self.0.flush_within(self.0.limits().export_timeout)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.close();
        if OTHERS_ONLY.get() {
            return Ok(());
        }
        self.0.flush_within(timeout)
    }
}
