//! [`Telemetry`] from code, from the environment, or from both.

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue};
#[cfg(feature = "_export")]
use opentelemetry_sdk::metrics::MeterProviderBuilder;
use opentelemetry_sdk::trace::TracerProviderBuilder;

#[cfg(feature = "_otlp")]
use super::keep::Keep;
#[cfg(feature = "logs")]
use super::settings::ExceptionSignal;
use super::{
    error::TelemetryError,
    event::{Sink, TelemetryEvent},
    id_generator::TraceIdGenerator,
    outlets::{Change, Outlets},
    providers::Telemetry,
    settings::{
        Code, EndpointText, HistogramAggregation, PREFIX, Pem, Protocol, Sampler, Settings,
        Variables,
    },
};
#[cfg(all(feature = "console", feature = "logs"))]
use crate::console::ConsoleLogExporter;
#[cfg(feature = "console")]
use crate::console::{ConsoleExporter, ConsoleMetricExporter};
use crate::propagation::Propagators;

impl Telemetry {
    /// What `IMGPROXY_OPEN_TELEMETRY_*` and `OTEL_*` ask for; switched off when they ask for nothing.
    ///
    /// # Errors
    /// See [`TelemetryBuilder::build`].
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::builder().build()
    }

    /// [`from_env`](Self::from_env) with `THUMBS_OPEN_TELEMETRY_*` for the prefix `THUMBS_`.
    ///
    /// # Errors
    /// See [`TelemetryBuilder::build`].
    pub fn from_env_with_prefix(prefix: &str) -> Result<Self, TelemetryError> {
        Self::builder().env_prefix(prefix).build()
    }

    /// The same settings in code.
    pub fn builder() -> TelemetryBuilder {
        TelemetryBuilder::default()
    }

    /// What `settings` ask for; the environment is not read.
    ///
    /// ```no_run
    /// use tower_image_trace::{Settings, Telemetry};
    ///
    /// let mut settings = Settings::from_env()?;
    /// settings.service_name.push_str("-canary");
    /// let telemetry = Telemetry::from_settings(settings)?;
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    ///
    /// # Errors
    /// All wrong settings together, or that the I/O thread could not be started.
    pub fn from_settings(settings: Settings) -> Result<Self, TelemetryError> {
        settings.check()?;
        Self::start(settings, Outlets::default())
    }
}

/// The settings of [`Telemetry`] in code; the environment fills in what code leaves open.
///
/// ```no_run
/// # use tower_image_trace::telemetry::{Protocol, Telemetry};
/// let telemetry = Telemetry::builder()
///     .endpoint("collector:4318")
///     .protocol(Protocol::Http)
///     .service_name("thumbs")
///     .metrics(true)
///     .build()?;
/// # Ok::<(), tower_image_trace::telemetry::TelemetryError>(())
/// ```
#[derive(Default)]
#[must_use]
pub struct TelemetryBuilder {
    code: Code,
    prefix: Option<String>,
    vars: Option<Vec<(String, String)>>,
    outlets: Outlets,
}

