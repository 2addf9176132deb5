//! From the settings of each signal to what exports it.

#[cfg(feature = "_listener")]
use std::net::TcpListener;
use std::sync::{Arc, atomic::AtomicBool};

#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::LoggerProviderBuilder;
#[cfg(feature = "page")]
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::{
    Resource,
    metrics::{
        MeterProviderBuilder, PeriodicReader, SdkMeterProvider, exporter::PushMetricExporter,
    },
    trace::{Sampler as SdkSampler, SdkTracerProvider, TracerProviderBuilder},
};

#[cfg(feature = "console")]
use super::outlets::Terminals;
#[cfg(any(feature = "_otlp", feature = "console", feature = "page"))]
use super::pipeline::EndedSpans;
#[cfg(all(feature = "logs", feature = "page"))]
use super::pipeline::GatheredLogs;
#[cfg(all(
    feature = "logs",
    any(feature = "_otlp", feature = "console", feature = "page")
))]
use super::pipeline::LogLimits;
#[cfg(all(feature = "logs", any(feature = "_otlp", feature = "console")))]
use super::pipeline::QueueLogProcessor;
#[cfg(all(feature = "console", feature = "logs"))]
use super::pipeline::print_logs;
#[cfg(feature = "console")]
use super::pipeline::{MetricTerminal, print_spans};
use super::{
    error::TelemetryError,
    outlets::Outlets,
    overflow::{Onlooker, Overflow, Watched},
    pipeline::{AnyQueue, Gather, IoThread, Pipeline, PushReader, Queue, Reports},
    settings::{Batching, Settings},
    signal::Signal,
};
#[cfg(feature = "prometheus")]
use opentelemetry_sdk::metrics::Temporality;

#[cfg(any(feature = "_listener", feature = "_otlp", feature = "xray"))]
use super::event::Sink;
#[cfg(any(feature = "_otlp", feature = "console"))]
use super::settings::Exporter;
#[cfg(feature = "_listener")]
use super::{
    error::{Consequence, SettingError, SettingWarning},
    event::TelemetryEvent,
    listener::{bind, serve},
};
#[cfg(feature = "_otlp")]
use super::{
    otlp::{Batch, MetricEncoder, SystemRoots, Transport, data_points},
    pipeline::{AtStart, Delivery, Head, Keeper, QueueMetricExporter, Sampling},
    written::SpanWriter,
};
#[cfg(feature = "page")]
use super::{pipeline::Gathered, providers::Shown};
#[cfg(feature = "prometheus")]
use super::{
    prometheus::{self, Naming, Prometheus, Pushed, SharedReader, Source},
    providers::Pulled,
};
#[cfg(feature = "xray")]
use super::{
    settings::Sampler,
    xray::{Poller, XraySampler},
};
#[cfg(all(feature = "console", feature = "logs"))]
use crate::console::ConsoleLogExporter;
#[cfg(feature = "console")]
use crate::console::{ConsoleExporter, ConsoleMetricExporter};
#[cfg(feature = "page")]
use crate::page::{Page, TracePageBuilder};

/// The exporters of all signals while they are being connected.
pub(super) struct Export<'a> {
    settings: &'a Settings,
    thread: IoThread,
    reports: Reports,
    queues: Vec<(Signal, Arc<dyn AnyQueue>)>,
    overflow: Arc<Overflow>,
    /// `None` when no metrics are exported.
    push_reader: Option<PushReader>,
    /// Where spans wait for the end of their request.
    #[cfg(feature = "page")]
    gathered: Option<Arc<Gathered>>,
    /// Decides which traces are exported.
    #[cfg(feature = "_otlp")]
    keeper: Option<Arc<Keeper>>,
    #[cfg(feature = "_otlp")]
    events: Sink,
    /// Writes the spans of layers.
    #[cfg(feature = "_otlp")]
    pub(super) span_writer: Option<SpanWriter>,
    /// What pages can be made of when nobody has asked for them.
    #[cfg(feature = "prometheus")]
    pushed: Option<Pushed>,
    #[cfg(feature = "_otlp")]
    transports: Transports,
    #[cfg(feature = "console")]
    terminals: Terminals,
}

