//! Printing in place of exporting.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{SpanData, SpanExporter as _},
};

#[cfg(feature = "logs")]
use super::logs::LogItem;
use super::{
    points::count_points,
    queue::{Item, Queue, Taken},
    report::SignalReport,
};
#[cfg(feature = "logs")]
use crate::console::ConsoleLogExporter;
use crate::console::{ConsoleExporter, ConsoleMetricExporter};

/// Prints the spans that come into `queue`, for ever; runs on the I/O thread.
pub(crate) async fn print_spans(queue: Arc<Queue<SpanData>>, exporter: ConsoleExporter) {
    let terminal = Terminal(exporter);
    loop {
        let (batch, taken) = queue.next().await;
        settle(&queue, &taken, terminal.0.export(batch).await);
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
pub(crate) async fn print_logs(queue: Arc<Queue<LogItem>>, exporter: ConsoleLogExporter) {
    loop {
        let (batch, taken) = queue.next().await;
        let records: Vec<_> = batch.iter().map(LogItem::parts).collect();
        let printed = exporter.export(LogBatch::new(&records)).await;
        settle(&queue, &taken, printed);
    }
}

/// Prints metrics, and counts the data points; runs on the thread of the SDK's reader.
#[derive(Debug)]
pub(crate) struct MetricTerminal {
    pub(crate) exporter: ConsoleMetricExporter,
    pub(crate) report: Arc<SignalReport>,
    pub(crate) temporality: Temporality,
}

impl PushMetricExporter for MetricTerminal {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let printed = self.exporter.export(metrics).await;
        let items = count_points(metrics);
        count(&self.report, items, &printed);
        say(&self.report, items, printed);
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

fn settle<T: Item>(queue: &Queue<T>, taken: &Taken<'_, T>, printed: OTelSdkResult) {
    if taken.count(|report| count(report, taken.items, &printed)) {
        say(queue.report(), taken.items, printed);
    }
}

fn count(report: &SignalReport, items: u64, printed: &OTelSdkResult) {
    match printed {
        Ok(()) => report.count_exported(items, 0),
        Err(_) => report.count_lost(items),
    }
}

fn say(report: &SignalReport, items: u64, printed: OTelSdkResult) {
    match printed {
        Ok(()) => report.exported(0, ""),
        Err(error) => report.lost(items, &error.to_string()),
    }
}
