//! All settings as plain data.

use std::{env, fmt, ops::RangeInclusive, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_sdk::metrics::Temporality;

#[cfg(feature = "_otlp")]
use super::proxy::Proxy;
use super::{
    pem::Pem, protocol::Protocol, pulled::PrometheusExporter, sampler::Sampler,
    trace_page::TracePageSettings,
};
#[cfg(feature = "_otlp")]
use crate::telemetry::keep::Keep;
use crate::{
    propagation::Propagators,
    telemetry::{
        error::SettingWarning, id_generator::TraceIdGenerator, shown::without_secrets,
        signal::Signal,
    },
};

/// Where one signal goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// One signal's way to the collector; `Debug` and `Display` show nothing that may be secret.
///
/// ```
/// use tower_image_trace::telemetry::{Exporter, OtlpExporter, Protocol, Settings};
///
/// let mut settings = Settings::default();
/// let endpoint = "http://collector:4318/v1/traces".parse()?;
/// settings.traces = Exporter::Otlp(OtlpExporter::new(endpoint, Protocol::Http));
/// settings.service_name = "thumbs".to_owned();
/// # Ok::<(), http::uri::InvalidUri>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtlpExporter {
    /// The full URL: without a path for gRPC, the one posted to for HTTP. `https` means TLS.
    pub endpoint: Uri,
    /// [`Protocol::Grpc`], or one of the two forms of HTTP.
    pub protocol: Protocol,
    /// Headers, or gRPC metadata, of each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one attempt may take, connecting included.
    pub timeout: Duration,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// The CA that signed the collector's certificate, or that certificate itself; `None` trusts the
    /// roots of the system.
    pub server_certificate: Option<Pem>,
    /// The certificate, with its chain, that proves to the collector who we are.
    pub client_certificate: Option<Pem>,
    /// The key of the client certificate.
    pub client_key: Option<Pem>,
    /// The proxy on the way; `None` goes straight to the collector.
    #[cfg(feature = "_otlp")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
    pub proxy: Option<Proxy>,
}

/// The fields of an [`OtlpExporter`], as errors call them.
pub(super) const SERVER_CERTIFICATE: &str = "server_certificate";
pub(super) const CLIENT_CERTIFICATE: &str = "client_certificate";
pub(super) const CLIENT_KEY: &str = "client_key";

impl OtlpExporter {
    pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

    /// The way to `endpoint`, a full URL: without a path for gRPC, the one posted to for HTTP.
    ///
    /// The rest is as if nothing else were set: 5 s an attempt, no headers, no compression, and for
    /// an `https` URL the roots of the system.
    #[must_use]
    pub const fn new(endpoint: Uri, protocol: Protocol) -> Self {
        Self {
            endpoint,
            protocol,
            headers: Vec::new(),
            timeout: Self::TIMEOUT,
            gzip: false,
            server_certificate: None,
            client_certificate: None,
            client_key: None,
            #[cfg(feature = "_otlp")]
            proxy: None,
        }
    }

    /// The same with the certificates and keys that are in their files now; `None` when none has changed.
    #[cfg(feature = "_otlp")]
    pub(crate) fn with_changed_files(&self) -> Option<Self> {
        let mut exporter = self.clone();
        let mut changed = false;
        for pem in [
            &mut exporter.server_certificate,
            &mut exporter.client_certificate,
            &mut exporter.client_key,
        ] {
            if let Some(new) = pem.as_ref().and_then(Pem::changed) {
                *pem = Some(new);
                changed = true;
            }
        }
        changed.then_some(exporter)
    }

    pub(crate) fn uses_tls(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }

    /// What errors call the first certificate or key that is set.
    pub(super) fn credential(&self) -> Option<&str> {
        let credentials = [
            (&self.server_certificate, SERVER_CERTIFICATE),
            (&self.client_certificate, CLIENT_CERTIFICATE),
            (&self.client_key, CLIENT_KEY),
        ];
        credentials
            .into_iter()
            .find_map(|(pem, field)| Some(pem.as_ref()?.name(field)))
    }

