//! The service's log, exported: the way from `tracing` events into the queue.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{ExporterBuildError, LogExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord};

use super::encode::{Encoded, Outbox};
use super::item::Item;
use super::queue::{Queue, deadline};
use super::report::SignalReport;
use super::settings::OtlpExporter;

/// One log record, and who wrote it.
#[derive(Debug)]
pub(super) struct LogItem(SdkLogRecord, InstrumentationScope);

impl LogItem {
    /// As the SDK's batches have it.
    pub(super) const fn parts(&self) -> (&SdkLogRecord, &InstrumentationScope) {
        (&self.0, &self.1)
    }
}

/// Makes the requests for batches of log records.
#[derive(Debug)]
pub(super) struct LogEncoder {
    exporter: LogExporter,
    outbox: Outbox,
}

impl LogEncoder {
    pub(super) fn new(
        settings: &OtlpExporter,
        resource: &Resource,
    ) -> Result<Self, ExporterBuildError> {
        let outbox = Outbox::default();
        let mut exporter = outbox
            .connect(LogExporter::builder().with_http(), settings)
            .build()?;
        exporter.set_resource(resource);
        Ok(Self { exporter, outbox })
    }
}

impl Item for LogItem {
    type Encoder = LogEncoder;

    async fn encode(encoder: &LogEncoder, batch: Vec<Self>) -> Encoded {
        let records: Vec<_> = batch.iter().map(Self::parts).collect();
        // the outbox takes everything
        let _ = encoder.exporter.export(LogBatch::new(&records)).await;
        encoder.outbox.take()
    }
}

/// Puts log records into the queue, and never waits.
#[derive(Debug)]
pub(super) struct QueueLogProcessor {
    queue: Arc<Queue<LogItem>>,
    report: Arc<SignalReport>,
}

impl QueueLogProcessor {
    pub(super) const fn new(queue: Arc<Queue<LogItem>>, report: Arc<SignalReport>) -> Self {
        Self { queue, report }
    }

    fn flush(&self, timeout: Duration) -> OTelSdkResult {
        match self.queue.wait(self.queue.flush(), deadline(timeout)) {
            0 => Ok(()),
            _ => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

impl LogProcessor for QueueLogProcessor {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if !self.queue.push(LogItem(record.clone(), scope.clone())) {
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
