//! What telemetry says about itself, and counts.

use std::{
    fmt,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::error::SettingWarning;

/// Something worth a line in the log; its `Display` is that line.
///
/// Failures, losses and drops are reported at most once a minute and signal, with the count since the
/// last report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TelemetryEvent {
    /// Telemetry has started; `summary` is what was resolved from the settings.
    Started {
        /// One line: endpoints, protocols, TLS, sampler, ids.
        summary: String,
    },
    /// Nothing is exported, because nothing asks for it.
    Off,
    /// An `OTEL_*` variable holds a mistake. Reported at the start, before
    /// [`Started`](Self::Started), and also when telemetry is off.
    InvalidSetting {
        /// The variable, what is accepted, and what happens in spite of the mistake.
        warning: SettingWarning,
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
    /// Spans that wait for the end of their request took more memory than they may
    /// ([`Keep::max_bytes`](super::Keep::max_bytes)). From now on the dice alone decide about the traces that have
    /// waited longest. Reported once.
    #[cfg(feature = "_otlp")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
    KeepMemory {
        /// The limit.
        max_bytes: usize,
    },
    /// A metric has reached the limit of its series ([`Settings::series_limit`]). All later series are
    /// counted as one, with the attribute `otel.metric.overflow`. Reported once for each metric.
    ///
    /// [`Settings::series_limit`]: super::Settings::series_limit
    SeriesLimit {
        /// The name of the metric.
        metric: String,
        /// The limit.
        limit: usize,
    },
    /// A metric is left out of the page for Prometheus, because another one with a different type, or one of the
    /// same scope, has its name there. Reported once for each metric.
    NameTaken {
        /// The name of the metric.
        metric: String,
        /// What it would be called.
        name: String,
    },
    /// The service that has X-Ray's sampling rules cannot be asked, or answers with something else. Reported
    /// once, until [`SamplingRulesAvailable`](Self::SamplingRulesAvailable).
    ///
    /// The rules that are known hold for an hour. While none are known, one trace a second is recorded and
    /// 5 % of the others.
    SamplingRulesUnavailable {
        /// What was asked, and what went wrong, in one line.
        error: String,
    },
    /// X-Ray's sampling rules are known: for the first time, or after
    /// [`SamplingRulesUnavailable`](Self::SamplingRulesUnavailable).
    SamplingRulesAvailable {
        /// How many rules may apply to this service.
        count: usize,
    },
    /// The collector took a request, but not all of it, or with a warning (OTLP's partial success).
    Rejected {
        /// `spans`, `data points` or `log records`.
        what: &'static str,
        /// How many items it did not take; 0 for a warning.
        count: u64,
        /// What it said.
        message: String,
    },
}

impl fmt::Display for TelemetryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { summary } => write!(f, "telemetry started: {summary}"),
            Self::Off => f.write_str(
                "telemetry is off: OTEL_EXPORTER_OTLP_ENDPOINT names a collector, \
                 OTEL_TRACES_EXPORTER=console prints traces to the terminal",
            ),
            Self::InvalidSetting { warning } => warning.fmt(f),
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
            #[cfg(feature = "_otlp")]
            Self::KeepMemory { max_bytes } => write!(
                f,
                "spans that wait for the end of their request take more than {max_bytes} bytes: the ratio alone \
                 decides about the oldest; KEEP_MAX_BYTES or Keep::max_bytes allows for more"
            ),
            Self::SeriesLimit { metric, limit } => write!(
                f,
                "{metric} has reached the limit of {limit} series: later ones are counted as one, with \
                 otel.metric.overflow"
            ),
            Self::NameTaken { metric, name } => write!(
                f,
                "{metric} is left out of the page for Prometheus: another metric is called {name} there"
            ),
            Self::SamplingRulesUnavailable { error } => write!(
                f,
                "X-Ray's sampling rules are not available: {error}; those that are known hold for an hour, \
                 and without any one trace a second is recorded and 5 % of the others"
            ),
            Self::SamplingRulesAvailable { count } => {
                write!(f, "X-Ray's sampling rules are known: {count} may apply")
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

/// What became of one signal's items since the start; each that is not underway is in one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalStats {
    /// Spans, data points or log records that the collector took.
    pub exported: u64,
    /// Those that it refused, or that were given up after retries.
    pub failed: u64,
    /// Those that came when the queue was full.
    pub dropped: u64,
    /// Spans whose trace had to be decided before its end (`Keep`), because the memory or the
    /// time was out, and was not kept.
    pub undecided: u64,
    /// Those that came after the shutdown.
    pub after_shutdown: u64,
}

/// The callback for events, beside the log. Without a callback and without a subscriber of the log they
/// go to standard error.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    callback: Option<Arc<Callback>>,
    /// What was said at the start, before there was a subscriber of the log.
    unheard: Arc<Mutex<Vec<TelemetryEvent>>>,
}

type Callback = dyn Fn(&TelemetryEvent) + Send + Sync;

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_callback = self.callback.is_some();
        f.debug_tuple("Sink").field(&has_callback).finish()
    }
}

impl Sink {
    pub(super) fn new(callback: impl Fn(&TelemetryEvent) + Send + Sync + 'static) -> Self {
        Self {
            callback: Some(Arc::new(callback)),
            unheard: Arc::default(),
        }
    }

    pub(crate) fn emit(&self, event: &TelemetryEvent) {
        self.repeat_unheard();
        let is_heard = tracing::dispatcher::has_been_set();
        match event {
            // A `Telemetry` comes before the subscriber that has its layers.
            TelemetryEvent::Started { .. }
            | TelemetryEvent::Off
            | TelemetryEvent::InvalidSetting { .. }
                if !is_heard =>
            {
                self.unheard().push(event.clone());
            }
            _ => log(event),
        }
        match &self.callback {
            // The service's code, and a panic in it must not end the export of telemetry.
            Some(callback) => {
                let _ = catch_unwind(AssertUnwindSafe(|| callback(event)));
            }
            // Standard error may be closed.
            None if !is_heard => {
                let _ = writeln!(io::stderr(), "tower_image_trace: {event}");
            }
            None => {}
        }
    }

    /// Writes to the log what was said before it had a subscriber, as soon as it has one.
    pub(super) fn repeat_unheard(&self) {
        if tracing::dispatcher::has_been_set() {
            let unheard = std::mem::take(&mut *self.unheard());
            unheard.iter().for_each(log);
        }
    }

    fn unheard(&self) -> MutexGuard<'_, Vec<TelemetryEvent>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(event: &TelemetryEvent) {
    // A subscriber is the service's code, too.
    let _ = catch_unwind(AssertUnwindSafe(|| match event {
        TelemetryEvent::Started { .. }
        | TelemetryEvent::Off
        | TelemetryEvent::FirstExport { .. }
        | TelemetryEvent::Recovered { .. }
        | TelemetryEvent::SamplingRulesAvailable { .. } => {
            tracing::info!(target: TARGET, "{event}");
        }
        _ => tracing::warn!(target: TARGET, "{event}"),
    }));
}

const TARGET: &str = "tower_image_trace::telemetry";