    fn tls(&self) -> &'static str {
        match (&self.server_certificate, &self.client_certificate) {
            _ if !self.uses_tls() => "no TLS",
            (None, None) => "TLS with the system's roots",
            (None, Some(_)) => "TLS with the system's roots and a client certificate",
            (Some(_), None) => "TLS with a CA of its own",
            (Some(_), Some(_)) => "TLS with a CA of its own and a client certificate",
        }
    }
}

impl fmt::Display for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = without_secrets(&self.endpoint.to_string());
        write!(f, "to {endpoint} ({}, {}", self.protocol, self.tls())?;
        #[cfg(feature = "_otlp")]
        if let Some(proxy) = &self.proxy {
            write!(f, ", through the proxy {proxy}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtlpExporter({self})")
    }
}

/// The queue between the requests and the exporter: `OTEL_BSP_*`, and `OTEL_BLRP_*` for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batching {
    /// How many items wait at most, those being sent included; further ones are dropped and counted.
    pub max_queue_size: usize,
    /// How many items go into one request at most.
    pub max_export_batch_size: usize,
    /// How long an item waits at most for a batch to fill; 0 sends it at once.
    pub schedule_delay: Duration,
    /// How long a batch is retried before it is given up.
    pub export_timeout: Duration,
}

impl Batching {
    pub(crate) const SPANS: Self = Self {
        max_queue_size: 16_384,
        max_export_batch_size: 512,
        schedule_delay: Duration::from_secs(5),
        export_timeout: Duration::from_secs(30),
    };
    const LOGS: Self = Self {
        max_queue_size: 2_048,
        schedule_delay: Duration::from_secs(1),
        ..Self::SPANS
    };
}

/// Limits of what one span records: `OTEL_SPAN_*_LIMIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanLimits {
    /// Attributes a span.
    pub attributes: u32,
    /// Events a span.
    pub events: u32,
    /// Links a span.
    pub links: u32,
    /// Attributes an event: `OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT`.
    pub attributes_per_event: u32,
    /// Attributes a link: `OTEL_LINK_ATTRIBUTE_COUNT_LIMIT`.
    pub attributes_per_link: u32,
    /// Characters a text in an attribute that goes to a collector, if there is a limit:
    /// `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`.
    pub attribute_value_length: Option<usize>,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self {
            attributes: 128,
            events: 128,
            links: 128,
            attributes_per_event: 128,
            attributes_per_link: 128,
            attribute_value_length: None,
        }
    }
}

/// How histograms are counted: `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`.
///
/// It holds for what is pulled too. The text formats of Prometheus have no place for exponential
/// histograms: there they are summaries, with a sum and a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistogramAggregation {
    /// `explicit_bucket_histogram`: in buckets with fixed boundaries.
    #[default]
    ExplicitBuckets,
    /// `base2_exponential_bucket_histogram`: in up to 160 buckets that follow the measurements.
    Base2Exponential,
}

/// Where exceptions are recorded: `…_OPEN_TELEMETRY_EXCEPTION_SIGNAL` or `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`.
/// When neither is set, they are log records where logs are exported, and events of spans elsewhere.
///
/// With [`Both`](Self::Both), the service's `tracing` events are events of `tracing` spans as well, beside
/// being log records (feature `tracing`).
///
/// As log records they need feature `logs` and an exporter of logs. Where there is none they stay events of
/// spans. Errors that end a request are `http.server.request.exception` or `rpc.server.call.exception`, those
/// of a download's attempt `http.client.request.exception`, those of a stage `image.stage.exception`, others
/// `image.request.exception`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExceptionSignal {
    /// `spans`: as `exception` events of spans.
    #[default]
    Spans,
    /// `logs`: as log records with the ids of the span.
    Logs,
    /// `logs/dup`: as both.
    Both,
}

impl ExceptionSignal {
    /// The values that semconv has for it.
    pub(super) fn opted_in(value: &str) -> Option<Self> {
        match value {
            "logs" => Some(Self::Logs),
            "logs/dup" => Some(Self::Both),
            _ => None,
        }
    }
}

