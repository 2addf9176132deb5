//! Printing in place of exporting.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::item::count_points;
#[cfg(feature = "logs")]
use super::logs::LogItem;
use super::queue::Queue;
use super::report::SignalReport;
#[cfg(feature = "logs")]
use crate::console::ConsoleLogExporter;
use crate::console::{ConsoleExporter, ConsoleMetricExporter};

/// Prints what comes into `queue`, for ever; runs on the I/O thread.
pub(super) async fn print(
    queue: Arc<Queue<SpanData>>,
    exporter: ConsoleExporter,
    report: Arc<SignalReport>,
) {
    let terminal = Terminal(exporter);
    loop {
        let batch = queue.next().await;
        let spans = batch.len() as u64;
        tell(&report, spans, terminal.0.export(batch).await);
        queue.settle(spans);
    }
}

/// Prints what is unfinished when the I/O thread ends, and the task with it.
struct Terminal(ConsoleExporter);

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.shutdown();
    }
}

/// Prints the log records that come into `queue`, for ever; runs on the I/O thread.
#[cfg(feature = "logs")]
pub(super) async fn print_logs(
    queue: Arc<Queue<LogItem>>,
    exporter: ConsoleLogExporter,
    report: Arc<SignalReport>,
) {
    loop {
        let batch = queue.next().await;
        let records: Vec<_> = batch.iter().map(LogItem::parts).collect();
        let printed = exporter.export(LogBatch::new(&records)).await;
        tell(&report, records.len() as u64, printed);
        queue.settle(records.len() as u64);
    }
}

/// Prints metrics, and counts the data points; runs on the thread of the SDK's reader.
#[derive(Debug)]
pub(super) struct MetricTerminal {
    pub(super) exporter: ConsoleMetricExporter,
    pub(super) report: Arc<SignalReport>,
    pub(super) temporality: Temporality,
}

impl PushMetricExporter for MetricTerminal {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let printed = self.exporter.export(metrics).await;
        tell(&self.report, count_points(metrics), printed);
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

fn tell(report: &SignalReport, items: u64, printed: OTelSdkResult) {
    match printed {
        Ok(()) => report.exported(items, 0, ""),
        Err(error) => report.lost(items, &error.to_string()),
    }
}
