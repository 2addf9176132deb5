//! All settings as plain data.

use std::fmt;
use std::str::FromStr;
#[cfg(feature = "_otlp")]
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_sdk::metrics::Temporality;

use super::env::Variables;
use super::error::{SettingError, TelemetryError};
use super::id_generator::TraceIdGenerator;
use super::resolve::Code;
use super::sampler::Sampler;
#[cfg(feature = "_otlp")]
use super::tls::Tls;
use crate::propagation::Propagators;

/// The prefix imgproxy's own variables have.
pub(super) const PREFIX: &str = "IMGPROXY_";

/// The transports of OTLP, by the names imgproxy gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf (`http/protobuf`); the endpoint decides about TLS.
    Http,
    /// OTLP over HTTP with protobuf, with TLS.
    Https,
}

impl Protocol {
    pub(super) const EXPECTED: &'static str = "grpc, http, https or http/protobuf";

    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "grpc" => Some(Self::Grpc),
            "http" | "http/protobuf" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl FromStr for Protocol {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::from_name(text).ok_or_else(|| SettingError::Invalid {
            setting: "protocol".to_owned(),
            value: text.to_owned(),
            expected: Self::EXPECTED.to_owned(),
        })
    }
}

/// Where one signal goes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Exporter {
    /// Nowhere.
    #[default]
    None,
    /// To the terminal: traces as waterfalls, metrics and the log as lines.
    Console,
    /// To a collector.
    Otlp(OtlpExporter),
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("off"),
            Self::Console => f.write_str("to the terminal"),
            Self::Otlp(otlp) => otlp.fmt(f),
        }
    }
}

impl fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtlpExporter({self})")
    }
}

impl fmt::Display for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = without_secrets(&self.endpoint.to_string());
        write!(f, "to {endpoint} ({}, ", self.protocol)?;
        #[cfg(feature = "_otlp")]
        if let Some(tls) = &self.tls {
            return write!(f, "{tls})");
        }
        f.write_str("no TLS)")
    }
}

/// One signal's way to the collector; `Debug` and `Display` show nothing that may be secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct OtlpExporter {
    /// The full URL: for gRPC without a path, for HTTP the one posted to. `https` means TLS.
    pub endpoint: Uri,
    /// [`Protocol::Grpc`], or one of the two forms of HTTP.
    pub protocol: Protocol,
    /// Sent with each request; their values are not shown by `Debug`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one attempt may take, connecting included.
    pub timeout: Duration,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// Set when the endpoint is `https`.
    #[cfg(feature = "_otlp")]
    pub(super) tls: Option<Arc<Tls>>,
}

/// The queue between the requests and the exporter: `OTEL_BSP_*`, and `OTEL_BLRP_*` for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batching {
    /// How many items wait at most, those being sent included; what comes on top is dropped and counted.
    pub max_queue_size: usize,
    /// How many items go into one request at most.
    pub max_export_batch_size: usize,
    /// How long an item waits at most for a batch to fill.
    pub schedule_delay: Duration,
    /// How long a batch is retried before it is given up.
    pub export_timeout: Duration,
}

/// Limits of what one span records: `OTEL_SPAN_*_COUNT_LIMIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanLimits {
    /// Attributes a span.
    pub attributes: u32,
    /// Events a span.
    pub events: u32,
    /// Links a span.
    pub links: u32,
}

/// All settings of [`Telemetry`](super::Telemetry) as plain data, resolved and checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where spans go.
    pub traces: Exporter,
    /// Where metrics go.
    pub metrics: Exporter,
    /// Where the service's log goes.
    pub logs: Exporter,
    /// The `service.name` of the resource.
    pub service_name: String,
    /// The other attributes of the resource, percent-decoded.
    pub resource_attributes: Vec<(String, String)>,
    /// Whether AWS is asked for more attributes of the resource at the start, for at most a second.
    pub aws_resource: bool,
    /// The formats of the caller's context.
    pub propagators: Propagators,
    /// Whether the trace context is written into requests to image origins.
    pub propagate_external: bool,
    /// Whether requests are measured once more under imgproxy's names.
    pub imgproxy_metrics: bool,
    /// How trace ids are made.
    pub trace_id_generator: TraceIdGenerator,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// What one span may hold.
    pub span_limits: SpanLimits,
    /// The queue of spans.
    pub span_batching: Batching,
    /// The queue of log records.
    pub log_batching: Batching,
    /// How often metrics are sent.
    pub metric_export_interval: Duration,
    /// How long a metrics request is retried before it is given up.
    pub metric_export_timeout: Duration,
    /// Whether sums and histograms count from the start or from the last export.
    pub metric_temporality: Temporality,
}

impl Settings {
    /// The settings in the process environment.
    ///
    /// # Errors
    /// All wrong settings together.
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::resolve(Variables::from_process(PREFIX), &Code::default())
    }

    /// The settings in `vars`, pairs of names and values; the process environment is not read.
    ///
    /// # Errors
    /// All wrong settings together.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Self, TelemetryError> {
        Self::resolve(Variables::new(PREFIX, vars), &Code::default())
    }

    /// Whether any signal is exported.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        [&self.traces, &self.metrics, &self.logs]
            .iter()
            .any(|exporter| !matches!(exporter, Exporter::None))
    }

    /// What the line at the start says.
    pub(super) fn summary(&self) -> String {
        format!(
            "service {}, traces {}, metrics {}, logs {}, propagators {}, trace ids {}, sampler {}",
            self.service_name,
            self.traces,
            self.metrics,
            self.logs,
            self.propagators,
            self.trace_id_generator,
            self.sampler,
        )
    }
}

/// What telemetry consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// What its data are called in messages.
    pub(super) const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "data points",
            Self::Logs => "log records",
        }
    }

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    /// The gRPC method that takes it.
    #[cfg(feature = "_otlp")]
    pub(super) const fn grpc_method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// `OTEL_EXPORTER_OTLP_TRACES_x`, which comes before `OTEL_EXPORTER_OTLP_x`.
    pub(super) fn variables(self, name: &str) -> [String; 2] {
        [
            format!("OTEL_EXPORTER_OTLP_{}_{name}", self.name()),
            format!("OTEL_EXPORTER_OTLP_{name}"),
        ]
    }
}

/// An endpoint as it may be shown: without user, password and query.
pub(super) fn without_secrets(endpoint: &str) -> String {
    let (base, query) = match endpoint.split_once('?') {
        Some((base, _)) => (base, "?…"),
        None => (endpoint, ""),
    };
    match base.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            let separator = if scheme.is_empty() { "" } else { "://" };
            format!("{scheme}{separator}…@{host}{query}")
        }
        None => format!("{base}{query}"),
    }
}
