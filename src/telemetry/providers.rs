//! The running providers, and what a service asks of them.

#[cfg(feature = "_listener")]
use std::net::SocketAddr;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

#[cfg(feature = "logs")]
use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::trace::{TracerProvider as _, noop::NoopTracerProvider};
#[cfg(feature = "logs")]
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::{metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tokio::sync::oneshot;

#[cfg(not(feature = "_export"))]
use super::no_pipeline::Pipeline;
#[cfg(feature = "_export")]
use super::pipeline::Pipeline;
#[cfg(feature = "prometheus")]
use super::prometheus::Prometheus;
#[cfg(feature = "logs")]
use super::settings::ExceptionSignal;
#[cfg(feature = "_otlp")]
use super::written::SpanWriter;
use super::{
    error::TelemetryError,
    event::{SignalStats, Sink},
    settings::{Exporter, Settings},
    signal::Signal,
};
#[cfg(feature = "page")]
use crate::page::{Page, TracePage, TracePageBuilder};
use crate::{
    download::{DownloadLayer, DownloadLayerBuilder},
    in_progress::{RequestsInProgress, RequestsInProgressLayer},
    instrument::{Exceptions, StartSpan, scope},
    metrics::Gauges,
    propagation::Propagators,
    trace::{ImageTraceLayer, ImageTraceLayerBuilder},
};

/// How long [`Telemetry`] tries to flush when it is dropped without a shutdown.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// Running providers for traces and metrics, made from settings.
///
/// Call [`shutdown`](Self::shutdown) at the end of the service. Dropping it without that tries to flush
/// for a second, and blocks the thread meanwhile.
///
/// ```
/// use std::time::Duration;
/// use tower_image_trace::{Telemetry, TelemetryError};
///
/// async fn run() -> Result<(), TelemetryError> {
///     let telemetry = Telemetry::from_env()?; // IMGPROXY_OPEN_TELEMETRY_* and OTEL_*
///     let requests = telemetry.trace_layer(); // around the service
///     let downloads = telemetry.download_layer(); // around its HTTP client
///     // … serve until `shutdown_signal()` …
///     # let _ = (requests, downloads);
///     telemetry.shutdown(Duration::from_secs(5)).await
/// }
/// ```
#[derive(Debug)]
pub struct Telemetry {
    pub(super) tracer_provider: SdkTracerProvider,
    pub(super) meter_provider: SdkMeterProvider,
    pub(super) gauges: Gauges,
    #[cfg(feature = "logs")]
    pub(super) logger_provider: SdkLoggerProvider,
    pub(super) settings: Settings,
    pub(super) events: Sink,
    /// Of the samplers in the settings only X-Ray's rules look at attributes. A sampler or a span processor of
    /// the service may, and is to see them from the start (semconv http-spans).
    pub(super) attributes_after_sampling: bool,
    /// Writes the spans of layers, unless they are to be seen by something of the service's or by a sampler.
    #[cfg(feature = "_otlp")]
    pub(super) span_writer: Option<SpanWriter>,
    /// Whether the service has changed the tracer provider.
    pub(super) has_own_tracers: bool,
    /// Whether anything reads what is measured.
    pub(super) measures: bool,
    pub(super) in_progress: OnceLock<(RequestsInProgressLayer, RequestsInProgress)>,
    /// `None` when everything is switched off.
    pub(super) pipeline: Option<Arc<Pipeline>>,
    #[cfg(feature = "prometheus")]
    pub(super) pulled: Pulled,
    #[cfg(feature = "page")]
    pub(super) page: Shown,
}

/// The live page of traces.
#[cfg(feature = "page")]
#[derive(Debug)]
pub(super) struct Shown {
    /// `None`: it is off.
    pub(super) page: Option<Arc<Page>>,
    /// Where the listener is bound.
    pub(super) address: Option<SocketAddr>,
}

#[cfg(feature = "page")]
impl Shown {
    pub(super) fn nothing() -> Self {
        Self {
            page: None,
            address: None,
        }
    }
}

/// What Prometheus pulls.
#[cfg(feature = "prometheus")]
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) service: Prometheus,
    /// Where the listener is bound.
    pub(super) address: Option<SocketAddr>,
}

