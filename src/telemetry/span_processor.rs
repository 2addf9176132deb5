use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::item::Item;
use super::queue::{Queue, deadline};
use super::report::SignalReport;

/// Puts ended spans into the queue, and never waits.
#[derive(Debug)]
pub(super) struct QueueSpanProcessor {
    queue: Arc<Queue<SpanData>>,
    report: Arc<SignalReport>,
}

impl QueueSpanProcessor {
    pub(super) const fn new(queue: Arc<Queue<SpanData>>, report: Arc<SignalReport>) -> Self {
        Self { queue, report }
    }

    fn flush(&self, timeout: Duration) -> OTelSdkResult {
        match self.queue.wait(self.queue.flush(), deadline(timeout)) {
            0 => Ok(()),
            _ => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

impl SpanProcessor for QueueSpanProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && !self.queue.push(span) {
            self.report.dropped(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.flush(self.queue.limits().export_timeout)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.close();
        self.flush(timeout)
    }
}

impl Item for SpanData {
    #[cfg(feature = "_otlp")]
    type Encoder = super::encode::SpanEncoder;

    #[cfg(feature = "_otlp")]
    async fn encode(encoder: &Self::Encoder, batch: Vec<Self>) -> super::encode::Encoded {
        encoder.encode(batch).await
    }
}
