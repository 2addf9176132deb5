//! What telemetry says about itself: counters, events, and log lines made of those.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::settings::Signal;

/// How long nothing more is said about a kind of event after it was reported.
const QUIET: Duration = Duration::from_secs(60);

/// Something worth a line in the log; its `Display` is that line.
///
/// Failures, losses and drops are reported at most once a minute and signal, with the count of what
/// happened since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TelemetryEvent {
    /// Telemetry has started; `summary` is what was resolved from the settings.
    Started {
        /// One line: endpoints, protocols, TLS, sampler, ids.
        summary: String,
    },
    /// The collector took something of this signal for the first time.
    FirstExport {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
    },
    /// An attempt failed; it is retried unless a [`Lost`](Self::Lost) follows.
    ExportFailed {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
        /// Why, in one line.
        error: String,
    },
    /// The collector takes data again.
    Recovered {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
        /// Since the first failed attempt.
        after: Duration,
    },
    /// The collector refused data for good, or could not be reached for too long.
    Lost {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
        /// How many.
        count: u64,
        /// Why, in one line.
        error: String,
    },
    /// The queue was full.
    Dropped {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// The collector took a request, but had something to say about it (OTLP's partial success).
    Rejected {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
        /// How many items it did not take; 0 for a mere warning.
        count: u64,
        /// What it said.
        message: String,
    },
}

impl fmt::Display for TelemetryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { summary } => write!(f, "telemetry started: {summary}"),
            Self::FirstExport { what } => write!(f, "the first {what} were exported"),
            Self::ExportFailed { what, error } => write!(f, "exporting {what} failed: {error}"),
            Self::Recovered { what, after } => {
                write!(
                    f,
                    "exporting {what} works again after {:.1} s",
                    after.as_secs_f64()
                )
            }
            Self::Lost { what, count, error } => write!(f, "{count} {what} were lost: {error}"),
            Self::Dropped { what, count } => {
                write!(f, "{count} {what} were dropped because the queue is full")
            }
            Self::Rejected {
                what,
                count,
                message,
            } => {
                write!(f, "the collector rejected {count} {what}: {message}")
            }
        }
    }
}

/// What became of one signal's data since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalStats {
    /// Spans, data points or log records the collector took.
    pub exported: u64,
    /// Those it refused, or that were given up after retries.
    pub failed: u64,
    /// Those that found the queue full.
    pub dropped: u64,
}

/// The callback for events, beside the log.
#[derive(Clone, Default)]
pub(super) struct Sink(pub(super) Option<Arc<Callback>>);

type Callback = dyn Fn(&TelemetryEvent) + Send + Sync;

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.0.is_some()).finish()
    }
}

impl Sink {
    pub(super) fn emit(&self, event: &TelemetryEvent) {
        match event {
            TelemetryEvent::Started { .. }
            | TelemetryEvent::FirstExport { .. }
            | TelemetryEvent::Recovered { .. } => {
                tracing::info!(target: TARGET, "{event}");
            }
            _ => tracing::warn!(target: TARGET, "{event}"),
        }
        if let Some(callback) = &self.0 {
            // a panic in it must not end the export of telemetry
            let _ = catch_unwind(AssertUnwindSafe(|| callback(event)));
        }
    }
}

const TARGET: &str = "tower_image_trace::telemetry";

/// The counters of one signal, and what has been said about it.
#[derive(Debug)]
pub(super) struct SignalReport {
    signal: Signal,
    sink: Sink,
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    exported_before: bool,
    failing_since: Option<Instant>,
    failure: Option<Instant>,
    lost: Unsaid,
    dropped: Unsaid,
    rejected: Unsaid,
    /// The last error, for what is said about losses later.
    error: String,
}

/// A count that is reported now and then.
#[derive(Debug, Default)]
struct Unsaid {
    total: u64,
    said: u64,
    when: Option<Instant>,
}

impl Unsaid {
    /// The count since it was last reported, when it is time to report it.
    fn due(&mut self, total: u64, now: bool) -> Option<u64> {
        self.total = total;
        let count = self.total - self.said;
        if count == 0 || !(now || is_due(&mut self.when)) {
            return None;
        }
        self.said = self.total;
        Some(count)
    }
}

fn is_due(last: &mut Option<Instant>) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= QUIET);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl SignalReport {
    pub(super) fn new(signal: Signal, sink: Sink) -> Self {
        Self {
            signal,
            sink,
            exported: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    pub(super) fn stats(&self) -> SignalStats {
        SignalStats {
            exported: self.exported.load(Relaxed),
            failed: self.failed.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
        }
    }

    /// Counts what found the queue full; called on request paths, so it says nothing itself.
    pub(super) fn dropped(&self, items: u64) {
        self.dropped.fetch_add(items, Relaxed);
    }

    pub(super) fn exported(&self, items: u64, rejected: u64, message: &str) {
        let rejected = rejected.min(items);
        self.exported.fetch_add(items - rejected, Relaxed);
        self.failed.fetch_add(rejected, Relaxed);
        let what = self.signal.items();
        let mut said = self.said();
        let mut events = Vec::new();
        if !std::mem::replace(&mut said.exported_before, true) {
            events.push(TelemetryEvent::FirstExport { what });
        }
        if let Some(since) = said.failing_since.take() {
            events.push(TelemetryEvent::Recovered {
                what,
                after: since.elapsed(),
            });
        }
        let total = said.rejected.total + rejected;
        let warning = !message.is_empty() && is_due(&mut said.rejected.when);
        let count = said.rejected.due(total, warning);
        if count.is_some() || warning {
            let (count, message) = (count.unwrap_or(0), message.to_owned());
            events.push(TelemetryEvent::Rejected {
                what,
                count,
                message,
            });
        }
        self.say(said, events, false);
    }

    pub(super) fn attempt_failed(&self, error: &str) {
        let mut said = self.said();
        said.failing_since.get_or_insert_with(Instant::now);
        error.clone_into(&mut said.error);
        let mut events = Vec::new();
        if is_due(&mut said.failure) {
            let error = error.to_owned();
            events.push(TelemetryEvent::ExportFailed {
                what: self.signal.items(),
                error,
            });
        }
        self.say(said, events, false);
    }

    pub(super) fn lost(&self, items: u64, error: &str) {
        self.failed.fetch_add(items, Relaxed);
        let mut said = self.said();
        said.failing_since.get_or_insert_with(Instant::now);
        error.clone_into(&mut said.error);
        said.lost.total += items;
        self.say(said, Vec::new(), false);
    }

    /// Says what was not said because of the time since the last report.
    pub(super) fn finish(&self) {
        let said = self.said();
        self.say(said, Vec::new(), true);
    }

    fn say(&self, mut said: MutexGuard<'_, Said>, mut events: Vec<TelemetryEvent>, now: bool) {
        let what = self.signal.items();
        let lost = said.lost.total;
        if let Some(count) = said.lost.due(lost, now) {
            events.push(TelemetryEvent::Lost {
                what,
                count,
                error: said.error.clone(),
            });
        }
        if let Some(count) = said.dropped.due(self.dropped.load(Relaxed), now) {
            events.push(TelemetryEvent::Dropped { what, count });
        }
        // a callback may ask for the counters
        drop(said);
        for event in &events {
            self.sink.emit(event);
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