impl<'a> Export<'a> {
    pub(super) fn start(
        settings: &'a Settings,
        resource: &Resource,
        outlets: &mut Outlets,
    ) -> Result<Self, TelemetryError> {
        // What is printed has no resource.
        #[cfg(not(feature = "_otlp"))]
        let _ = resource;
        Ok(Self {
            settings,
            #[cfg(feature = "_otlp")]
            transports: Transports::new(settings, resource)?,
            #[cfg(feature = "console")]
            terminals: std::mem::take(&mut outlets.terminals),
            thread: IoThread::start().map_err(TelemetryError::IoThread)?,
            reports: Reports::new(&outlets.events),
            overflow: Arc::new(Overflow::new(settings.series_limit, &outlets.events)),
            queues: Vec::new(),
            push_reader: None,
            #[cfg(feature = "page")]
            gathered: None,
            #[cfg(feature = "_otlp")]
            keeper: None,
            #[cfg(feature = "_otlp")]
            events: outlets.events.clone(),
            #[cfg(feature = "_otlp")]
            span_writer: None,
            #[cfg(feature = "prometheus")]
            pushed: None,
        })
    }

    /// Keeps the rules of X-Ray up to date.
    #[cfg(feature = "xray")]
    pub(super) fn poll_rules(&self, sampler: XraySampler, events: &Sink) {
        if let Sampler::Xray(from) = &self.settings.sampler {
            let poller = Poller::new(sampler, from, events.clone());
            self.thread.spawn(poller.run());
        }
    }

    /// `sampler`: that of the builder of tracers.
    #[cfg_attr(not(feature = "_otlp"), allow(unused_variables))]
    pub(super) fn traces(
        &mut self,
        tracers: TracerProviderBuilder,
        sampler: &SdkSampler,
    ) -> TracerProviderBuilder {
        match &self.settings.traces {
            #[cfg(feature = "_otlp")]
            Exporter::Otlp(_) => {
                let queue = self.deliver(Signal::Traces, self.settings.span_batching, |_| 1);
                let at_start = self.keep(&queue);
                let tracers = self.sampled(tracers, sampler, at_start.as_ref());
                self.span_writer = Some(SpanWriter::new(
                    self.settings,
                    queue.clone(),
                    at_start,
                    #[cfg(feature = "page")]
                    self.gathered.clone(),
                ));
                tracers.with_span_processor(self.ended_spans(Some(queue)))
            }
            #[cfg(feature = "console")]
            Exporter::Console => {
                let queue = self.queue(Signal::Traces, at_once(self.settings.span_batching));
                let exporter = self.terminals.traces.take();
                let exporter = exporter.unwrap_or_else(ConsoleExporter::stdout);
                let exporter = match self.settings.console_summary {
                    Some(slower_than) => exporter.with_summary(slower_than),
                    None => exporter,
                };
                self.thread.spawn(print_spans(queue.clone(), exporter));
                #[cfg(feature = "_otlp")]
                let tracers = self.sampled(tracers, sampler, self.at_start().as_ref());
                tracers.with_span_processor(self.ended_spans(Some(queue)))
            }
            #[cfg(feature = "page")]
            _ if self.gathered.is_some() => {
                tracers.with_span_processor(self.ended_spans::<Vec<SpanData>>(None))
            }
            _ => tracers,
        }
    }

    /// Takes the spans of the SDK when they have ended.
    #[cfg(any(feature = "_otlp", feature = "console", feature = "page"))]
    fn ended_spans<B>(&self, queue: Option<Arc<Queue<B>>>) -> EndedSpans<B> {
        EndedSpans {
            queue,
            #[cfg(feature = "_otlp")]
            keeper: self.keeper.clone(),
            #[cfg(feature = "_otlp")]
            prints_all: self.settings.keep.is_some(),
            #[cfg(not(feature = "_otlp"))]
            prints_all: false,
            #[cfg(feature = "page")]
            gathered: self.gathered.clone(),
            value_limit: self.settings.span_limits.attribute_value_length,
        }
    }

