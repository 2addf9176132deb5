//! The way of the service's log from the SDK into the queue.

use std::{fmt, sync::Arc, time::Duration};

use opentelemetry::{InstrumentationScope, logs::Severity};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogProcessor, SdkLogRecord},
};

#[cfg(feature = "page")]
use super::{ended::Line, gathered::Gathered};
use super::{
    io_thread::is_exporting,
    queue::{AnyQueue, Gather, Queue},
};
#[cfg(feature = "_otlp")]
use crate::telemetry::otlp::Batch;
#[cfg(any(feature = "_otlp", feature = "page"))]
use crate::telemetry::otlp::encode;

/// What one log record that goes to a collector may hold.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(any(feature = "_otlp", feature = "page")), allow(dead_code))]
pub(crate) struct LogLimits {
    pub(crate) attributes: usize,
    /// Characters a text, bytes a byte array.
    pub(crate) value_length: Option<usize>,
}

impl LogLimits {
    #[cfg(feature = "console")]
    pub(crate) const NONE: Self = Self {
        attributes: usize::MAX,
        value_length: None,
    };
}

/// A batch into which log records go.
pub(crate) trait LogBatch: Gather + fmt::Debug {
    fn push(
        queue: &Queue<Self>,
        record: &SdkLogRecord,
        scope: &InstrumentationScope,
        limits: LogLimits,
    );
}

/// The terminal prints the record itself.
impl LogBatch for Vec<(SdkLogRecord, InstrumentationScope)> {
    fn push(
        queue: &Queue<Self>,
        record: &SdkLogRecord,
        scope: &InstrumentationScope,
        _: LogLimits,
    ) {
        queue.push(1, 0, |batch| batch.push((record.clone(), scope.clone())));
    }
}

#[cfg(feature = "_otlp")]
impl LogBatch for Batch {
    fn push(
        queue: &Queue<Self>,
        record: &SdkLogRecord,
        scope: &InstrumentationScope,
        limits: LogLimits,
    ) {
        let target = record.target().map(AsRef::as_ref);
        let (most, value_limit) = (limits.attributes, limits.value_length);
        encode::log_record(record, most, value_limit, |entry| {
            queue.push(1, entry.len(), |batch| batch.push(scope, target, entry));
        });
    }
}

/// Puts log records into the queue, and never waits.
///
/// What the export itself logs is left out, or each of its records would make the next one.
#[derive(Debug)]
pub(crate) struct QueueLogProcessor<B> {
    queue: Arc<Queue<B>>,
    limits: LogLimits,
}

impl<B> QueueLogProcessor<B> {
    pub(crate) const fn new(queue: Arc<Queue<B>>, limits: LogLimits) -> Self {
        Self { queue, limits }
    }
}

impl<B: LogBatch> LogProcessor for QueueLogProcessor<B> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if !is_exporting() {
            B::push(&self.queue, record, scope, self.limits);
        }
    }

    fn event_enabled(&self, _: Severity, _: &str, _: Option<&str>) -> bool {
        !is_exporting()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush_within(self.queue.limits().export_timeout)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.close();
        self.queue.flush_within(timeout)
    }
}

/// Holds log records with the trace that they belong to.
#[cfg(feature = "page")]
#[derive(Debug)]
pub(crate) struct GatheredLogs {
    pub(crate) gathered: Arc<Gathered>,
    pub(crate) limits: LogLimits,
}

#[cfg(feature = "page")]
impl LogProcessor for GatheredLogs {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        let Some(context) = record.trace_context().filter(|_| !is_exporting()) else {
            return;
        };
        let (trace_id, span_id) = (context.trace_id, context.span_id);
        let target = record.target().map_or(scope.name(), AsRef::as_ref);
        let (most, value_limit) = (self.limits.attributes, self.limits.value_length);
        let line = encode::log_record(record, most, value_limit, |entry| Line {
            span_id,
            target: target.into(),
            entry: entry.into(),
        });
        self.gathered.logged(trace_id, line);
    }

    fn event_enabled(&self, _: Severity, _: &str, _: Option<&str>) -> bool {
        !is_exporting()
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
