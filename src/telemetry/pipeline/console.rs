//! Printing in place of exporting.

use std::{
    future::{Future, poll_fn},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

#[cfg(feature = "logs")]
use opentelemetry::InstrumentationScope;
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{SpanData, SpanExporter as _},
};

use super::{
    points::count_points,
    queue::{Gather, PANICKED, Queue, Taken},
    report::{PANIC, SignalReport},
};
#[cfg(feature = "logs")]
use crate::console::ConsoleLogExporter;
use crate::{
    console::{ConsoleExporter, ConsoleMetricExporter},
    semconv::OTHER,
};

/// Prints the spans that come into `queue`, for ever; runs on the I/O thread.
pub(crate) async fn print_spans(queue: Arc<Queue<Vec<SpanData>>>, exporter: ConsoleExporter) {
    let terminal = Terminal(exporter);
    loop {
        let mut taken = queue.next().await;
        let items = taken.content.items();
        let batch = mem::take(&mut taken.content);
        settle(&taken, items, Printed::by(terminal.0.export(batch)).await);
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
pub(crate) async fn print_logs(
    queue: Arc<Queue<Vec<(SdkLogRecord, InstrumentationScope)>>>,
    exporter: ConsoleLogExporter,
) {
    loop {
        let taken = queue.next().await;
        let records = taken.content.iter();
        let records: Vec<_> = records.map(|(record, scope)| (record, scope)).collect();
        let printed = Printed::by(exporter.export(LogBatch::new(&records))).await;
        settle(&taken, taken.content.items(), printed);
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
        let printed = Printed::by(self.exporter.export(metrics)).await;
        let items = count_points(metrics);
        printed.count(&self.report, items);
        printed.say(&self.report, items);
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

fn settle<B: Gather>(taken: &Taken<B>, items: u64, printed: Printed) {
    if taken.count(items, |report| printed.count(report, items)) {
        printed.say(taken.report(), items);
    }
}

/// What became of a batch that was to be printed.
enum Printed {
    Whole,
    Failed(OTelSdkError),
    Panicked,
}

impl Printed {
    /// A writer that panics loses this batch, and prints the next one.
    async fn by(export: impl Future<Output = OTelSdkResult>) -> Self {
        let mut export = pin!(export);
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| export.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(Ok(()))) => Poll::Ready(Self::Whole),
                Ok(Poll::Ready(Err(error))) => Poll::Ready(Self::Failed(error)),
                Err(_) => Poll::Ready(Self::Panicked),
            },
        )
        .await
    }

    fn count(&self, report: &SignalReport, items: u64) {
        match self {
            Self::Whole => report.count_exported(items, 0),
            Self::Failed(_) => report.count_lost(items, OTHER.into()),
            Self::Panicked => report.count_lost(items, PANIC.into()),
        }
    }

    fn say(&self, report: &SignalReport, items: u64) {
        match self {
            Self::Whole => report.exported(0, ""),
            Self::Failed(error) => report.lost(items, &error.to_string()),
            Self::Panicked => report.lost(items, PANICKED),
        }
    }
}
