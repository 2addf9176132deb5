//! From settings to running providers.

use std::sync::OnceLock;

#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{LoggerProviderBuilder, SdkLoggerProvider};
#[cfg(feature = "bound-instruments")]
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::{
    Resource,
    metrics::{MeterProviderBuilder, SdkMeterProvider},
    trace::{Sampler as SdkSampler, SdkTracerProvider, TracerProviderBuilder},
};

#[cfg(feature = "prometheus")]
use super::providers::Pulled;
#[cfg(feature = "page")]
use super::providers::Shown;
#[cfg(feature = "xray")]
use super::xray::XraySampler;
use super::{
    error::TelemetryError,
    event::TelemetryEvent,
    id_generator::{AnyIdGenerator, ContinuingIdGenerator},
    outlets::{Change, Outlets},
    providers::Telemetry,
    resource,
    settings::Settings,
    views::with_view,
};
#[cfg(feature = "_export")]
use super::{
    export::Export,
    pipeline::{Sampling, register},
};
use crate::metrics::Gauges;

impl Telemetry {
    pub(super) fn start(settings: Settings, mut outlets: Outlets) -> Result<Self, TelemetryError> {
        for warning in &settings.warnings {
            let warning = warning.clone();
            outlets
                .events
                .emit(&TelemetryEvent::InvalidSetting { warning });
        }
        let resource = resource::build(&settings);
        let is_on = !settings.is_disabled;
        let own_tracers = outlets.tracer_provider.take().filter(|_| is_on);
        let has_own_tracers = own_tracers.is_some();
        let mut builders = Builders::new(&settings, &resource, has_own_tracers);
        #[cfg(feature = "prometheus")]
        let mut pulled = Pulled::nothing();
        #[cfg(feature = "page")]
        let mut page = Shown::nothing();
        #[cfg(feature = "_export")]
        let own_meters = outlets.meter_provider.take().filter(|_| is_on);
        #[cfg(feature = "_export")]
        let has_own_meters = own_meters.is_some();
        #[cfg(not(feature = "_export"))]
        let has_own_meters = false;
        let measures = settings.measures() || has_own_meters;
        #[cfg(feature = "_export")]
        let export = match settings.is_enabled() || has_own_meters || has_own_tracers {
            true => {
                let mut export = Export::start(&settings, &resource, &mut outlets)?;
                if let Some(Change(change)) = own_meters {
                    builders.meters = change(builders.meters);
                }
                #[cfg(feature = "page")]
                {
                    page = export.page(&resource, &outlets.events)?;
                }
                #[cfg(feature = "xray")]
                if let Some(rules) = builders.rules.take() {
                    export.poll_rules(rules, &outlets.events);
                }
                builders.tracers = export.traces(builders.tracers, &builders.sampler);
                builders.meters = export.metrics(builders.meters)?;
                #[cfg(feature = "prometheus")]
                {
                    let (meters, page) = export.prometheus(builders.meters, &outlets.events)?;
                    builders.meters = meters;
                    pulled = page;
                }
                #[cfg(feature = "logs")]
                {
                    builders.loggers = export.logs(builders.loggers);
                }
                Some(export)
            }
            false => None,
        };
        let attributes_after_sampling = !has_own_tracers && !settings.sampler.sees_attributes();
        if settings.is_enabled() {
            let summary = settings.summary();
            outlets.events.emit(&TelemetryEvent::Started { summary });
        } else if !has_own_tracers && !measures {
            outlets.events.emit(&TelemetryEvent::Off);
        }
        #[cfg(feature = "_otlp")]
        let span_writer = match (&export, attributes_after_sampling) {
            (Some(export), true) => export.span_writer.clone(),
            _ => None,
        };
        if let Some(Change(change)) = own_tracers {
            builders.tracers = change(builders.tracers);
        }
        let tracer_provider = builders.tracers.build();
        let meter_provider = with_view(builders.meters, &settings).build();
        let gauges = Gauges::new(&meter_provider);
        // Readers of the service's own may not be.
        #[cfg(feature = "bound-instruments")]
        let gauges = gauges.read_cumulatively(
            settings.metric_temporality == Temporality::Cumulative && !has_own_meters,
        );
        watch_process(&gauges);
        #[cfg(not(feature = "_export"))]
        let pipeline = None;
        #[cfg(feature = "_export")]
        let pipeline = export.map(|export| {
            let changed = has_own_tracers.then(|| tracer_provider.clone());
            let pipeline = export.into_pipeline(meter_provider.clone(), changed);
            register(&gauges, &settings, &pipeline);
            #[cfg(feature = "page")]
            if let Some(page) = &page.page {
                page.watch(&pipeline, &gauges);
            }
            pipeline
        });
        Ok(Self {
            tracer_provider,
            meter_provider,
            gauges,
            #[cfg(feature = "logs")]
            logger_provider: builders.loggers.build(),
            settings,
            events: outlets.events,
            attributes_after_sampling,
            #[cfg(feature = "_otlp")]
            span_writer,
            has_own_tracers,
            measures,
            in_progress: OnceLock::new(),
            pipeline,
            #[cfg(feature = "prometheus")]
            pulled,
            #[cfg(feature = "page")]
            page,
        })
    }
}

