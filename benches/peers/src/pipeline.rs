//! The providers that all modes share: one for spans and one for measurements, as in a service.
//!
//! Peers that make `tracing` spans use the global default subscriber, as in a service. A scoped
//! subscriber would cost them a clone and a thread local per request. There is only one global
//! default, so all modes share its provider. They differ in whether spans are sampled, so each request
//! sets the sampler's decision before it starts. This crate's modes and the baseline set it too.

use std::{cell::Cell, hint::black_box, time::Duration};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Link, SpanId, SpanKind, TraceId, TracerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
        data::{AggregatedMetrics, MetricData},
    },
    propagation::TraceContextPropagator,
    trace::{
        Sampler, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
    },
};
use tracing_subscriber::{Registry, layer::SubscriberExt};

thread_local! {
    static SAMPLED: Cell<bool> = const { Cell::new(true) };
    static SEEN: Cell<Seen> = const { Cell::new(Seen::NOTHING) };
}

/// Sets whether spans that start on this thread from now on are sampled.
pub(crate) fn sample(sampled: bool) {
    SAMPLED.set(sampled);
}

/// Returns what this thread's requests did with spans since the last call.
pub(crate) fn seen() -> Seen {
    SEEN.replace(Seen::NOTHING)
}

#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) started: u32,
    pub(crate) ended: u32,
    /// The parent of the last span that ended.
    pub(crate) parent: SpanId,
    pub(crate) attributes: usize,
    pub(crate) events: usize,
}

impl Seen {
    const NOTHING: Self = Self {
        started: 0,
        ended: 0,
        parent: SpanId::INVALID,
        attributes: 0,
        events: 0,
    };
}

pub(crate) struct Pipeline {
    pub(crate) tracers: SdkTracerProvider,
    pub(crate) meters: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Pipeline {
    /// Installs providers and propagator globally, for the peers that only use the global ones.
    pub(crate) fn install() -> Self {
        let tracers = SdkTracerProvider::builder()
            .with_sampler(Switch)
            .with_span_processor(Discard)
            .build();
        let exporter = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(exporter.clone())
            .with_interval(Duration::from_secs(3600))
            .build();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();

        global::set_tracer_provider(tracers.clone());
        global::set_meter_provider(meters.clone());
        global::set_text_map_propagator(TraceContextPropagator::new());

        // The README of axum-tracing-opentelemetry names two ways. This is the one from the docs of
        // tracing-opentelemetry. The other, `TracingConfig` of init-tracing-opentelemetry, adds a
        // filter and a log to the same layer, which would cost these peers more.
        let telemetry = tracing_opentelemetry::layer().with_tracer(tracers.tracer("peers"));
        let subscriber = Registry::default().with(telemetry);
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");

        Self {
            tracers,
            meters,
            exporter,
        }
    }

    /// The number of request durations that all modes have measured so far.
    pub(crate) fn durations(&self) -> u64 {
        self.exporter.reset();
        self.meters.force_flush().expect("an export to memory");
        let exported = self.exporter.get_finished_metrics().expect("an export");
        exported
            .iter()
            .flat_map(|resource| resource.scope_metrics())
            .flat_map(|scope| scope.metrics())
            .filter(|metric| metric.name() == "http.server.request.duration")
            .map(|metric| match metric.data() {
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    histogram.data_points().map(|point| point.count()).sum()
                }
                _ => 0,
            })
            .sum()
    }
}

#[derive(Clone, Debug)]
struct Switch;

impl ShouldSample for Switch {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let seen = SEEN.get();
        SEEN.set(Seen {
            started: seen.started + 1,
            ..seen
        });
        let sampler = if SAMPLED.get() {
            Sampler::AlwaysOn
        } else {
            Sampler::AlwaysOff
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Drops spans where an exporter would take them.
#[derive(Debug)]
struct Discard;

impl SpanProcessor for Discard {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let seen = SEEN.get();
        SEEN.set(Seen {
            ended: seen.ended + 1,
            parent: span.parent_span_id,
            attributes: span.attributes.len(),
            events: span.events.len(),
            ..seen
        });
        drop(black_box(span));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
