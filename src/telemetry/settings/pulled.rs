//! How metrics are pulled, as plain data.

use std::fmt;

/// How Prometheus pulls metrics.
///
/// ```
/// use tower_image_trace::telemetry::{PrometheusExporter, Settings};
///
/// let mut prometheus = PrometheusExporter::default();
/// prometheus.listen = Some("0.0.0.0:9464".to_owned());
/// let mut settings = Settings::default();
/// settings.prometheus = Some(prometheus);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrometheusExporter {
    /// Where a listener of its own serves the page: `host:port`, or `:port` for all addresses of the
    /// machine. `None`: only the service serves it, with `Telemetry::prometheus`.
    pub listen: Option<String>,
    /// What the names of metrics begin with, followed by an underscore.
    pub namespace: Option<String>,
    /// Whether samples have no `otel_scope_*` labels, unless several scopes have metrics of one name
    /// (OpenTelemetry's configuration: `scope_info_enabled: false`).
    pub without_scope: bool,
    /// The variable that `listen` comes from, for errors.
    pub(crate) variable: Option<String>,
}

#[cfg(feature = "prometheus")]
impl PrometheusExporter {
    /// What errors call the address of the listener.
    pub(crate) fn listen_setting(&self) -> &str {
        self.variable.as_deref().unwrap_or("prometheus.listen")
    }

    /// Whether the address comes from whoever runs the platform, whose mistakes are warnings.
    pub(crate) fn listens_by_standard(&self) -> bool {
        let variable = self.variable.as_deref();
        variable.is_some_and(|variable| HOST_AND_PORT.contains(&variable))
    }
}

impl fmt::Display for PrometheusExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listen {
            Some(listen) => write!(f, "pulled from {listen}"),
            None => f.write_str("pulled"),
        }
    }
}

pub(super) const HOST_AND_PORT: [&str; 2] = [
    "OTEL_EXPORTER_PROMETHEUS_HOST",
    "OTEL_EXPORTER_PROMETHEUS_PORT",
];