    /// What decides about spans at their start, where traces are kept or not at their end.
    #[cfg(feature = "_otlp")]
    fn at_start(&self) -> Option<AtStart> {
        let keep = self.settings.keep.as_ref()?;
        Some(AtStart {
            head: Head::new(&self.settings.sampler, keep),
            keeper: None,
        })
    }

    /// Lets traces be kept or not at their end.
    #[cfg(feature = "_otlp")]
    fn keep(&mut self, queue: &Arc<Queue<Batch>>) -> Option<AtStart> {
        let keep = self.settings.keep.clone()?;
        let at_start = self.at_start()?;
        let keeper = Arc::new(Keeper::new(keep, at_start.head, Arc::clone(queue)));
        self.thread
            .spawn(Arc::clone(&keeper).tell(self.events.clone()));
        self.keeper = Some(Arc::clone(&keeper));
        Some(AtStart {
            keeper: Some(keeper),
            ..at_start
        })
    }

    /// Decides about the SDK's spans as about those of the layers.
    #[cfg(feature = "_otlp")]
    fn sampled(
        &self,
        tracers: TracerProviderBuilder,
        sampler: &SdkSampler,
        at_start: Option<&AtStart>,
    ) -> TracerProviderBuilder {
        let Some(at_start) = at_start else {
            return tracers;
        };
        tracers.with_sampler(Sampling {
            sampler: sampler.clone(),
            follows_callers: at_start.head.follows_callers,
            at_start: Some(at_start.clone()),
            records_all: at_start.keeper.is_none() || self.settings.trace_page.is_some(),
        })
    }

    /// The live page, with a listener if the settings ask for one.
    #[cfg(feature = "page")]
    pub(super) fn page(
        &mut self,
        resource: &Resource,
        events: &Sink,
    ) -> Result<Shown, TelemetryError> {
        let Some(asked_for) = &self.settings.trace_page else {
            return Ok(Shown::nothing());
        };
        let page = Page::new(self.settings, asked_for.max_bytes, resource);
        self.gathered = Some(Arc::clone(page.gathered()));
        self.thread.spawn(Arc::clone(&page).tell());
        let wanted = asked_for.listen.as_deref().map(|address| Wanted {
            setting: asked_for.listen_setting(),
            address,
            by_standard: false,
        });
        let listener = bound(wanted, events)?;
        let address = listener.as_ref().and_then(|it| it.local_addr().ok());
        if let Some(listener) = listener {
            let service = TracePageBuilder::new(Some(Arc::clone(&page))).build();
            self.thread.spawn(serve(listener, service, "the live page"));
        }
        Ok(Shown {
            page: Some(page),
            address,
        })
    }

    pub(super) fn metrics(
        &mut self,
        meters: MeterProviderBuilder,
    ) -> Result<MeterProviderBuilder, TelemetryError> {
        let temporality = self.settings.metric_temporality;
        match &self.settings.metrics {
            #[cfg(feature = "_otlp")]
            Exporter::Otlp(_) => {
                let encoder = MetricEncoder::new()?;
                let queue = self.deliver(Signal::Metrics, collections(self.settings), data_points);
                let exporter = QueueMetricExporter::new(encoder, queue, temporality);
                Ok(meters.with_reader(self.reader(exporter)))
            }
            #[cfg(feature = "console")]
            Exporter::Console => {
                let exporter = self.terminals.metrics.take();
                let terminal = MetricTerminal {
                    exporter: exporter.unwrap_or_else(ConsoleMetricExporter::stdout),
                    report: self.reports.of(Signal::Metrics).clone(),
                    temporality,
                };
                Ok(meters.with_reader(self.reader(terminal)))
            }
            _ => Ok(meters),
        }
    }