/// The boundaries of a histogram.
pub(super) const BOUNDARIES: &str = "finite numbers that grow from one to the next";

pub(super) fn are_boundaries(boundaries: &[f64]) -> bool {
    let grow = |pair: &[f64]| pair[0] < pair[1];
    boundaries.iter().all(|boundary| boundary.is_finite()) && boundaries.windows(2).all(grow)
}

/// The SDK takes memory for all of them at once.
pub(super) const SERIES_LIMITS: RangeInclusive<usize> = 1..=1_000_000;
pub(super) const SERIES_LIMIT: &str = "a whole number from 1 to 1000000";

/// All settings of [`Telemetry`](crate::Telemetry) as plain data.
///
/// They come from the environment ([`from_env`](Self::from_env)), from a builder
/// ([`TelemetryBuilder::settings`](crate::TelemetryBuilder::settings)), or from code that changes
/// [`Settings::default()`](Self::default). [`Telemetry::from_settings`](crate::Telemetry::from_settings)
/// starts what they ask for.
///
/// ```
/// use tower_image_trace::{Settings, telemetry::Exporter};
///
/// let vars = [("OTEL_SERVICE_NAME", "thumbs"), ("OTEL_TRACES_EXPORTER", "none")];
/// let settings = Settings::from_vars(vars)?;
/// assert_eq!(settings.service_name, "thumbs");
/// assert_eq!(settings.traces, Exporter::None);
/// # Ok::<(), tower_image_trace::TelemetryError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Where spans go.
    pub traces: Exporter,
    /// Where metrics go.
    pub metrics: Exporter,
    /// How metrics are pulled, beside or instead.
    pub prometheus: Option<PrometheusExporter>,
    /// The live page of traces.
    pub trace_page: Option<TracePageSettings>,
    /// Whether the terminal has a line for each request and percentiles, and as waterfalls only requests that
    /// failed or took longer than this: `…_OPEN_TELEMETRY_CONSOLE`. `None`: all of them are waterfalls.
    pub console_summary: Option<Duration>,
    /// Where the service's log goes.
    pub logs: Exporter,
    /// The `service.name` of the resource.
    pub service_name: String,
    /// The `service.version` of the resource.
    pub service_version: Option<String>,
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
    /// Which of these are kept when they have ended; `None`: all of them.
    #[cfg(feature = "_otlp")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
    pub keep: Option<Keep>,
    /// What one span may hold.
    pub span_limits: SpanLimits,
    /// The queue of spans.
    pub span_batching: Batching,
    /// The queue of log records.
    pub log_batching: Batching,
    /// Characters a text in an attribute of a log record that goes to a collector, if there is a limit:
    /// `OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT`.
    pub log_attribute_value_length: Option<usize>,
    /// Attributes a log record that goes to a collector; further ones are dropped and counted in it:
    /// `OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT`.
    pub log_attributes: u32,
    /// Where exceptions are recorded.
    pub exception_signal: ExceptionSignal,
    /// How many bytes the queue to a collector holds of each signal, those being sent included; what
    /// comes when it is full is dropped and counted.
    pub max_queue_bytes: usize,
    /// How many requests of a signal are on their way to a collector at once.
    pub max_concurrent_exports: usize,
    /// How often metrics are sent.
    pub metric_export_interval: Duration,
    /// How long a metrics request is retried before it is given up.
    pub metric_export_timeout: Duration,
    /// Whether sums and histograms count from the start or from the last export.
    pub metric_temporality: Temporality,
    /// How many series (different sets of attributes) each metric has at most. All later ones are counted
    /// as one, with the attribute `otel.metric.overflow`.
    pub series_limit: usize,
    /// The boundaries of histograms, by the name of their metric, in place of those that they have.
    pub histogram_buckets: Vec<(String, Vec<f64>)>,
    /// What histograms without boundaries in `histogram_buckets` are.
    pub histogram_aggregation: HistogramAggregation,
    /// Everything is off, also for processors and readers of the service's own (`OTEL_SDK_DISABLED`).
    pub(crate) is_disabled: bool,
    /// Mistakes in `OTEL_*` variables, which are reported when telemetry starts.
    pub warnings: Vec<SettingWarning>,
}

