//! What can go wrong at the start and at the end of telemetry.

use std::{error::Error, io, time::Duration};

/// Why telemetry did not start, or did not end cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// One or more settings are wrong; all of them are named.
    #[error("{}", join(.0))]
    Settings(Vec<SettingError>),
    /// The thread that exports telemetry could not be started.
    #[error("the telemetry I/O thread could not be started: {0}")]
    IoThread(#[source] io::Error),
    /// The exporter of a signal could not be built.
    #[error("the OTLP exporter could not be built: {0}")]
    Exporter(#[source] Box<dyn Error + Send + Sync>),
    /// `shutdown` or `force_flush` reached its timeout first.
    #[error("{pending} spans, metrics or log records were still unsent after {timeout:?}")]
    TimedOut {
        /// The time that was allowed.
        timeout: Duration,
        /// How many items were neither delivered nor given up when it was over.
        pending: u64,
    },
    /// Everything was handled in time, but the collector did not take all of it.
    #[error("{lost} spans, metrics or log records could not be delivered")]
    Undelivered {
        /// How many items were given up since `shutdown` or `force_flush` was called.
        lost: u64,
    },
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
        /// The value as given.
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
    pub(crate) fn unusable(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unusable {
            setting: setting.into(),
            problem: problem.into(),
        }
    }
}

fn join(errors: &[SettingError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
