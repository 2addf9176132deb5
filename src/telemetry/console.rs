use std::sync::Arc;

use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::queue::Queue;
use super::report::SignalReport;
use crate::console::ConsoleExporter;

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
        match terminal.0.export(batch).await {
            Ok(()) => report.exported(spans, 0, ""),
            Err(error) => report.lost(spans, &error.to_string()),
        }
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
