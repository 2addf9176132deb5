//! Where the spans and measurements of all modes go: one provider of each, as in a service.
//!
//! The peers that make `tracing` spans find their subscriber as they do in a service, as the
//! global default: one for a scope would cost them a clone and a thread local in every request.
//! There is only one global default, so the modes share its provider, and what differs between
//! them, whether a span is sampled, is asked of the sampler, which each request sets before it
//! starts. Ours and the baseline set it too.

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

/// Whether the spans that start on this thread from now on are sampled.
pub(crate) fn sample(sampled: bool) {
    SAMPLED.set(sampled);
}

/// What this thread's requests had to do with spans since the last time this was asked.
pub(crate) fn seen() -> Seen {
    SEEN.replace(Seen::NOTHING)
}

#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) started: u32,
    pub(crate) ended: u32,
    /// Of the last span that ended.
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
    /// Makes the providers and the propagator the global ones, for the peers that take no others.
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

        // As in the docs of tracing-opentelemetry, one of the two ways that the README of
        // axum-tracing-opentelemetry names. The other, `TracingConfig` of
        // init-tracing-opentelemetry, adds a filter and a log to the same layer: these peers are
        // measured without what they would cost.
        let telemetry = tracing_opentelemetry::layer().with_tracer(tracers.tracer("peers"));
        let subscriber = Registry::default().with(telemetry);
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");

        Self {
            tracers,
            meters,
            exporter,
        }
    }

    /// How many requests any mode measured the duration of, so far.
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

/// Where an exporter would take the spans.
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
