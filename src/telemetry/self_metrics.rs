//! Metrics that telemetry itself knows: what becomes of spans and logs.
//!
//! The names are those of the OpenTelemetry SDK's own metrics:
//! <https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/>

use std::sync::Arc;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::item::Item;
use super::queue::Queue;
use super::report::SignalReport;
use super::settings::{Exporter, Settings};
use super::shutdown::Pipeline;
use crate::Protocol;

fn meter(provider: &SdkMeterProvider) -> Meter {
    let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"));
    provider.meter_with_scope(scope.with_version(env!("CARGO_PKG_VERSION")).build())
}

/// `otel.sdk.exporter.*` and `otel.sdk.processor.*` of all signals that go to a collector.
pub(super) fn pipeline(provider: &SdkMeterProvider, settings: &Settings, pipeline: &Pipeline) {
    let meter = meter(provider);
    let reports = &pipeline.reports;
    exporter(&meter, &settings.traces, &reports.traces, "span", "{span}");
    processor(
        &meter,
        &settings.traces,
        &reports.traces,
        &pipeline.spans,
        "span",
        "{span}",
    );
    exporter(
        &meter,
        &settings.metrics,
        &reports.metrics,
        "metric_data_point",
        "{data_point}",
    );
    #[cfg(feature = "logs")]
    {
        exporter(&meter, &settings.logs, &reports.logs, "log", "{log_record}");
        processor(
            &meter,
            &settings.logs,
            &reports.logs,
            &pipeline.logs,
            "log",
            "{log_record}",
        );
    }
}

fn exporter(
    meter: &Meter,
    exporter: &Exporter,
    report: &Arc<SignalReport>,
    what: &str,
    unit: &'static str,
) {
    let Exporter::Otlp(exporter) = exporter else {
        return;
    };
    let protocol = match exporter.protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http | Protocol::Https => "http",
    };
    let kind = match what {
        "metric_data_point" => "metric",
        other => other,
    };
    let taken = component(&format!("otlp_{protocol}_{kind}_exporter"));
    let refused = with_error(&taken, "_OTHER");
    let report = report.clone();
    meter
        .u64_observable_counter(format!("otel.sdk.exporter.{what}.exported"))
        .with_unit(unit)
        .with_description(
            "The number of items for which the export has finished, successful or failed.",
        )
        .with_callback(move |counter| {
            let stats = report.stats();
            counter.observe(stats.exported, &taken);
            counter.observe(stats.failed, &refused);
        })
        .build();
}

fn processor<T: Item>(
    meter: &Meter,
    exporter: &Exporter,
    report: &Arc<SignalReport>,
    queue: &Arc<Queue<T>>,
    what: &str,
    unit: &'static str,
) {
    let Exporter::Otlp(_) = exporter else { return };
    let attributes = component(&format!("batching_{what}_processor"));
    let (passed_on, dropped) = (attributes.clone(), with_error(&attributes, "queue_full"));
    let report = report.clone();
    meter
        .u64_observable_counter(format!("otel.sdk.processor.{what}.processed"))
        .with_unit(unit)
        .with_description(
            "The number of items for which the processing has finished, successful or failed.",
        )
        .with_callback(move |counter| {
            let stats = report.stats();
            counter.observe(stats.exported + stats.failed, &passed_on);
            counter.observe(stats.dropped, &dropped);
        })
        .build();
    let (size, size_attributes) = (queue.clone(), attributes.clone());
    meter
        .i64_observable_up_down_counter(format!("otel.sdk.processor.{what}.queue.size"))
        .with_unit(unit)
        .with_description("The number of items in the queue.")
        .with_callback(move |counter| counter.observe(size.pending(), &size_attributes))
        .build();
    let capacity = i64::try_from(queue.limits().max_queue_size).unwrap_or(i64::MAX);
    meter
        .i64_observable_up_down_counter(format!("otel.sdk.processor.{what}.queue.capacity"))
        .with_unit(unit)
        .with_description("The number of items the queue can hold.")
        .with_callback(move |counter| counter.observe(capacity, &attributes))
        .build();
}

fn component(kind: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("otel.component.type", kind.to_owned()),
        KeyValue::new("otel.component.name", format!("{kind}/0")),
    ]
}

fn with_error(attributes: &[KeyValue], error: &'static str) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.push(KeyValue::new("error.type", error));
    attributes
}