    /// Lets Prometheus pull metrics, with a listener if the settings ask for one.
    #[cfg(feature = "prometheus")]
    pub(super) fn prometheus(
        &mut self,
        meters: MeterProviderBuilder,
        events: &Sink,
    ) -> Result<(MeterProviderBuilder, Pulled), TelemetryError> {
        let asked_for = self.settings.prometheus.as_ref();
        let naming = Naming {
            namespace: asked_for.and_then(|settings| settings.namespace.clone()),
            imgproxy: self.settings.imgproxy_metrics,
            without_scope: asked_for.is_some_and(|settings| settings.without_scope),
        };
        let overflow = Arc::clone(&self.overflow);
        let Some(settings) = asked_for else {
            // Nothing is measured for pages alone.
            let source = self.pushed.take().map(Source::Pushed);
            let page = source
                .map(|source| prometheus::Page::new(source, naming, events.clone(), overflow));
            let pulled = Pulled {
                service: Prometheus::new(page.map(Arc::new)),
                address: None,
            };
            return Ok((meters, pulled));
        };
        let reader = SharedReader::default();
        let meters = meters.with_reader(reader.clone());
        let page = prometheus::Page::new(Source::Own(reader), naming, events.clone(), overflow);
        let service = Prometheus::new(Some(Arc::new(page)));
        let wanted = settings.listen.as_deref().map(|address| Wanted {
            setting: settings.listen_setting(),
            address,
            by_standard: settings.listens_by_standard(),
        });
        let listener = bound(wanted, events)?;
        let address = listener.as_ref().and_then(|it| it.local_addr().ok());
        if let Some(listener) = listener {
            self.thread
                .spawn(serve(listener, service.clone(), "metrics"));
        }
        Ok((meters, Pulled { service, address }))
    }

    #[cfg(feature = "logs")]
    pub(super) fn logs(&mut self, loggers: LoggerProviderBuilder) -> LoggerProviderBuilder {
        #[cfg(any(feature = "_otlp", feature = "page"))]
        let limits = LogLimits {
            attributes: self.settings.log_attributes as usize,
            value_length: self.settings.log_attribute_value_length,
        };
        #[cfg(feature = "page")]
        let loggers = match self.gathered.clone() {
            Some(gathered) => loggers.with_log_processor(GatheredLogs { gathered, limits }),
            None => loggers,
        };
        match &self.settings.logs {
            #[cfg(feature = "_otlp")]
            Exporter::Otlp(_) => {
                let queue = self.deliver(Signal::Logs, self.settings.log_batching, |_| 1);
                loggers.with_log_processor(QueueLogProcessor::new(queue, limits))
            }
            #[cfg(feature = "console")]
            Exporter::Console => {
                let queue = self.queue(Signal::Logs, at_once(self.settings.log_batching));
                let exporter = self.terminals.logs.take();
                let exporter = exporter.unwrap_or_else(ConsoleLogExporter::stdout);
                self.thread.spawn(print_logs(queue.clone(), exporter));
                loggers.with_log_processor(QueueLogProcessor::new(queue, LogLimits::NONE))
            }
            _ => loggers,
        }
    }

    /// `changed_provider`: the one to which the service has added span processors.
    pub(super) fn into_pipeline(
        self,
        meter_provider: SdkMeterProvider,
        changed_provider: Option<SdkTracerProvider>,
    ) -> Arc<Pipeline> {
        let (thread, queues, reports) = (self.thread, self.queues, self.reports);
        let pipeline = Pipeline::new(
            thread,
            meter_provider,
            self.push_reader,
            changed_provider,
            queues,
            #[cfg(feature = "_otlp")]
            self.keeper,
            reports,
        );
        Arc::new(pipeline)
    }

    fn queue<B: Gather>(&mut self, signal: Signal, limits: Batching) -> Arc<Queue<B>> {
        let report = self.reports.of(signal).clone();
        let queue = Arc::new(Queue::new(limits, self.settings.max_queue_bytes, report));
        self.queues.push((signal, queue.clone()));
        queue
    }

    /// A queue from which the signal's collector gets what comes in. `count` tells how many items the
    /// message of an entry holds.
    #[cfg(feature = "_otlp")]
    fn deliver(
        &mut self,
        signal: Signal,
        limits: Batching,
        count: fn(&[u8]) -> u64,
    ) -> Arc<Queue<Batch>> {
        let queue = self.queue(signal, limits);
        if let Some(transport) = self.transports.take(signal) {
            let delivery = Delivery::new(queue.clone(), transport, count);
            self.thread
                .spawn(delivery.run(self.settings.max_concurrent_exports));
        }
        queue
    }

