use std::io;
use std::time::Duration;

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
    /// `opentelemetry-otlp` refused the settings.
    #[cfg(feature = "_otlp")]
    #[error("the OTLP exporter could not be built: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// `shutdown` or `force_flush` reached its timeout first.
    #[error("{pending} spans, metrics or log records were still unsent after {timeout:?}")]
    TimedOut {
        /// The time that was allowed.
        timeout: Duration,
        /// How many items had not been delivered or given up when it was over.
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
        /// The variable, or the builder's method.
        setting: String,
        /// The value as given.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// The value of a setting that is not shown cannot be used.
    #[error("{setting}: {problem}")]
    Unusable {
        /// The variable, or the builder's method.
        setting: String,
        /// What is wrong, and what is accepted.
        problem: String,
    },
    /// The crate was compiled without what the setting asks for.
    #[error("{setting}={value:?} needs the cargo feature {feature:?} of tower-image-trace")]
    Feature {
        /// The variable, or the builder's method.
        setting: String,
        /// The value as given.
        value: String,
        /// The missing cargo feature.
        feature: &'static str,
    },
}

fn join(errors: &[SettingError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
