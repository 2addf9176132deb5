//! From settings to running providers: [`Telemetry`].
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_image_trace::telemetry::Telemetry;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::from_env()?; // IMGPROXY_OPEN_TELEMETRY_* and OTEL_*
//! // … serve requests …
//! telemetry.shutdown(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Spans go into a bounded queue; one thread with a runtime of its own sends them, so exporting works
//! on every kind of runtime and without one, never delays a request, and ends when asked to.
//!
//! # When the collector is away
//!
//! A batch is retried for `OTEL_BSP_EXPORT_TIMEOUT` (30 s), with pauses from 0.25 s to 2 s or as long
//! as the collector asks for. Meanwhile the queue takes `OTEL_BSP_MAX_QUEUE_SIZE` spans (16,384: with
//! the attributes of a request's root span about 1 KiB each, so 16 MiB when it is full; memory that
//! is not used is not taken). That is a restart of 10 s at 1,000 spans/s without losing one. What
//! does not fit is dropped and counted.
//!
//! # What it says about itself
//!
//! A line at the start says what was resolved; later ones the first export, failures, recovery, and
//! what was lost, at most once a minute each: see [`TelemetryEvent`]. They are `tracing` events with
//! the target `tower_image_trace::telemetry`, and go to [`TelemetryBuilder::on_event`]. The counts are in
//! [`Telemetry::span_stats`] and its siblings, and among the metrics as `otel.sdk.exporter.*` and
//! `otel.sdk.processor.*`.

// without a transport, half of the plumbing has nothing to carry
#![cfg_attr(
    not(any(feature = "otlp-grpc", feature = "otlp-http")),
    allow(dead_code, unused_imports, unused_mut, unused_variables)
)]

#[cfg(feature = "aws")]
mod aws;
mod builder;
#[cfg(feature = "_otlp")]
#[cfg_attr(not(feature = "otlp-grpc"), allow(dead_code))]
mod client;
#[cfg(feature = "console")]
mod console;
#[cfg(feature = "_otlp")]
mod deliver;
#[cfg(feature = "_otlp")]
mod encode;
mod endpoint;
mod env;
mod error;
#[cfg(feature = "otlp-grpc")]
mod grpc;
#[cfg(feature = "otlp-http")]
mod http;
mod id_generator;
mod io_thread;
mod item;
#[cfg(feature = "logs")]
mod log_lines;
#[cfg(feature = "logs")]
mod logs;
#[cfg(feature = "_otlp")]
mod metric_exporter;
#[cfg(feature = "_otlp")]
mod otlp;
mod queue;
mod report;
mod resolve;
mod resource;
mod sampler;
mod self_metrics;
mod settings;
mod shutdown;
mod span_processor;
mod start;
#[cfg(feature = "_otlp")]
mod tls;
#[cfg(feature = "_otlp")]
mod transport;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::trace::noop::NoopTracerProvider;
#[cfg(feature = "logs")]
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

pub use builder::TelemetryBuilder;
pub use error::{SettingError, TelemetryError};
pub use id_generator::{ContinuingIdGenerator, TraceIdGenerator};
#[cfg(feature = "logs")]
pub use log_lines::WithTraceIds;
pub use report::{SignalStats, TelemetryEvent};
pub use sampler::Sampler;
pub use settings::{Batching, Exporter, OtlpExporter, Protocol, Settings, SpanLimits};

use crate::metrics::Gauges;
use crate::propagation::Propagators;
use crate::{
    DownloadLayer, ImageTraceLayer, RequestsInProgress, RequestsInProgressLayer,
    trace::ImageTraceLayerBuilder,
};
use shutdown::{Pipeline, off_runtime};