impl Settings {
    /// Whether any signal is exported, or the live page is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        Signal::ALL
            .iter()
            .any(|signal| !matches!(self.exporter(*signal), Exporter::None))
            || self.prometheus.is_some()
            || self.trace_page.is_some()
    }

    /// Whether spans go to a collector or to the terminal.
    #[cfg(feature = "page")]
    pub(crate) fn exports_traces(&self) -> bool {
        self.traces != Exporter::None
    }

    /// Whether spans go to a collector, to the terminal or to the live page.
    pub(crate) fn makes_traces(&self) -> bool {
        self.traces != Exporter::None || self.trace_page.is_some()
    }

    /// Whether anything is measured.
    pub(crate) fn measures(&self) -> bool {
        self.metrics != Exporter::None || self.prometheus.is_some()
    }

    pub(crate) const fn exporter(&self, signal: Signal) -> &Exporter {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
        }
    }

    pub(super) const fn exporter_mut(&mut self, signal: Signal) -> &mut Exporter {
        match signal {
            Signal::Traces => &mut self.traces,
            Signal::Metrics => &mut self.metrics,
            Signal::Logs => &mut self.logs,
        }
    }

    /// What the line at the start says.
    pub(crate) fn summary(&self) -> String {
        let metrics = match (&self.metrics, &self.prometheus) {
            (pushed, None) => pushed.to_string(),
            (Exporter::None, Some(pulled)) => pulled.to_string(),
            (pushed, Some(pulled)) => format!("{pushed} and {pulled}"),
        };
        let traces = match (&self.traces, &self.trace_page) {
            (exported, None) => exported.to_string(),
            (Exporter::None, Some(page)) => page.to_string(),
            (exported, Some(page)) => format!("{exported} and {page}"),
        };
        #[cfg(feature = "_otlp")]
        let keep = match &self.keep {
            Some(keep) => format!(", keep {keep}"),
            None => String::new(),
        };
        #[cfg(not(feature = "_otlp"))]
        let keep = "";
        format!(
            "service {}, traces {}, metrics {}, logs {}, propagators {}, trace ids {}, sampler {}{keep}",
            self.service_name,
            traces,
            metrics,
            self.logs,
            self.propagators,
            self.trace_id_generator,
            self.sampler,
        )
    }
}

impl Default for Settings {
    /// What holds when nothing is set: all signals are off, and the service is called
    /// `unknown_service:` and the name of its executable.
    fn default() -> Self {
        Self {
            traces: Exporter::None,
            metrics: Exporter::None,
            prometheus: None,
            trace_page: None,
            console_summary: None,
            logs: Exporter::None,
            service_name: unknown_service(),
            service_version: None,
            resource_attributes: Vec::new(),
            aws_resource: false,
            propagators: Propagators::default(),
            propagate_external: false,
            imgproxy_metrics: false,
            trace_id_generator: TraceIdGenerator::default(),
            sampler: Sampler::default(),
            #[cfg(feature = "_otlp")]
            keep: None,
            span_limits: SpanLimits::default(),
            span_batching: Batching::SPANS,
            log_batching: Batching::LOGS,
            log_attribute_value_length: None,
            log_attributes: 128,
            exception_signal: ExceptionSignal::default(),
            max_queue_bytes: 8 << 20,
            max_concurrent_exports: 16,
            metric_export_interval: Duration::from_secs(60),
            metric_export_timeout: Duration::from_secs(30),
            metric_temporality: Temporality::default(),
            series_limit: 2_000,
            histogram_buckets: Vec::new(),
            histogram_aggregation: HistogramAggregation::default(),
            is_disabled: false,
            warnings: Vec::new(),
        }
    }
}

fn unknown_service() -> String {
    let executable = env::current_exe().ok();
    let executable = executable.as_deref().and_then(|path| path.file_name());
    match executable {
        Some(name) => format!("unknown_service:{}", name.to_string_lossy()),
        None => "unknown_service".to_owned(),
    }
}