    fn reader<E: PushMetricExporter>(&mut self, exporter: E) -> PeriodicReader<Watched<E>> {
        let onlooker = Arc::new(Onlooker::default());
        let is_shut_down = Arc::new(AtomicBool::new(false));
        let watched = Watched {
            exporter,
            overflow: Arc::clone(&self.overflow),
            onlooker: Arc::clone(&onlooker),
            is_shut_down: Arc::clone(&is_shut_down),
        };
        let reader = PeriodicReader::builder(watched)
            .with_interval(self.settings.metric_export_interval)
            .build();
        let push_reader = PushReader::new(reader.clone(), is_shut_down);
        #[cfg(feature = "prometheus")]
        if self.settings.metric_temporality == Temporality::Cumulative {
            let reader = push_reader.clone();
            self.pushed = Some(Pushed { reader, onlooker });
        }
        self.push_reader = Some(push_reader);
        reader
    }
}

/// A listener that the settings ask for.
#[cfg(feature = "_listener")]
struct Wanted<'a> {
    /// What errors call its address.
    setting: &'a str,
    address: &'a str,
    /// Whether the address comes from whoever runs the platform, whose mistakes are warnings.
    by_standard: bool,
}

/// The listener that the settings ask for. Where whoever runs the platform has asked for it, the service
/// starts without one that cannot be bound.
#[cfg(feature = "_listener")]
fn bound(wanted: Option<Wanted<'_>>, events: &Sink) -> Result<Option<TcpListener>, TelemetryError> {
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let (setting, address) = (wanted.setting.to_owned(), wanted.address.to_owned());
    match bind(&address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if wanted.by_standard => {
            let problem = format!("cannot listen on {address}: {error}");
            let error = SettingError::unusable(setting, problem);
            let consequence = Consequence::NotListening;
            let warning = SettingWarning { error, consequence };
            events.emit(&TelemetryEvent::InvalidSetting { warning });
            Ok(None)
        }
        Err(source) => Err(TelemetryError::Listener {
            setting,
            address,
            source,
        }),
    }
}

/// The way of each signal to its collector.
#[cfg(feature = "_otlp")]
struct Transports(Vec<(Signal, Transport)>);

#[cfg(feature = "_otlp")]
impl Transports {
    /// Reads all certificates and keys; everything that is wrong with them is named together.
    fn new(settings: &Settings, resource: &Resource) -> Result<Self, TelemetryError> {
        let system = SystemRoots::default();
        let (mut transports, mut errors) = (Vec::new(), Vec::new());
        for signal in Signal::ALL {
            let Exporter::Otlp(exporter) = settings.exporter(signal) else {
                continue;
            };
            match Transport::new(exporter, signal, &system, resource) {
                Ok(transport) => transports.push((signal, transport)),
                // Signals usually share their certificates, and their mistakes.
                Err(error) if errors.contains(&error) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(Self(transports)),
            false => Err(TelemetryError::Settings(errors)),
        }
    }

    fn take(&mut self, signal: Signal) -> Option<Transport> {
        let index = self.0.iter().position(|(of, _)| *of == signal)?;
        Some(self.0.swap_remove(index).1)
    }
}

/// The limits of a queue whose items are printed, because someone is watching.
#[cfg(feature = "console")]
const fn at_once(batching: Batching) -> Batching {
    Batching {
        schedule_delay: std::time::Duration::from_millis(100),
        ..batching
    }
}

/// The limits of the queue of collected metrics.
#[cfg(feature = "_otlp")]
const fn collections(settings: &Settings) -> Batching {
    Batching {
        // Their bytes are bounded. The exporter cuts the batches: one a collection.
        max_queue_size: usize::MAX,
        max_export_batch_size: usize::MAX,
        schedule_delay: settings.metric_export_interval,
        export_timeout: settings.metric_export_timeout,
    }
}
