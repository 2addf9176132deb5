//! The bounded end of everything that was started.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::SdkMeterProvider,
    trace::SdkTracerProvider,
};

#[cfg(feature = "_otlp")]
use super::keeper::Keeper;
use super::{
    deadline::{Progress, Running, bounded, deadline, until},
    io_thread::IoThread,
    push_reader::PushReader,
    queue::AnyQueue,
    report::Reports,
    spans::others_only,
};
use crate::telemetry::{error::TelemetryError, event::SignalStats, signal::Signal};

/// How long the I/O thread is waited for when the time is over. It only drops what it has.
const STOP: Duration = Duration::from_millis(100);
/// How long the last events are waited for when the time is over.
const LAST_EVENTS: Duration = Duration::from_millis(50);

/// How the export of a signal goes.
#[cfg(feature = "page")]
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) stats: SignalStats,
    pub(crate) queued: u64,
    pub(crate) failed_attempts: u64,
    /// Empty when there was none.
    pub(crate) last_error: String,
}

/// What runs between the providers and the collector.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// `None` after the shutdown.
    thread: Mutex<Option<IoThread>>,
    meter_provider: SdkMeterProvider,
    /// `None` when no metrics are exported.
    push_reader: Option<PushReader>,
    /// The provider to which the service has added span processors.
    changed_provider: Option<SdkTracerProvider>,
    queues: Vec<(Signal, Arc<dyn AnyQueue>)>,
    /// Decides which traces are exported.
    #[cfg(feature = "_otlp")]
    keeper: Option<Arc<Keeper>>,
    reports: Reports,
}

impl Pipeline {
    pub(crate) const fn new(
        thread: IoThread,
        meter_provider: SdkMeterProvider,
        push_reader: Option<PushReader>,
        changed_provider: Option<SdkTracerProvider>,
        queues: Vec<(Signal, Arc<dyn AnyQueue>)>,
        #[cfg(feature = "_otlp")] keeper: Option<Arc<Keeper>>,
        reports: Reports,
    ) -> Self {
        Self {
            thread: Mutex::new(Some(thread)),
            meter_provider,
            push_reader,
            changed_provider,
            queues,
            #[cfg(feature = "_otlp")]
            keeper,
            reports,
        }
    }

    pub(super) const fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The queue of a signal that is exported; metrics are printed without one.
    pub(super) fn queue(&self, signal: Signal) -> Option<&Arc<dyn AnyQueue>> {
        let mut queues = self.queues.iter();
        queues
            .find(|(queued, _)| *queued == signal)
            .map(|(_, queue)| queue)
    }

    /// How the export of a signal goes; `None` when the signal is not exported.
    #[cfg(feature = "page")]
    pub(crate) fn health(&self, signal: Signal) -> Option<Health> {
        let queued = self.queue(signal).map(|queue| queue.pending());
        if queued.is_none() && !(signal == Signal::Metrics && self.push_reader.is_some()) {
            return None;
        }
        let report = self.reports.of(signal);
        Some(Health {
            stats: report.stats(),
            queued: queued.unwrap_or_default(),
            failed_attempts: report.failed_attempts(),
            last_error: report.last_error(),
        })
    }

    pub(crate) fn stats(&self, signal: Signal) -> SignalStats {
        self.reports.of(signal).stats()
    }

    /// Sends what there is, and waits for it until `timeout` is over.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let (provider, reader) = (self.meter_provider.clone(), self.push_reader.clone());
        self.drain(timeout, SdkTracerProvider::force_flush, move || {
            // It may be a reader of the service's own that has failed.
            has_done(&provider.force_flush()) || reader.is_none_or(|it| has_done(&it.collect()))
        })
    }

    /// Flushes and ends the I/O thread; only the first call does anything.
    pub(crate) fn shutdown(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let taken = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = taken else { return Ok(()) };
        let (provider, reader) = (self.meter_provider.clone(), self.push_reader.clone());
        #[cfg(feature = "_otlp")]
        if let Some(keeper) = &self.keeper {
            keeper.close();
        }
        for (signal, queue) in &self.queues {
            // The last collection of metrics is still to come.
            if *signal != Signal::Metrics {
                queue.close();
            }
        }
        let end = deadline(timeout);
        let shutdown =
            move |provider: &SdkTracerProvider| provider.shutdown_with_timeout(bounded(timeout));
        let drained = self.drain(timeout, shutdown, move || {
            // The SDK gives up after 5 s, however long this may take.
            has_done(&provider.shutdown()) || reader.is_none_or(|it| it.has_collected_the_last())
        });
        thread.stop(until(end).max(STOP));
        for (_, queue) in &self.queues {
            queue.abandon();
        }
        self.reports.finish(end.max(Instant::now() + LAST_EVENTS));
        drained
    }

    /// Waits for what is queued already, for what `collect_metrics` puts into a queue, and for the
    /// service's own span processors.
    fn drain(
        &self,
        timeout: Duration,
        end_spans: impl FnOnce(&SdkTracerProvider) -> OTelSdkResult + Send + 'static,
        collect_metrics: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), TelemetryError> {
        let deadline = deadline(timeout);
        let lost_before = self.reports.lost();
        let (metrics, others): (Vec<_>, Vec<_>) = self
            .queues
            .iter()
            .partition(|(signal, _)| *signal == Signal::Metrics);
        let mut targets: Vec<_> = others
            .iter()
            .map(|(_, queue)| (queue, queue.flush()))
            .collect();
        let others = self.changed_provider.clone().map(|provider| {
            let end_spans = move || has_done(&others_only(|| end_spans(&provider)));
            Running::start("image-trace-processors", end_spans)
        });
        // The SDK has no bound of its own here, and reads gauges of the service, which may hang.
        let collected = Running::start("image-trace-flush", collect_metrics).by(deadline);
        targets.extend(metrics.iter().map(|(_, queue)| (queue, queue.flush())));
        let mut pending: u64 = targets
            .into_iter()
            .map(|(queue, target)| queue.wait(target, deadline))
            .sum();
        let mut lost = self.reports.lost() - lost_before;
        // Readers of the service's own are not waited for.
        let collected = self.push_reader.is_some().then_some(collected);
        let others = others.map(|others| others.by(deadline));
        for progress in collected.into_iter().chain(others) {
            pending += u64::from(progress == Progress::Pending);
            lost += u64::from(progress == Progress::Failed);
        }
        match lost {
            _ if pending > 0 => Err(TelemetryError::TimedOut { timeout, pending }),
            0 => Ok(()),
            lost => Err(TelemetryError::Undelivered { lost }),
        }
    }
}

/// Whether the SDK has done what it was asked for, or the service itself had done it.
const fn has_done(result: &OTelSdkResult) -> bool {
    matches!(result, Ok(()) | Err(OTelSdkError::AlreadyShutdown))
}
