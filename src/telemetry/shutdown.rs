//! The bounded end of everything that was started.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::oneshot;

use super::error::TelemetryError;
use super::io_thread::IoThread;
use super::item::{Item, UNSENT, count};
#[cfg(feature = "logs")]
use super::logs::LogItem;
#[cfg(feature = "_otlp")]
use super::metric_exporter::MetricsRequest;
use super::queue::{Queue, deadline};
use super::report::SignalReport;

/// The I/O thread does nothing at the end but drop what it has.
const STOP: Duration = Duration::from_millis(150);

/// What runs between the providers and the collector.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// `None` once it was shut down.
    pub(super) thread: Mutex<Option<IoThread>>,
    pub(super) meter_provider: SdkMeterProvider,
    pub(super) spans: Arc<Queue<SpanData>>,
    #[cfg(feature = "_otlp")]
    pub(super) metrics: Arc<Queue<MetricsRequest>>,
    #[cfg(feature = "logs")]
    pub(super) logs: Arc<Queue<LogItem>>,
    pub(super) reports: Reports,
}

/// The reports of all signals.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) traces: Arc<SignalReport>,
    pub(super) metrics: Arc<SignalReport>,
    #[cfg_attr(not(feature = "logs"), allow(dead_code))]
    pub(super) logs: Arc<SignalReport>,
}

impl Reports {
    fn all(&self) -> [&SignalReport; 3] {
        [&self.traces, &self.metrics, &self.logs]
    }

    fn lost(&self) -> u64 {
        self.all().iter().map(|report| report.stats().failed).sum()
    }
}

impl Pipeline {
    /// Sends what there is, and waits for it until `timeout` is over.
    pub(super) fn flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let provider = self.meter_provider.clone();
        self.drain(timeout, move || drop(provider.force_flush()))
    }

    /// Flushes and ends the I/O thread; only the first call does anything.
    pub(super) fn shutdown(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let taken = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = taken else { return Ok(()) };
        let provider = self.meter_provider.clone();
        self.spans.close();
        #[cfg(feature = "logs")]
        self.logs.close();
        let drained = self.drain(timeout, move || drop(provider.shutdown()));
        thread.stop(STOP);
        give_up(&self.spans, &self.reports.traces);
        #[cfg(feature = "_otlp")]
        give_up(&self.metrics, &self.reports.metrics);
        #[cfg(feature = "logs")]
        give_up(&self.logs, &self.reports.logs);
        self.reports.all().iter().for_each(|report| report.finish());
        drained
    }

    fn drain(
        &self,
        timeout: Duration,
        collect_metrics: impl FnOnce() + Send + 'static,
    ) -> Result<(), TelemetryError> {
        let deadline = deadline(timeout);
        let lost_before = self.reports.lost();
        let spans = self.spans.flush();
        // the SDK has no bound of its own here, and asks gauges of the service, which may hang
        let (done, collected) = mpsc::channel::<()>();
        let collecting = std::thread::Builder::new().name("image-trace-flush".to_owned());
        let collecting = collecting.spawn(move || {
            collect_metrics();
            drop(done);
        });
        if collecting.is_ok() {
            let _ = collected.recv_timeout(timeout);
        }
        let mut pending = self.spans.wait(spans, deadline);
        #[cfg(feature = "_otlp")]
        {
            pending += self.metrics.wait(self.metrics.flush(), deadline);
        }
        #[cfg(feature = "logs")]
        {
            pending += self.logs.wait(self.logs.flush(), deadline);
        }
        match self.reports.lost() - lost_before {
            _ if pending > 0 => Err(TelemetryError::TimedOut { timeout, pending }),
            0 => Ok(()),
            lost => Err(TelemetryError::Undelivered { lost }),
        }
    }
}

fn give_up<T: Item>(queue: &Queue<T>, report: &SignalReport) {
    let left = count(&queue.abandon());
    if left > 0 {
        report.lost(left, UNSENT);
    }
}

/// Runs `work` on a thread of its own, so that waiting for it blocks no runtime, of any kind.
pub(super) async fn off_runtime(
    work: impl FnOnce() -> Result<(), TelemetryError> + Send + 'static,
) -> Result<(), TelemetryError> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("image-trace-shutdown".to_owned());
    thread
        .spawn(move || drop(done.send(work())))
        .map_err(TelemetryError::IoThread)?;
    // the sender is only lost without a result when `work` panics
    result.await.unwrap_or(Ok(()))
}