impl fmt::Debug for TelemetryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variables are left out, because some are secret.
        f.debug_struct("TelemetryBuilder")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl TelemetryBuilder {
    /// The collector: `host:port`, or a URL with `http://` or `https://`.
    ///
    /// For OTLP over HTTP a URL is the base to which `/v1/traces` and `/v1/metrics` are appended.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.code.endpoint = Some(EndpointText(endpoint.into()));
        self
    }

    /// How to talk to the collector; gRPC when left out.
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.code.protocol = Some(protocol);
        self
    }

    /// Whether an endpoint without a scheme is reached without TLS; `true` when left out.
    pub const fn insecure(mut self, insecure: bool) -> Self {
        self.code.insecure = Some(insecure);
        self
    }

    /// The CA that signed the collector's certificate, or that certificate itself, as PEM; means TLS.
    ///
    /// Without it the roots of the system are trusted.
    pub fn server_certificate(mut self, pem: impl Into<String>) -> Self {
        self.code.server_certificate = Some(Pem::new(pem));
        self
    }

    /// The certificate, with its chain, and the key that prove to the collector who we are, as PEM;
    /// means TLS.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Self {
        self.code.client_certificate = Some(Pem::new(certificate));
        self.code.client_key = Some(Pem::new(key));
        self
    }

    /// How long one attempt to export may take, connecting included; 5 s when left out.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.code.timeout = Some(timeout);
        self
    }

    /// A header, or gRPC metadata, of each export request; its value is never shown.
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.code.headers.push((name, value));
        self
    }

    /// The `service.name` of everything that is exported. When left out, and no variable says it, it is
    /// `imgproxy` where an `IMGPROXY_` variable has switched telemetry on, and else `unknown_service:` and the
    /// name of the executable.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.code.service_name = Some(name.into());
        self
    }

    /// The `service.version` of everything that is exported, such as `env!("CARGO_PKG_VERSION")`. It comes
    /// before one in `OTEL_RESOURCE_ATTRIBUTES`.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.code.service_version = Some(version.into());
        self
    }

    /// An attribute of everything that is exported, such as `service.namespace` or
    /// `deployment.environment.name`. It comes before one in `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// `service.instance.id` replaces the random one that each process has. `service.name` and
    /// `service.version` have methods of their own.
    pub fn resource_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let attribute = (key.into(), value.into());
        self.code.resource_attributes.push(attribute);
        self
    }

    /// The formats of the caller's context; `tracecontext,baggage` when left out.
    pub fn propagators(mut self, propagators: Propagators) -> Self {
        self.code.propagators = Some(propagators);
        self
    }

    /// Whether [`Stage::inject`](crate::Stage::inject) writes the context into requests to image
    /// origins; `false` when left out.
    pub const fn propagate_external(mut self, propagate: bool) -> Self {
        self.code.propagate_external = Some(propagate);
        self
    }

    /// How ids of new traces are made; [`TraceIdGenerator::Xray`] when left out.
    pub const fn trace_id_generator(mut self, generator: TraceIdGenerator) -> Self {
        self.code.trace_id_generator = Some(generator);
        self
    }

    /// Which traces are recorded; [`Sampler::ParentBasedAlwaysOn`] when left out.
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.code.sampler = Some(sampler);
        self
    }

    /// Which traces are kept, decided when their requests have ended; all that are recorded when left out.
    ///
    /// The sampler comes first: what it does not record is never kept. A sampler of the service's own
    /// ([`tracer_provider_with`](Self::tracer_provider_with)) takes the place of the dice.
    ///
    /// It is about what goes to a collector. The live page and the terminal show everything.
    #[cfg(feature = "_otlp")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.code.keep = Some(keep);
        self
    }

    /// How many bytes the queue to a collector holds of each signal, those being sent included; 8 MiB when
    /// left out. What comes when it is full is dropped and counted.
    pub const fn max_queue_bytes(mut self, bytes: usize) -> Self {
        self.code.max_queue_bytes = Some(bytes);
        self
    }

    /// How many requests of a signal are on their way to a collector at once; 16 when left out.
    ///
    /// With several of them one slow answer does not hold up the others.
    pub const fn max_concurrent_exports(mut self, requests: usize) -> Self {
        self.code.max_concurrent_exports = Some(requests);
        self
    }

    /// Whether metrics are exported too; `false` when left out.
    pub const fn metrics(mut self, enabled: bool) -> Self {
        self.code.metrics = Some(enabled);
        self
    }

    /// Whether requests are measured once more under imgproxy's names, for dashboards made for
    /// it: `requests_total`, `status_codes_total` and `request_duration_seconds`; `false` when left out,
    /// unless `IMGPROXY_PROMETHEUS_BIND` asks for imgproxy's page. Pages for Prometheus then have imgproxy's
    /// names: `workers_utilization` without its unit.
    pub const fn imgproxy_metrics(mut self, enabled: bool) -> Self {
        self.code.imgproxy_metrics = Some(enabled);
        self
    }

    /// Whether metrics are pulled by Prometheus, from [`Telemetry::prometheus`] or from a listener
    /// ([`prometheus_listen`](Self::prometheus_listen)). They can be pushed and pulled at the same time,
    /// which costs each measurement twice.
    ///
    /// Without this setting they are pulled when [`metrics`](Self::metrics) are asked for and no collector
    /// is known, or when `IMGPROXY_PROMETHEUS_BIND` or `OTEL_METRICS_EXPORTER` asks for it.
    #[cfg(feature = "prometheus")]
    pub const fn prometheus(mut self, pulled: bool) -> Self {
        self.code.prometheus = Some(pulled);
        self
    }

    /// Where a listener of its own serves the page for Prometheus, on any path: `host:port`, or `:port`
    /// for all addresses of the machine. Means [`prometheus(true)`](Self::prometheus).
    #[cfg(feature = "prometheus")]
    pub fn prometheus_listen(mut self, address: impl Into<String>) -> Self {
        self.code.prometheus_listen = Some(address.into());
        self
    }

    /// What the names of metrics begin with on the page for Prometheus, followed by an underscore.
    #[cfg(feature = "prometheus")]
    pub fn prometheus_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.code.prometheus_namespace = Some(namespace.into());
        self
    }

    /// Whether samples on the page for Prometheus have no `otel_scope_*` labels; `false` when left out. The
    /// labels are nearly half of a long page. They stay where several scopes have metrics of one name.
    ///
    /// OpenTelemetry's configuration calls it `scope_info_enabled: false`.
    #[cfg(feature = "prometheus")]
    pub const fn prometheus_without_scope(mut self, without: bool) -> Self {
        self.code.prometheus_without_scope = without;
        self
    }

    /// Whether the live page of traces is on, from [`Telemetry::trace_page`] or from a listener
    /// ([`trace_page_listen`](Self::trace_page_listen)); `false` when left out, unless
    /// `IMGPROXY_OPEN_TELEMETRY_PAGE_BIND` asks for it. It needs no collector. What the sampler does not take is
    /// on the page all the same, and is not exported.
    #[cfg(feature = "page")]
    pub const fn trace_page(mut self, enabled: bool) -> Self {
        self.code.page = Some(enabled);
        self
    }

    /// Where a listener of its own serves the live page: `host:port`, or `:port` for all addresses of the
    /// machine. Only clients on this machine are answered. Means [`trace_page(true)`](Self::trace_page).
    #[cfg(feature = "page")]
    pub fn trace_page_listen(mut self, address: impl Into<String>) -> Self {
        self.code.page_listen = Some(address.into());
        self
    }

    /// The most bytes of memory that the live page holds: at least 262,144, and 8 MiB when left out.
    #[cfg(feature = "page")]
    pub const fn trace_page_max_bytes(mut self, bytes: usize) -> Self {
        self.code.page_max_bytes = Some(bytes);
        self
    }

    /// The boundaries of a histogram, by the name of its metric, in place of those that it has. The last
    /// call for a metric counts.
    ///
    /// ```
    /// use tower_image_trace::Telemetry;
    ///
    /// let telemetry = Telemetry::builder()
    ///     .histogram_buckets("http.server.request.duration", [0.01, 0.1, 1.0, 10.0])
    ///     .histogram_buckets("buffer_size_bytes", [1e5, 1e6, 1e7]);
    /// # let _ = telemetry;
    /// ```
    pub fn histogram_buckets(
        mut self,
        metric: impl Into<String>,
        boundaries: impl IntoIterator<Item = f64>,
    ) -> Self {
        let (metric, boundaries) = (metric.into(), boundaries.into_iter().collect());
        let all = &mut self.code.histogram_buckets;
        all.retain(|(other, _)| *other != metric);
        all.push((metric, boundaries));
        self
    }

    /// What histograms are that have no boundaries from
    /// [`histogram_buckets`](Self::histogram_buckets); [`HistogramAggregation::ExplicitBuckets`] when left
    /// out.
    pub const fn histogram_aggregation(mut self, aggregation: HistogramAggregation) -> Self {
        self.code.histogram_aggregation = Some(aggregation);
        self
    }

    /// How many series (different sets of attributes) each metric has at most; 2,000 when left out. All
    /// later ones are counted as one, with the attribute `otel.metric.overflow`, which
    /// [`TelemetryEvent::SeriesLimit`] reports.
    pub const fn series_limit(mut self, limit: usize) -> Self {
        self.code.series_limit = Some(limit);
        self
    }

    /// Whether the service's log is exported too, by [`Telemetry::log_layer`]; `false` when left out.
    #[cfg(feature = "logs")]
    pub const fn logs(mut self, enabled: bool) -> Self {
        self.code.logs = Some(enabled);
        self
    }

    /// Where exceptions are recorded. When left out, and the environment says nothing, they are log records
    /// where logs are exported, and events of spans elsewhere.
    #[cfg(feature = "logs")]
    pub const fn exception_signal(mut self, signal: ExceptionSignal) -> Self {
        self.code.exception_signal = Some(signal);
        self
    }

    /// Whether EC2, ECS, EKS and Lambda are asked for attributes of the resource when telemetry
    /// starts, for at most a second in all; `false` when left out.
    #[cfg(feature = "aws")]
    pub const fn aws_resource(mut self, detect: bool) -> Self {
        self.code.aws_resource = Some(detect);
        self
    }

    /// Prints traces to the terminal as waterfalls instead of sending them to a collector.
    #[cfg(feature = "console")]
    pub fn console(self) -> Self {
        self.console_exporter(ConsoleExporter::stdout())
    }

    /// [`console`](Self::console) with a width, colours or a writer of its own.
    #[cfg(feature = "console")]
    pub fn console_exporter(mut self, exporter: ConsoleExporter) -> Self {
        self.code.console = true;
        self.outlets.terminals.traces = Some(exporter);
        self
    }

    /// Prints metrics as lines instead of sending them to a collector; switches them on.
    #[cfg(feature = "console")]
    pub fn console_metrics(mut self, exporter: ConsoleMetricExporter) -> Self {
        self.code.console_metrics = true;
        self.outlets.terminals.metrics = Some(exporter);
        self
    }

    /// Prints the service's log, from [`Telemetry::log_layer`], instead of sending it to a
    /// collector; switches it on.
    #[cfg(all(feature = "console", feature = "logs"))]
    pub fn console_logs(mut self, exporter: ConsoleLogExporter) -> Self {
        self.code.console_logs = true;
        self.outlets.terminals.logs = Some(exporter);
        self
    }

    /// Changes the tracer provider before it is built, for a span processor of your own beside the
    /// exporter of this crate or in place of it, or a sampler of your own. Both see the attributes of root spans
    /// from the start, which makes requests dearer that are not sampled. A sampler of your own takes the place of the
    /// one in the settings in all that these decide: what the live page has, whether `sample_when` is obeyed, and how
    /// likely the traces were that [`keep`](Self::keep) has kept.
    ///
    /// [`Telemetry::shutdown`] and [`Telemetry::force_flush`] reach these processors too. Spans that end
    /// after the shutdown are then dropped by the SDK, without being counted.
    ///
    /// ```
    /// use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// use tower_image_trace::Telemetry;
    ///
    /// let spans = InMemorySpanExporter::default();
    /// let telemetry = Telemetry::builder()
    ///     .tracer_provider_with(move |traces| traces.with_simple_exporter(spans));
    /// # let _ = telemetry;
    /// ```
    pub fn tracer_provider_with(
        mut self,
        change: impl FnOnce(TracerProviderBuilder) -> TracerProviderBuilder + Send + 'static,
    ) -> Self {
        self.outlets.tracer_provider = Some(Change(Box::new(change)));
        self
    }

    /// Changes the meter provider before it is built, for a reader or a view of your own. Metrics are then
    /// measured even where nothing else exports them, and not through bound instruments, since a reader may have
    /// delta temporality.
    ///
    /// [`Telemetry::shutdown`] and [`Telemetry::force_flush`] reach these readers too. A view that makes the
    /// same stream as one from [`histogram_buckets`](Self::histogram_buckets) or
    /// [`series_limit`](Self::series_limit) counts in its place; one that gives it another name is beside it.
    ///
    /// ```
    /// use opentelemetry_sdk::metrics::Instrument;
    /// use tower_image_trace::Telemetry;
    ///
    /// let telemetry = Telemetry::builder().meter_provider_with(|meters| {
    ///     meters.with_view(|instrument: &Instrument| {
    ///         let stream = opentelemetry_sdk::metrics::Stream::builder().with_name("thumbs.queue");
    ///         (instrument.name() == "queue").then(|| stream.build().ok()).flatten()
    ///     })
    /// });
    /// # let _ = telemetry;
    /// ```
    #[cfg(feature = "_export")]
    #[cfg_attr(
        docsrs,
        doc(cfg(any(
            feature = "console",
            feature = "otlp-grpc",
            feature = "otlp-http",
            feature = "page",
            feature = "prometheus",
            feature = "xray"
        )))
    )]
    pub fn meter_provider_with(
        mut self,
        change: impl FnOnce(MeterProviderBuilder) -> MeterProviderBuilder + Send + 'static,
    ) -> Self {
        self.outlets.meter_provider = Some(Change(Box::new(change)));
        self
    }

    /// Calls `callback` with what is also written to the log, on a thread of telemetry: it must be quick.
    ///
    /// ```
    /// use tower_image_trace::Telemetry;
    ///
    /// let telemetry = Telemetry::builder().on_event(|event| eprintln!("thumbs: {event}"));
    /// # let _ = telemetry;
    /// ```
    pub fn on_event(mut self, callback: impl Fn(&TelemetryEvent) + Send + Sync + 'static) -> Self {
        self.outlets.events = Sink::new(callback);
        self
    }

    /// Reads `THUMBS_OPEN_TELEMETRY_*` for the prefix `THUMBS_`, in place of `IMGPROXY_OPEN_TELEMETRY_*`.
    pub fn env_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Takes these variables in place of the process environment; an empty list means code alone decides.
    pub fn vars(
        mut self,
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        self.vars = Some(vars.collect());
        self
    }

    /// The settings as they would be used by [`build`](Self::build).
    ///
    /// # Errors
    /// All mistakes in code and in the crate's own variables together. Those in `OTEL_*` variables
    /// are [`Settings::warnings`].
    pub fn settings(&self) -> Result<Settings, TelemetryError> {
        let prefix = self.prefix.as_deref().unwrap_or(PREFIX);
        let vars = match &self.vars {
            Some(vars) => Variables::new(prefix, vars.iter().cloned()),
            None => Variables::from_process(prefix),
        };
        Settings::resolve(vars, &self.code)
    }

    /// Checks the settings and starts what they ask for.
    ///
    /// A collector that is not there is no error: it is tried again for as long as there is
    /// something to send.
    ///
    /// # Errors
    /// Those of [`settings`](Self::settings), or that the I/O thread could not be started.
    pub fn build(self) -> Result<Telemetry, TelemetryError> {
        Telemetry::start(self.settings()?, self.outlets)
    }
}