#[cfg(feature = "prometheus")]
impl Pulled {
    pub(super) fn nothing() -> Self {
        Self {
            service: Prometheus::new(None),
            address: None,
        }
    }
}

impl Telemetry {
    /// Whether anything is exported, the live page is on, or the service has changed a provider.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.pipeline.is_some() || self.has_own_tracers
    }

    /// The settings in use.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The provider of tracers; one that records nothing when traces are switched off.
    #[must_use]
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.tracer_provider.clone()
    }

    /// The provider of meters; one that collects nothing when metrics are switched off.
    #[must_use]
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.meter_provider.clone()
    }

    /// The formats of the caller's context.
    #[must_use]
    pub fn propagators(&self) -> Propagators {
        self.settings.propagators.clone()
    }

    /// A layer that traces and measures with these providers, settings and formats.
    #[must_use]
    pub fn trace_layer(&self) -> ImageTraceLayer {
        self.trace_layer_builder().build()
    }

    /// The same, for a filter, a trust decision or anything else of your own.
    pub fn trace_layer_builder(&self) -> ImageTraceLayerBuilder {
        // The service has its subscriber by now.
        self.events.repeat_unheard();
        if !self.is_enabled() {
            return ImageTraceLayerBuilder::disabled();
        }
        let layer = ImageTraceLayer::builder();
        let layer = match self.tracer() {
            Some(tracer) => layer.tracer(tracer),
            None => layer.traces(false),
        };
        let layer = layer
            .propagators(self.propagators())
            .propagate_external(self.settings.propagate_external)
            .exceptions(self.exceptions())
            .attributes_after_sampling(self.attributes_after_sampling)
            // Both id generators are random in the lower 12 bytes.
            .random_trace_ids(true)
            .imgproxy_metrics(self.settings.imgproxy_metrics);
        #[cfg(feature = "page")]
        let layer = match &self.page.page {
            Some(page) => layer.running(Arc::clone(page.running())),
            None => layer,
        };
        match self.measures {
            true => layer.gauges(self.gauges()),
            false => layer.metrics(false),
        }
    }

    /// Exceptions stay on spans where no logs are exported.
    fn exceptions(&self) -> Exceptions {
        #[cfg(feature = "logs")]
        if self.settings.logs != Exporter::None {
            let logger = || self.logger_provider.logger_with_scope(scope());
            match self.settings.exception_signal {
                ExceptionSignal::Spans => {}
                ExceptionSignal::Logs => return Exceptions::logged(logger(), false),
                ExceptionSignal::Both => return Exceptions::logged(logger(), true),
            }
        }
        Exceptions::default()
    }

    /// Logs have the ids of spans even if the spans go nowhere. Without both, the caller's context
    /// passes through as it is.
    pub(super) fn makes_spans(&self) -> bool {
        let settings = &self.settings;
        let is_exported = !matches!(
            (&settings.traces, &settings.logs),
            (Exporter::None, Exporter::None)
        );
        is_exported || settings.trace_page.is_some() || self.has_own_tracers
    }

    /// What makes the spans of layers, if there are any.
    fn tracer(&self) -> Option<Box<dyn StartSpan>> {
        #[cfg(feature = "_otlp")]
        if let Some(writer) = &self.span_writer {
            return Some(Box::new(writer.clone()));
        }
        self.makes_spans()
            .then(|| Box::new(self.tracer_provider.tracer_with_scope(scope())) as _)
    }

    /// A layer that records the downloads of a client, with these providers, settings and formats.
    #[must_use]
    pub fn download_layer(&self) -> DownloadLayer {
        self.download_layer_builder().build()
    }

    /// The same, for the error type of another client or anything else of your own.
    ///
    /// ```
    /// use tower_image_trace::Telemetry;
    ///
    /// # #[derive(Debug, thiserror::Error)]
    /// # #[error("a client's error")]
    /// # struct ClientError;
    /// let telemetry = Telemetry::builder().build()?;
    /// let layer = telemetry.download_layer_builder().record_errors_as::<ClientError>().build();
    /// # let _ = layer;
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    pub fn download_layer_builder(&self) -> DownloadLayerBuilder {
        if !self.is_enabled() {
            return DownloadLayerBuilder::disabled();
        }
        let layer = DownloadLayer::builder();
        let layer = match self.tracer() {
            Some(tracer) => layer.tracer(tracer),
            None => layer.tracer_provider(NoopTracerProvider::new()),
        };
        let layer = layer
            .propagators(self.propagators())
            .propagate_external(self.settings.propagate_external)
            .exceptions(self.exceptions());
        match self.measures {
            true => layer.meter_provider(self.meter_provider()),
            false => layer.metrics(false),
        }
    }

    /// A layer that counts requests in progress, and the counts, which are exported as
    /// `requests_in_progress` and `images_in_progress`.
    ///
    /// All layers from one `Telemetry` share their counts.
    #[must_use]
    pub fn in_progress_layer(&self) -> (RequestsInProgressLayer, RequestsInProgress) {
        let pair = self.in_progress.get_or_init(|| {
            let (layer, counts) = RequestsInProgressLayer::pair();
            self.gauges.in_progress(&counts);
            #[cfg(feature = "page")]
            if let Some(page) = &self.page.page {
                page.count_in_progress(&counts);
            }
            (layer, counts)
        });
        pair.clone()
    }

    /// Gauges that are exported until this `Telemetry` is dropped.
    ///
    /// With feature `process` those of the process are there already, with feature `tokio-metrics`
    /// those of the runtime that this `Telemetry` was built on.
    #[must_use]
    pub const fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// A service that answers with a page of all metrics, for Prometheus to pull, with a collector or without
    /// one ([`TelemetryBuilder::prometheus`](crate::TelemetryBuilder::prometheus)).
    ///
    /// Where metrics are only pushed, a page has what is collected for the exporter at that moment, which is
    /// then exported as well; with delta temporality there is none. Without metrics, and after the shutdown, the
    /// answer is 503.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::Router;
    /// use tower_image_trace::Telemetry;
    ///
    /// let telemetry = Telemetry::builder().prometheus(true).build()?;
    /// let app: Router = Router::new().route_service("/metrics", telemetry.prometheus());
    /// # }
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    #[cfg(feature = "prometheus")]
    #[must_use]
    pub fn prometheus(&self) -> Prometheus {
        self.pulled.service.clone()
    }

    /// Where the listener for Prometheus is bound, if there is one.
    #[cfg(feature = "prometheus")]
    #[must_use]
    pub const fn prometheus_address(&self) -> Option<SocketAddr> {
        self.pulled.address
    }

    /// A service with the live page of traces, for browsers
    /// ([`TelemetryBuilder::trace_page`](crate::TelemetryBuilder::trace_page)): what runs, and samples of what
    /// was slow, failed or cancelled. See [`page`](crate::page) for how to mount it and who may look.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::Router;
    /// use tower_image_trace::Telemetry;
    ///
    /// let telemetry = Telemetry::builder().trace_page(true).build()?;
    /// let app: Router = Router::new().nest_service("/debug/traces", telemetry.trace_page());
    /// # }
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    #[cfg(feature = "page")]
    #[must_use]
    pub fn trace_page(&self) -> TracePage {
        self.trace_page_builder().build()
    }

    /// The same, for others than those on this machine, or under a path of your own.
    #[cfg(feature = "page")]
    pub fn trace_page_builder(&self) -> TracePageBuilder {
        TracePageBuilder::new(self.page.page.clone())
    }

    /// Where the listener for the live page is bound, if there is one.
    #[cfg(feature = "page")]
    #[must_use]
    pub const fn page_address(&self) -> Option<SocketAddr> {
        self.page.address
    }

    /// The provider of loggers; one that exports nothing when logs are switched off.
    #[cfg(feature = "logs")]
    #[must_use]
    pub fn logger_provider(&self) -> SdkLoggerProvider {
        self.logger_provider.clone()
    }

    /// A layer for `tracing-subscriber` that exports the service's events with the ids of the
    /// current span.
    ///
    /// What the export itself logs on its thread is left out. Filter it like any other layer:
    ///
    /// ```no_run
    /// # let telemetry = tower_image_trace::Telemetry::from_env()?;
    /// use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt};
    ///
    /// let subscriber =
    ///     tracing_subscriber::registry().with(telemetry.log_layer().with_filter(LevelFilter::INFO));
    /// # let _ = subscriber;
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    #[cfg(feature = "logs")]
    #[must_use]
    pub fn log_layer(&self) -> OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger> {
        OpenTelemetryTracingBridge::new(&self.logger_provider)
    }

    /// Makes the providers and formats those of [`opentelemetry::global`].
    pub fn install_global(&self) {
        opentelemetry::global::set_text_map_propagator(self.propagators());
        opentelemetry::global::set_tracer_provider(self.tracer_provider());
        opentelemetry::global::set_meter_provider(self.meter_provider());
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn span_stats(&self) -> SignalStats {
        self.stats(Signal::Traces)
    }

    /// What became of the data points of metrics so far.
    #[must_use]
    pub fn data_point_stats(&self) -> SignalStats {
        self.stats(Signal::Metrics)
    }

    /// What became of the log records so far.
    #[cfg(feature = "logs")]
    #[must_use]
    pub fn log_record_stats(&self) -> SignalStats {
        self.stats(Signal::Logs)
    }

    fn stats(&self, signal: Signal) -> SignalStats {
        self.pipeline
            .as_ref()
            .map(|pipeline| pipeline.stats(signal))
            .unwrap_or_default()
    }

    /// Sends everything recorded so far, and ends all threads; later spans are only counted, in
    /// [`SignalStats::after_shutdown`].
    ///
    /// Works on every kind of runtime, and ends within `timeout` plus at most 200 ms whatever the
    /// collector does. A second call returns at once. The shutdown goes on when the future is dropped.
    ///
    /// # Errors
    /// What could not be delivered, or not in time.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        off_runtime(move || pipeline.shutdown(timeout)).await
    }

    /// [`shutdown`](Self::shutdown) for code that is not async.
    ///
    /// # Errors
    /// What could not be delivered, or not in time.
    pub fn shutdown_blocking(&self, timeout: Duration) -> Result<(), TelemetryError> {
        self.pipeline
            .as_ref()
            .map_or(Ok(()), |pipeline| pipeline.shutdown(timeout))
    }

    /// Sends everything recorded so far, and waits for it until `timeout` is over.
    ///
    /// # Errors
    /// What could not be delivered, or not in time.
    pub async fn force_flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        off_runtime(move || pipeline.flush(timeout)).await
    }

    /// [`force_flush`](Self::force_flush) for code that is not async.
    ///
    /// # Errors
    /// What could not be delivered, or not in time.
    pub fn force_flush_blocking(&self, timeout: Duration) -> Result<(), TelemetryError> {
        self.pipeline
            .as_ref()
            .map_or(Ok(()), |pipeline| pipeline.flush(timeout))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // The events say what was lost.
        let _ = self.shutdown_blocking(DROP_TIMEOUT);
    }
}

/// Runs `work` on its own thread, so that waiting for it blocks no runtime, of any kind.
async fn off_runtime(
    work: impl FnOnce() -> Result<(), TelemetryError> + Send + 'static,
) -> Result<(), TelemetryError> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("image-trace-shutdown".to_owned());
    thread
        .spawn(move || drop(done.send(work())))
        .map_err(TelemetryError::IoThread)?;
    // The sender is only lost without a result when `work` panics.
    result.await.unwrap_or(Ok(()))
}
