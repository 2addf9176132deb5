//! The counters of each signal, and when something is said about them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use opentelemetry::StringValue;

use super::deadline::Running;
use crate::telemetry::{
    event::{SignalStats, Sink, TelemetryEvent},
    signal::Signal,
};

/// The `error.type` of what was not exported in time.
pub(super) const TIMEOUT: &str = "timeout";
/// The `error.type` of what was being exported when the export panicked.
pub(super) const PANIC: &str = "panic";
/// The `error.type` of what the collector refused by a partial success (semconv sdk-metrics).
const REJECTED: &str = "rejected";

/// For how long a kind of event is not reported again.
const QUIET: Duration = Duration::from_secs(60);

/// The reports of all signals.
#[derive(Debug)]
pub(crate) struct Reports {
    sink: Sink,
    traces: Arc<SignalReport>,
    metrics: Arc<SignalReport>,
    logs: Arc<SignalReport>,
}

impl Reports {
    pub(crate) fn new(sink: &Sink) -> Self {
        let report = |signal| Arc::new(SignalReport::new(signal, sink.clone()));
        Self {
            sink: sink.clone(),
            traces: report(Signal::Traces),
            metrics: report(Signal::Metrics),
            logs: report(Signal::Logs),
        }
    }

    pub(crate) const fn of(&self, signal: Signal) -> &Arc<SignalReport> {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
        }
    }

    /// Says what was held back, and waits for it until `deadline`: the callback is the service's code,
    /// which may hang.
    pub(super) fn finish(&self, deadline: Instant) {
        let reports = [&self.traces, &self.metrics, &self.logs];
        let events: Vec<_> = reports
            .iter()
            .flat_map(|report| report.last_events())
            .collect();
        if !events.is_empty() {
            let sink = self.sink.clone();
            let say = move || {
                events.iter().for_each(|event| sink.emit(event));
                true
            };
            Running::start("image-trace-report", say).by(deadline);
        }
    }

    /// How many items of all signals were given up.
    pub(super) fn lost(&self) -> u64 {
        [&self.traces, &self.metrics, &self.logs]
            .iter()
            .map(|report| report.stats().failed)
            .sum()
    }
}

