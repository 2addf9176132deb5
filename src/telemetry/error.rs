//! What can go wrong at the start and at the end of telemetry.

use std::{error::Error, fmt, io, time::Duration};

use super::shown;

/// Why telemetry did not start, or did not end cleanly.
///
/// Its `Debug` is its `Display`, one line, because that is what a `main` that returns it prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// One or more settings are wrong; all of them are named.
    #[error("{}", join(.0))]
    Settings(Vec<SettingError>),
    /// The thread that exports telemetry could not be started.
    #[error("the telemetry I/O thread could not be started: {0}")]
    IoThread(#[source] io::Error),
    /// The listener for Prometheus, or that of the live page, could not be bound.
    #[error("{setting}={address:?}: cannot listen there: {source}")]
    Listener {
        /// The variable, the builder's method, or the field of [`Settings`](super::Settings).
        setting: String,
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The exporter of a signal could not be built.
    #[error("the OTLP exporter could not be built: {0}")]
    Exporter(#[source] Box<dyn Error + Send + Sync>),
    /// `shutdown` or `force_flush` reached its timeout first.
    #[error("{pending} spans, metrics or log records were still unsent after {timeout:?}")]
    TimedOut {
        /// The time that was allowed.
        timeout: Duration,
        /// How many items were neither delivered nor given up when it was over. A collection of
        /// metrics that had not ended counts as one.
        pending: u64,
    },
    /// Everything was handled in time, but the collector did not take all of it.
    #[error("{lost} spans, metrics or log records could not be delivered")]
    Undelivered {
        /// How many items were given up since `shutdown` or `force_flush` was called. A collection of metrics
        /// that failed counts as one, and so do span processors of the service's own that say that they have
        /// failed.
        lost: u64,
    },
}

impl fmt::Debug for TelemetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One wrong setting.
///
/// Certificates, keys and header values are never part of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The value is not one of those accepted.
    #[error("{setting}={value:?} is not accepted: expected {expected}")]
    Invalid {
        /// The variable, the builder's method, or the field of [`Settings`](super::Settings).
        setting: String,
        /// The value as given, without what may be secret.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// The value of a setting that is not shown cannot be used.
    #[error("{setting}: {problem}")]
    Unusable {
        /// The variable, the builder's method, or the field of [`Settings`](super::Settings).
        setting: String,
        /// What is wrong, and what is accepted.
        problem: String,
    },
    /// The crate was compiled without what the setting asks for.
    #[error("{setting}={value:?} needs the cargo feature {feature:?} of tower-image-trace")]
    Feature {
        /// The variable, the builder's method, or the field of [`Settings`](super::Settings).
        setting: String,
        /// The value as given.
        value: String,
        /// The missing cargo feature.
        feature: &'static str,
    },
}

impl SettingError {
    /// The variable, the builder's method, or the field of [`Settings`](super::Settings).
    #[must_use]
    pub fn setting(&self) -> &str {
        match self {
            Self::Invalid { setting, .. }
            | Self::Unusable { setting, .. }
            | Self::Feature { setting, .. } => setting,
        }
    }

    /// A URL in the value loses its secrets, and a value beyond a line is cut.
    pub(crate) fn invalid(
        setting: impl Into<String>,
        value: &str,
        expected: impl Into<String>,
    ) -> Self {
        let value = shown::value(value);
        Self::Invalid {
            setting: setting.into(),
            value: match value.char_indices().nth(LONGEST_VALUE) {
                Some((end, _)) => format!("{}…", &value[..end]),
                None => value.into_owned(),
            },
            expected: expected.into(),
        }
    }

    pub(crate) fn feature(
        setting: impl Into<String>,
        value: impl Into<String>,
        feature: &'static str,
    ) -> Self {
        Self::Feature {
            setting: setting.into(),
            value: value.into(),
            feature,
        }
    }

    pub(crate) fn unusable(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unusable {
            setting: setting.into(),
            problem: problem.into(),
        }
    }
}

/// A mistake in an `OTEL_*` variable, and what happens in spite of it; its `Display` is one line.
///
/// These variables belong to whoever runs the platform, so a mistake in them never stops a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingWarning {
    /// The variable, its value unless that may be secret, and what is accepted.
    pub error: SettingError,
    /// What happens with the variable.
    pub consequence: Consequence,
}

impl fmt::Display for SettingWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.error, self.consequence)
    }
}

/// What happens with a variable whose value is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consequence {
    /// It counts as unset.
    Ignored,
    /// It counts as `false`, as the specification says for switches.
    CountsAsFalse,
    /// The other items of its list are used.
    OthersUsed,
    /// The signal is not exported.
    NotExported,
    /// There is no listener for Prometheus. [`Telemetry::prometheus`](super::Telemetry::prometheus) serves
    /// the page all the same.
    NotListening,
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignored => "it is ignored",
            Self::CountsAsFalse => "it counts as false",
            Self::OthersUsed => "the others are used",
            Self::NotExported => "the signal is not exported",
            Self::NotListening => "nothing listens for Prometheus",
        })
    }
}

/// How many characters of a value errors show.
const LONGEST_VALUE: usize = 100;

fn join(errors: &[SettingError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // faults G20
    #[test]
    fn what_a_main_prints_is_one_sentence_a_mistake() {
        let setting = "IMGPROXY_OPEN_TELEMETRY_PROTOCOL";
        let error = TelemetryError::Settings(vec![
            SettingError::invalid(setting, "udp", "grpc, http or https"),
            SettingError::feature("OTEL_TRACES_EXPORTER", "console", "console"),
        ]);
        let boxed: Box<dyn Error> = error.into();
        assert_eq!(
            format!("{boxed:?}"),
            "IMGPROXY_OPEN_TELEMETRY_PROTOCOL=\"udp\" is not accepted: expected grpc, http or https; \
             OTEL_TRACES_EXPORTER=\"console\" needs the cargo feature \"console\" of tower-image-trace"
        );
    }
}