/// The providers before they are built.
struct Builders {
    tracers: TracerProviderBuilder,
    #[cfg(feature = "_export")]
    sampler: SdkSampler,
    meters: MeterProviderBuilder,
    #[cfg(feature = "logs")]
    loggers: LoggerProviderBuilder,
    /// X-Ray's rules, if they decide what is sampled.
    #[cfg(feature = "xray")]
    rules: Option<XraySampler>,
}

impl Builders {
    fn new(settings: &Settings, resource: &Resource, has_own_tracers: bool) -> Self {
        #[cfg(feature = "xray")]
        let rules = XraySampler::of(settings, resource);
        let sampler = match settings.makes_traces() || has_own_tracers {
            true => SdkSampler::from(&settings.sampler),
            false => SdkSampler::AlwaysOff,
        };
        #[cfg(feature = "xray")]
        let sampler = match &rules {
            Some(rules) => SdkSampler::ParentBased(Box::new(rules.clone())),
            None => sampler,
        };
        Self {
            #[cfg(feature = "xray")]
            rules,
            tracers: tracers(settings, sampler.clone()).with_resource(resource.clone()),
            #[cfg(feature = "_export")]
            sampler,
            meters: SdkMeterProvider::builder().with_resource(resource.clone()),
            #[cfg(feature = "logs")]
            loggers: SdkLoggerProvider::builder().with_resource(resource.clone()),
        }
    }
}

/// A builder that records by the settings.
fn tracers(settings: &Settings, sampler: SdkSampler) -> TracerProviderBuilder {
    let ids = AnyIdGenerator::from(settings.trace_id_generator);
    #[cfg(feature = "_export")]
    let sampler = Sampling {
        sampler,
        follows_callers: settings.sampler.follows_callers(),
        #[cfg(feature = "_otlp")]
        at_start: None,
        records_all: settings.trace_page.is_some(),
    };
    // All of these are set, or the SDK would read them from the process environment.
    SdkTracerProvider::builder()
        .with_id_generator(ContinuingIdGenerator::new(ids))
        .with_max_attributes_per_span(settings.span_limits.attributes)
        .with_max_events_per_span(settings.span_limits.events)
        .with_max_links_per_span(settings.span_limits.links)
        .with_max_attributes_per_event(settings.span_limits.attributes_per_event)
        .with_max_attributes_per_link(settings.span_limits.attributes_per_link)
        .with_sampler(sampler)
}

/// The gauges of the process and of the runtime.
#[cfg_attr(
    not(any(feature = "process", feature = "tokio-metrics")),
    expect(unused_variables, reason = "each feature has its own")
)]
fn watch_process(gauges: &Gauges) {
    #[cfg(feature = "process")]
    gauges.process();
    #[cfg(feature = "tokio-metrics")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        gauges.runtime(&runtime);
    }
}