/// The counters of one signal, and what has been said about it.
#[derive(Debug)]
pub(crate) struct SignalReport {
    signal: Signal,
    sink: Sink,
    /// What was handed to the exporter.
    taken: AtomicU64,
    exported: AtomicU64,
    /// What was handed to the exporter and not exported, by `error.type`.
    failures: Mutex<BTreeMap<Cow<'static, str>, u64>>,
    /// What was never handed to the exporter.
    given_up: AtomicU64,
    dropped: AtomicU64,
    undecided: AtomicU64,
    after_shutdown: AtomicU64,
    #[cfg(feature = "_otlp")]
    failed_attempts: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    exported_before: bool,
    failing_since: Option<Instant>,
    #[cfg(feature = "_otlp")]
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
    pub(crate) fn new(signal: Signal, sink: Sink) -> Self {
        Self {
            signal,
            sink,
            taken: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            failures: Mutex::new(BTreeMap::from([(REJECTED.into(), 0)])),
            given_up: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            undecided: AtomicU64::new(0),
            after_shutdown: AtomicU64::new(0),
            #[cfg(feature = "_otlp")]
            failed_attempts: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    pub(crate) fn stats(&self) -> SignalStats {
        SignalStats {
            exported: self.exported.load(Relaxed),
            failed: self.failures().values().sum::<u64>() + self.given_up.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            undecided: self.undecided.load(Relaxed),
            after_shutdown: self.after_shutdown.load(Relaxed),
        }
    }

    /// How exports ended (semconv sdk-metrics: `otel.sdk.exporter.span.exported`). `None` is success,
    /// anything else an `error.type`.
    pub(super) fn export_outcomes(&self) -> Vec<(Option<StringValue>, u64)> {
        let success = (None, self.exported.load(Relaxed));
        let failures = self.failures();
        let failures = failures
            .iter()
            .map(|(kind, count)| (Some(kind.clone().into()), *count));
        std::iter::once(success).chain(failures).collect()
    }

    /// How processing ended (semconv sdk-metrics: `otel.sdk.processor.span.processed`). It ends well
    /// when the exporter gets the items, whatever becomes of the export.
    pub(super) fn processing_outcomes(&self) -> Vec<(Option<StringValue>, u64)> {
        [
            (None, &self.taken),
            (Some("queue_full".into()), &self.dropped),
            (Some("undecided".into()), &self.undecided),
            (Some("already_shutdown".into()), &self.after_shutdown),
            (Some(TIMEOUT.into()), &self.given_up),
        ]
        .map(|(kind, count)| (kind, count.load(Relaxed)))
        .into()
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Cow<'static, str>, u64>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what was handed to the exporter.
    pub(super) fn count_taken(&self, items: u64) {
        self.taken.fetch_add(items, Relaxed);
    }

    /// Counts what came when the queue was full. It is called on request paths, so it says nothing.
    pub(super) fn count_dropped(&self, items: u64) {
        self.dropped.fetch_add(items, Relaxed);
    }

    /// Counts what had to be decided before the end of its trace, and was not kept. It says nothing either.
    #[cfg(feature = "_otlp")]
    pub(super) fn count_undecided(&self, items: u64) {
        self.undecided.fetch_add(items, Relaxed);
    }

    /// Counts what came when the queue was closed.
    pub(super) fn count_after_shutdown(&self, items: u64) {
        self.after_shutdown.fetch_add(items, Relaxed);
    }

    /// Counts what the collector took, without the items that it `rejected`.
    pub(super) fn count_exported(&self, items: u64, rejected: u64) {
        let rejected = rejected.min(items);
        self.exported.fetch_add(items - rejected, Relaxed);
        self.count_lost(rejected, REJECTED.into());
    }

    /// Counts what was handed to the exporter and not exported.
    pub(super) fn count_lost(&self, items: u64, error_type: Cow<'static, str>) {
        if items > 0 {
            *self.failures().entry(error_type).or_default() += items;
        }
    }

    /// Counts what was given up before it was handed to the exporter.
    pub(super) fn count_given_up(&self, items: u64) {
        self.given_up.fetch_add(items, Relaxed);
    }

    /// Says that the collector took a request, and what it said to it.
    pub(super) fn exported(&self, rejected: u64, message: &str) {
        let what = self.items();
        let mut said = self.said();
        let mut events = Vec::new();
        if !mem::replace(&mut said.exported_before, true) {
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
        self.say(said, events);
    }

    #[cfg(feature = "_otlp")]
    pub(super) fn attempt_failed(&self, error: &str) {
        self.failed_attempts.fetch_add(1, Relaxed);
        let mut said = self.said();
        said.failing_since.get_or_insert_with(Instant::now);
        error.clone_into(&mut said.error);
        let mut events = Vec::new();
        if is_due(&mut said.failure) {
            let error = error.to_owned();
            events.push(TelemetryEvent::ExportFailed {
                what: self.items(),
                error,
            });
        }
        self.say(said, events);
    }

    /// How many attempts to send something have failed.
    #[cfg(feature = "page")]
    pub(super) fn failed_attempts(&self) -> u64 {
        #[cfg(feature = "_otlp")]
        return self.failed_attempts.load(Relaxed);
        #[cfg(not(feature = "_otlp"))]
        0
    }

    /// Why the last attempt failed, or why something was lost; empty when there was no such case.
    #[cfg(any(feature = "_otlp", feature = "page"))]
    pub(super) fn last_error(&self) -> String {
        self.said().error.clone()
    }

    /// Says that items were given up.
    pub(super) fn lost(&self, items: u64, error: &str) {
        self.note_lost(items, error);
        self.say(self.said(), Vec::new());
    }

    /// Remembers that items were given up, for what is said next.
    pub(super) fn note_lost(&self, items: u64, error: &str) {
        if items > 0 {
            let mut said = self.said();
            said.failing_since.get_or_insert_with(Instant::now);
            error.clone_into(&mut said.error);
            said.lost.total += items;
        }
    }

    /// What was held back because the last report was less than a minute ago.
    pub(super) fn last_events(&self) -> Vec<TelemetryEvent> {
        let mut events = Vec::new();
        self.add_losses(&mut self.said(), &mut events, true);
        events
    }

    fn say(&self, mut said: MutexGuard<'_, Said>, mut events: Vec<TelemetryEvent>) {
        self.add_losses(&mut said, &mut events, false);
        // A callback may ask for the counters.
        drop(said);
        for event in &events {
            self.sink.emit(event);
        }
    }

    /// Adds what is due, or all there is to say `now`.
    fn add_losses(&self, said: &mut Said, events: &mut Vec<TelemetryEvent>, now: bool) {
        let what = self.items();
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
    }

    /// What the signal's items are called in events.
    const fn items(&self) -> &'static str {
        match self.signal {
            Signal::Traces => "spans",
            Signal::Metrics => "data points",
            Signal::Logs => "log records",
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_said_once_a_minute_and_when_all_is_said() {
        let mut unsaid = Unsaid::default();
        assert_eq!(unsaid.due(0, false), None);
        assert_eq!(unsaid.due(3, false), Some(3));
        assert_eq!(unsaid.due(5, false), None);
        unsaid.when = Instant::now().checked_sub(QUIET);
        assert_eq!(unsaid.due(6, false), Some(3));
        assert_eq!(unsaid.due(7, false), None);
        assert_eq!(unsaid.due(7, true), Some(1));
        assert_eq!(unsaid.due(7, true), None);
    }
}
