//! The service's log, exported: the way from `tracing` events into the queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogProcessor, SdkLogRecord};
use prost::Message;

use super::item::Item;
use super::queue::{Queue, deadline};
use super::report::SignalReport;

/// One log record, and who wrote it.
#[derive(Debug)]
pub(super) struct LogItem(SdkLogRecord, InstrumentationScope);

impl Item for LogItem {
    fn encode(batch: Vec<Self>, resource: &ResourceAttributesWithSchema) -> Bytes {
        let records: Vec<_> = batch
            .iter()
            .map(|LogItem(record, scope)| (record, scope))
            .collect();
        let resource_logs = group_logs_by_resource_and_scope(&LogBatch::new(&records), resource);
        ExportLogsServiceRequest { resource_logs }
            .encode_to_vec()
            .into()
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
