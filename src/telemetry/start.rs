//! From resolved settings to running providers.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use opentelemetry_sdk::Resource;
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::SdkLoggerProvider;
#[cfg(any(feature = "_otlp", feature = "console"))]
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracerProvider, TracerProviderBuilder};

use super::builder::{Change, Outlets};
#[cfg(all(feature = "console", feature = "logs"))]
use super::console::print_logs;
#[cfg(feature = "console")]
use super::console::{MetricTerminal, print};
#[cfg(feature = "_otlp")]
use super::deliver::deliver;
#[cfg(feature = "_otlp")]
use super::encode::SpanEncoder;
use super::error::TelemetryError;
use super::id_generator::AnyIdGenerator;
use super::io_thread::IoThread;
use super::item::Item;
#[cfg(feature = "logs")]
use super::logs::{LogEncoder, QueueLogProcessor};
#[cfg(feature = "_otlp")]
use super::metric_exporter::QueueMetricExporter;
use super::queue::Queue;
use super::report::SignalReport;
#[cfg(feature = "_otlp")]
use super::settings::OtlpExporter;
use super::settings::Signal;
use super::shutdown::{Pipeline, Reports};
use super::span_processor::QueueSpanProcessor;
#[cfg(feature = "_otlp")]
use super::transport::Transport;
use super::{
    Batching, ContinuingIdGenerator, Exporter, Settings, Telemetry, TelemetryEvent, resource,
    self_metrics,
};
#[cfg(all(feature = "console", feature = "logs"))]
use crate::console::ConsoleLogExporter;
#[cfg(feature = "console")]
use crate::console::{ConsoleExporter, ConsoleMetricExporter};
use crate::metrics::Gauges;

impl Telemetry {
    pub(super) fn start(settings: Settings, outlets: Outlets) -> Result<Self, TelemetryError> {
        let resource = resource::build(&settings);
        let mut tracers = tracer_provider(&settings, &resource);
        let mut meters = SdkMeterProvider::builder().with_resource(resource.clone());
        #[cfg(feature = "logs")]
        let mut loggers = SdkLoggerProvider::builder().with_resource(resource.clone());
        let mut pipeline = None;

        if settings.is_enabled() {
            let thread = IoThread::start().map_err(TelemetryError::IoThread)?;
            let report = |signal| Arc::new(SignalReport::new(signal, outlets.events.clone()));
            let reports = Reports {
                traces: report(Signal::Traces),
                metrics: report(Signal::Metrics),
                logs: report(Signal::Logs),
            };
            let io = Io { thread, resource };

            let spans = Arc::new(Queue::new(batching(
                settings.span_batching,
                &settings.traces,
            )));
            if !matches!(settings.traces, Exporter::None) {
                #[cfg(feature = "_otlp")]
                if let Exporter::Otlp(exporter) = &settings.traces {
                    let encoder = SpanEncoder::new(exporter, &io.resource)?;
                    let report = &reports.traces;
                    io.deliver(exporter, Signal::Traces, encoder, &spans, report);
                }
                #[cfg(feature = "console")]
                if matches!(settings.traces, Exporter::Console) {
                    let exporter = outlets.console.unwrap_or_else(ConsoleExporter::stdout);
                    let report = reports.traces.clone();
                    io.thread.spawn(print(spans.clone(), exporter, report));
                }
                let processor = QueueSpanProcessor::new(spans.clone(), reports.traces.clone());
                tracers = tracers.with_span_processor(processor);
            }

            #[cfg(feature = "_otlp")]
            let metrics = Arc::new(Queue::new(metric_batching(&settings)));
            #[cfg(feature = "_otlp")]
            if let Exporter::Otlp(exporter) = &settings.metrics {
                let report = &reports.metrics;
                io.deliver(exporter, Signal::Metrics, (), &metrics, report);
                let temporality = settings.metric_temporality;
                let exporter = QueueMetricExporter::new(
                    exporter,
                    metrics.clone(),
                    report.clone(),
                    temporality,
                )?;
                let reader = PeriodicReader::builder(exporter)
                    .with_interval(settings.metric_export_interval)
                    .build();
                meters = meters.with_reader(reader);
            }
            #[cfg(feature = "console")]
            if matches!(settings.metrics, Exporter::Console) {
                let exporter = outlets.console_metrics;
                let terminal = MetricTerminal {
                    exporter: exporter.unwrap_or_else(ConsoleMetricExporter::stdout),
                    report: reports.metrics.clone(),
                    temporality: settings.metric_temporality,
                };
                let reader = PeriodicReader::builder(terminal)
                    .with_interval(settings.metric_export_interval)
                    .build();
                meters = meters.with_reader(reader);
            }

            #[cfg(feature = "logs")]
            let logs = Arc::new(Queue::new(batching(settings.log_batching, &settings.logs)));
            #[cfg(feature = "logs")]
            if let Exporter::Otlp(exporter) = &settings.logs {
                let encoder = LogEncoder::new(exporter, &io.resource)?;
                io.deliver(exporter, Signal::Logs, encoder, &logs, &reports.logs);
            }
            #[cfg(all(feature = "console", feature = "logs"))]
            if matches!(settings.logs, Exporter::Console) {
                let exporter = outlets.console_logs;
                let exporter = exporter.unwrap_or_else(ConsoleLogExporter::stdout);
                let report = reports.logs.clone();
                io.thread.spawn(print_logs(logs.clone(), exporter, report));
            }
            #[cfg(feature = "logs")]
            if !matches!(settings.logs, Exporter::None) {
                let processor = QueueLogProcessor::new(logs.clone(), reports.logs.clone());
                loggers = loggers.with_log_processor(processor);
            }

            pipeline = Some(Pipeline {
                thread: Mutex::new(Some(io.thread)),
                meter_provider: SdkMeterProvider::default(),
                spans,
                #[cfg(feature = "_otlp")]
                metrics,
                #[cfg(feature = "logs")]
                logs,
                reports,
            });
            let summary = settings.summary();
            outlets.events.emit(&TelemetryEvent::Started { summary });
        }
        if let Some(Change(change)) = outlets.tracer_provider {
            tracers = change(tracers);
        }

        let meter_provider = meters.build();
        let gauges = Gauges::new(&meter_provider);
        if let Some(pipeline) = &mut pipeline {
            pipeline.meter_provider = meter_provider.clone();
            self_metrics::register(&gauges, &settings, pipeline);
        }
        #[cfg(feature = "process")]
        gauges.process();
        #[cfg(feature = "tokio-metrics")]
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            gauges.runtime(&runtime);
        }
        Ok(Self {
            tracer_provider: tracers.build(),
            meter_provider,
            gauges,
            #[cfg(feature = "logs")]
            logger_provider: loggers.build(),
            settings,
            in_progress: OnceLock::new(),
            pipeline: pipeline.map(Arc::new),
        })
    }
}

