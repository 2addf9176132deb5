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

// without a transport, half of the plumbing has nothing to carry
#![cfg_attr(not(feature = "_otlp"), allow(dead_code, unused_imports, unused_mut))]

mod builder;
#[cfg(feature = "_otlp")]
#[cfg_attr(not(feature = "otlp-grpc"), allow(dead_code))]
mod client;
#[cfg(feature = "console")]
mod console;
#[cfg(feature = "_otlp")]
mod deliver;
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
#[cfg(feature = "_otlp")]
mod metric_exporter;
mod queue;
mod report;
mod resource;
mod sampler;
mod settings;
mod shutdown;
mod span_processor;
#[cfg(feature = "_otlp")]
mod tls;
#[cfg(feature = "_otlp")]
mod transport;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracerProvider};

pub use builder::TelemetryBuilder;
use builder::{Change, Outlets};
pub use error::{SettingError, TelemetryError};
pub use id_generator::{ContinuingIdGenerator, TraceIdGenerator};
pub use report::{SignalStats, TelemetryEvent};
pub use sampler::Sampler;
pub use settings::{Batching, Exporter, OtlpExporter, Protocol, Settings, SpanLimits};

use id_generator::AnyIdGenerator;
use io_thread::IoThread;
use queue::Queue;
use report::SignalReport;
use settings::Signal;
use shutdown::{Pipeline, Reports, off_runtime};
use span_processor::QueueSpanProcessor;

#[cfg(feature = "console")]
use crate::console::ConsoleExporter;
use crate::metrics::Gauges;
use crate::propagation::Propagators;
use crate::{ImageTraceLayer, RequestsInProgress, RequestsInProgressLayer};

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
    ///
    /// For a filter or a trust decision of your own, give the providers to
    /// [`ImageTraceLayer::builder`].
    #[must_use]
    pub fn trace_layer(&self) -> ImageTraceLayer {
        if !self.is_enabled() {
            return ImageTraceLayer::disabled();
        }
        let layer = ImageTraceLayer::builder()
            .tracer_provider(self.tracer_provider())
            .propagators(self.propagators())
            .propagate_external(self.settings.propagate_external)
            .imgproxy_metrics(self.settings.imgproxy_metrics);
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

    fn start(settings: Settings, outlets: Outlets) -> Result<Self, TelemetryError> {
        let resource = resource::build(&settings);
        let limits = settings.span_limits;
        let mut tracer_provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_id_generator(ContinuingIdGenerator::new(AnyIdGenerator::from(
                settings.trace_id_generator,
            )))
            // all set here, or the SDK would read them from the process environment
            .with_max_attributes_per_span(limits.attributes)
            .with_max_events_per_span(limits.events)
            .with_max_links_per_span(limits.links)
            .with_sampler(match settings.traces {
                Exporter::None => SdkSampler::AlwaysOff,
                _ => settings.sampler.into(),
            });
        if let Some(Change(change)) = outlets.tracer_provider {
            tracer_provider = change(tracer_provider);
        }
        let mut meter_provider = SdkMeterProvider::builder().with_resource(resource.clone());
        if !settings.is_enabled() {
            let meter_provider = meter_provider.build();
            return Ok(Self {
                tracer_provider: tracer_provider.build(),
                gauges: Gauges::new(&meter_provider),
                meter_provider,
                settings,
                in_progress: OnceLock::new(),
                pipeline: None,
            });
        }

        let thread = IoThread::start().map_err(TelemetryError::IoThread)?;
        let reports = Arc::new(Reports {
            traces: Arc::new(SignalReport::new(Signal::Traces, outlets.events.clone())),
            metrics: Arc::new(SignalReport::new(Signal::Metrics, outlets.events.clone())),
        });

        let mut span_batching = settings.span_batching;
        if matches!(settings.traces, Exporter::Console) {
            // somebody is looking
            span_batching.schedule_delay = Duration::from_millis(100);
        }
        let spans = Arc::new(Queue::new(span_batching));
        #[cfg(feature = "_otlp")]
        if let Exporter::Otlp(exporter) = &settings.traces {
            let transport = transport::Transport::new(exporter, Signal::Traces);
            let report = reports.traces.clone();
            thread.spawn(deliver::deliver(
                spans.clone(),
                (&resource).into(),
                transport,
                report,
            ));
        }
        #[cfg(feature = "console")]
        if matches!(settings.traces, Exporter::Console) {
            let exporter = outlets.console.unwrap_or_else(ConsoleExporter::stdout);
            thread.spawn(console::print(
                spans.clone(),
                exporter,
                reports.traces.clone(),
            ));
        }
        if !matches!(settings.traces, Exporter::None) {
            let processor = QueueSpanProcessor::new(spans.clone(), reports.traces.clone());
            tracer_provider = tracer_provider.with_span_processor(processor);
        }

        #[cfg(feature = "_otlp")]
        let metrics = Arc::new(Queue::new(Batching {
            // the latest of cumulative metrics say what the lost ones said
            max_queue_size: 8,
            max_export_batch_size: 1,
            schedule_delay: settings.metric_export_interval,
            export_timeout: settings.metric_export_timeout,
        }));
        #[cfg(feature = "_otlp")]
        if let Exporter::Otlp(exporter) = &settings.metrics {
            let transport = transport::Transport::new(exporter, Signal::Metrics);
            let report = reports.metrics.clone();
            thread.spawn(deliver::deliver(
                metrics.clone(),
                (&resource).into(),
                transport,
                report,
            ));
            let exporter = metric_exporter::QueueMetricExporter::new(
                metrics.clone(),
                reports.metrics.clone(),
                settings.metric_temporality,
            );
            let reader = PeriodicReader::builder(exporter)
                .with_interval(settings.metric_export_interval)
                .build();
            meter_provider = meter_provider.with_reader(reader);
        }

        let meter_provider = meter_provider.build();
        let pipeline = Pipeline {
            thread: Mutex::new(Some(thread)),
            meter_provider: meter_provider.clone(),
            spans,
            #[cfg(feature = "_otlp")]
            metrics,
            reports,
        };
        let gauges = Gauges::new(&meter_provider);
        #[cfg(feature = "process")]
        gauges.process();
        #[cfg(feature = "tokio-metrics")]
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            gauges.runtime(&runtime);
        }
        let summary = settings.summary();
        outlets.events.emit(&TelemetryEvent::Started { summary });
        Ok(Self {
            tracer_provider: tracer_provider.build(),
            gauges,
            meter_provider,
            settings,
            in_progress: OnceLock::new(),
            pipeline: Some(Arc::new(pipeline)),
        })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // the events of the report say what was lost
        let _ = self.shutdown_blocking(DROP_TIMEOUT);
    }
}
