//! The way of the service's log from the SDK into the queue.

use std::{sync::Arc, time::Duration};

use opentelemetry::InstrumentationScope;
#[cfg(feature = "_otlp")]
use opentelemetry_sdk::logs::LogBatch;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogProcessor, SdkLogRecord},
};

#[cfg(feature = "_otlp")]
use super::deliver::Encode;
use super::queue::{AnyQueue, Item, Queue};
#[cfg(feature = "_otlp")]
use crate::telemetry::otlp::{Encoded, LogEncoder};

/// One log record, and who wrote it.
#[derive(Debug)]
pub(crate) struct LogItem(SdkLogRecord, InstrumentationScope);

impl LogItem {
    /// The pair that the SDK's batches consist of.
    pub(super) const fn parts(&self) -> (&SdkLogRecord, &InstrumentationScope) {
        (&self.0, &self.1)
    }
}

impl Item for LogItem {}

#[cfg(feature = "_otlp")]
impl Encode<LogItem> for LogEncoder {
    async fn encode(&self, batch: Vec<LogItem>) -> Encoded {
        let records: Vec<_> = batch.iter().map(LogItem::parts).collect();
        Self::encode(self, LogBatch::new(&records)).await
    }
}

/// Puts log records into the queue, and never waits.
#[derive(Debug)]
pub(crate) struct QueueLogProcessor(pub(crate) Arc<Queue<LogItem>>);

impl LogProcessor for QueueLogProcessor {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.0.push(LogItem(record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.flush_within(self.0.limits().export_timeout)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.close();
        self.0.flush_within(timeout)
    }
}