/// What the tasks of the I/O thread are started with.
struct Io {
    thread: IoThread,
    resource: Resource,
}

#[cfg(feature = "_otlp")]
impl Io {
    /// Sends what comes into `queue` to the signal's collector.
    fn deliver<T: Item>(
        &self,
        exporter: &OtlpExporter,
        signal: Signal,
        encoder: T::Encoder,
        queue: &Arc<Queue<T>>,
        report: &Arc<SignalReport>,
    ) {
        let transport = Transport::new(exporter, signal);
        let delivery = deliver(queue.clone(), encoder, transport, report.clone());
        self.thread.spawn(delivery);
    }
}

fn tracer_provider(settings: &Settings, resource: &Resource) -> TracerProviderBuilder {
    let ids = AnyIdGenerator::from(settings.trace_id_generator);
    // all set here, or the SDK would read them from the process environment
    SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_id_generator(ContinuingIdGenerator::new(ids))
        .with_max_attributes_per_span(settings.span_limits.attributes)
        .with_max_events_per_span(settings.span_limits.events)
        .with_max_links_per_span(settings.span_limits.links)
        .with_sampler(match settings.traces {
            Exporter::None => SdkSampler::AlwaysOff,
            _ => settings.sampler.into(),
        })
}

fn batching(mut batching: Batching, exporter: &Exporter) -> Batching {
    if matches!(exporter, Exporter::Console) {
        // somebody is looking
        batching.schedule_delay = Duration::from_millis(100);
    }
    batching
}

const fn metric_batching(settings: &Settings) -> Batching {
    Batching {
        // the latest of cumulative metrics say what the lost ones said
        max_queue_size: 8,
        max_export_batch_size: 1,
        schedule_delay: settings.metric_export_interval,
        export_timeout: settings.metric_export_timeout,
    }
}