/// How long [`Telemetry`] tries to flush when it is dropped without a shutdown.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// Running providers for traces and metrics, made from settings.
///
/// Call [`shutdown`](Self::shutdown) at the end of the service. One that is simply dropped tries to
/// flush for a second, blocking the thread it is dropped on.
#[derive(Debug)]
pub struct Telemetry {
    tracer_provider: SdkTracerProvider,
    meter_provider: SdkMeterProvider,
    gauges: Gauges,
    #[cfg(feature = "logs")]
    logger_provider: SdkLoggerProvider,
    settings: Settings,
    in_progress: OnceLock<(RequestsInProgressLayer, RequestsInProgress)>,
    /// `None` when everything is switched off.
    pipeline: Option<Arc<Pipeline>>,
}

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

    /// Whether anything is exported.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.pipeline.is_some()
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
        if !self.is_enabled() {
            return ImageTraceLayerBuilder::disabled();
        }
        let layer = ImageTraceLayer::builder();
        let layer = match self.makes_spans() {
            true => layer.tracer_provider(self.tracer_provider()),
            false => layer.without_traces(),
        };
        let layer = layer
            .propagators(self.propagators())
            .propagate_external(self.settings.propagate_external)
            // None of its samplers looks at attributes.
            .attributes_after_sampling(true)
            .imgproxy_metrics(self.settings.imgproxy_metrics);
        match self.settings.metrics {
            Exporter::None => layer.without_metrics(),
            _ => layer.gauges(self.gauges()),
        }
    }

    /// Without traces the caller's context passes through as it is. Logs have the ids of spans even
    /// if those go nowhere.
    fn makes_spans(&self) -> bool {
        let settings = &self.settings;
        !matches!(
            (&settings.traces, &settings.logs),
            (Exporter::None, Exporter::None)
        )
    }

    /// A layer for a client that downloads, which records with these providers, settings and formats.
    #[must_use]
    pub fn download_layer(&self) -> DownloadLayer {
        if !self.is_enabled() {
            return DownloadLayer::disabled();
        }
        let layer = DownloadLayer::builder();
        let layer = match self.makes_spans() {
            true => layer.tracer_provider(self.tracer_provider()),
            false => layer.tracer_provider(NoopTracerProvider::new()),
        };
        let layer = layer
            .propagators(self.propagators())
            .propagate_external(self.settings.propagate_external);
        match self.settings.metrics {
            Exporter::None => layer.without_metrics().build(),
            _ => layer.meter_provider(self.meter_provider()).build(),
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
        self.pipeline
            .as_ref()
            .map(|pipeline| pipeline.reports.traces.stats())
            .unwrap_or_default()
    }

    /// What became of the data points of metrics so far.
    #[must_use]
    pub fn data_point_stats(&self) -> SignalStats {
        self.pipeline
            .as_ref()
            .map(|pipeline| pipeline.reports.metrics.stats())
            .unwrap_or_default()
    }

    /// What became of the log records so far.
    #[cfg(feature = "logs")]
    #[must_use]
    pub fn log_record_stats(&self) -> SignalStats {
        self.pipeline
            .as_ref()
            .map(|pipeline| pipeline.reports.logs.stats())
            .unwrap_or_default()
    }

    /// Sends everything recorded so far, and ends all threads; later spans are dropped.
    ///
    /// Works on every kind of runtime, and ends within `timeout` plus at most 200 ms whatever the
    /// collector does. A second call returns at once. The shutdown goes on when the future is dropped.
    ///
    /// # Errors
    /// What could not be delivered in time.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        off_runtime(move || pipeline.shutdown(timeout)).await
    }

    /// [`shutdown`](Self::shutdown) for code that is not async.
    ///
    /// # Errors
    /// What could not be delivered in time.
    pub fn shutdown_blocking(&self, timeout: Duration) -> Result<(), TelemetryError> {
        self.pipeline
            .as_ref()
            .map_or(Ok(()), |pipeline| pipeline.shutdown(timeout))
    }

    /// Sends everything recorded so far, and waits for it until `timeout` is over.
    ///
    /// # Errors
    /// What could not be delivered in time.
    pub async fn force_flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        off_runtime(move || pipeline.flush(timeout)).await
    }

    /// [`force_flush`](Self::force_flush) for code that is not async.
    ///
    /// # Errors
    /// What could not be delivered in time.
    pub fn force_flush_blocking(&self, timeout: Duration) -> Result<(), TelemetryError> {
        self.pipeline
            .as_ref()
            .map_or(Ok(()), |pipeline| pipeline.flush(timeout))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // the events of the report say what was lost
        let _ = self.shutdown_blocking(DROP_TIMEOUT);
    }
}
