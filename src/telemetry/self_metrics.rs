//! Metrics that telemetry itself knows: what becomes of spans and logs.
//!
//! The names are those of the OpenTelemetry SDK's own metrics:
//! <https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/>

use std::sync::Arc;

use opentelemetry::KeyValue;

use super::item::Item;
use super::queue::Queue;
use super::report::SignalReport;
use super::settings::{Exporter, Settings};
use super::shutdown::Pipeline;
use crate::Protocol;
use crate::metrics::{Gauges, Metric};

/// What an exporter sends.
struct Exported {
    exporter: &'static str,
    unit: &'static str,
    exported: &'static str,
}

/// What a processor passes on.
struct Processed {
    processor: &'static str,
    unit: &'static str,
    processed: &'static str,
    queue_size: &'static str,
    queue_capacity: &'static str,
}

/// `otel.sdk.exporter.*` and `otel.sdk.processor.*` of all signals that go to a collector.
pub(super) fn register(gauges: &Gauges, settings: &Settings, pipeline: &Pipeline) {
    let reports = &pipeline.reports;
    exporter(
        gauges,
        &settings.traces,
        &reports.traces,
        &Exported {
            exporter: "span_exporter",
            unit: "{span}",
            exported: "otel.sdk.exporter.span.exported",
        },
    );
    processor(
        gauges,
        &settings.traces,
        &reports.traces,
        &pipeline.spans,
        &Processed {
            processor: "batching_span_processor",
            unit: "{span}",
            processed: "otel.sdk.processor.span.processed",
            queue_size: "otel.sdk.processor.span.queue.size",
            queue_capacity: "otel.sdk.processor.span.queue.capacity",
        },
    );
    exporter(
        gauges,
        &settings.metrics,
        &reports.metrics,
        &Exported {
            exporter: "metric_exporter",
            unit: "{data_point}",
            exported: "otel.sdk.exporter.metric_data_point.exported",
        },
    );
    #[cfg(feature = "logs")]
    {
        exporter(
            gauges,
            &settings.logs,
            &reports.logs,
            &Exported {
                exporter: "log_exporter",
                unit: "{log_record}",
                exported: "otel.sdk.exporter.log.exported",
            },
        );
        processor(
            gauges,
            &settings.logs,
            &reports.logs,
            &pipeline.logs,
            &Processed {
                processor: "batching_log_processor",
                unit: "{log_record}",
                processed: "otel.sdk.processor.log.processed",
                queue_size: "otel.sdk.processor.log.queue.size",
                queue_capacity: "otel.sdk.processor.log.queue.capacity",
            },
        );
    }
}

fn exporter(gauges: &Gauges, exporter: &Exporter, report: &Arc<SignalReport>, what: &Exported) {
    let Exporter::Otlp(exporter) = exporter else {
        return;
    };
    let protocol = match exporter.protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http | Protocol::Https => "http",
    };
    let name = || Metric {
        name: what.exported,
        unit: what.unit,
        description: "The number of items for which the export has finished, successful or failed.",
    };
    let taken = component(&format!("otlp_{protocol}_{}", what.exporter));
    let refused = with_error(&taken, "_OTHER");
    let counts = Arc::clone(report);
    gauges.counter(name(), taken, move || Some(counts.stats().exported));
    let counts = Arc::clone(report);
    gauges.counter(name(), refused, move || Some(counts.stats().failed));
}

fn processor<T: Item>(
    gauges: &Gauges,
    exporter: &Exporter,
    report: &Arc<SignalReport>,
    queue: &Arc<Queue<T>>,
    what: &Processed,
) {
    let Exporter::Otlp(_) = exporter else { return };
    let name = || Metric {
        name: what.processed,
        unit: what.unit,
        description: "The number of items for which the processing has finished, successful or failed.",
    };
    let attributes = component(what.processor);
    let dropped = with_error(&attributes, "queue_full");
    let counts = Arc::clone(report);
    gauges.counter(name(), attributes.clone(), move || {
        let stats = counts.stats();
        Some(stats.exported + stats.failed)
    });
    let counts = Arc::clone(report);
    gauges.counter(name(), dropped, move || Some(counts.stats().dropped));
    let size = Arc::clone(queue);
    gauges.up_down_counter(
        Metric {
            name: what.queue_size,
            unit: what.unit,
            description: "The number of items in the queue.",
        },
        attributes.clone(),
        move || Some(size.pending()),
    );
    let capacity = queue.limits().max_queue_size;
    gauges.up_down_counter(
        Metric {
            name: what.queue_capacity,
            unit: what.unit,
            description: "The number of items the queue can hold.",
        },
        attributes,
        move || capacity.try_into().ok(),
    );
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

#[cfg(all(test, feature = "_otlp"))]
mod tests {
    use std::{sync::Weak, time::Instant};

    use super::*;
    use crate::Telemetry;

    /// Waits for what a thread may still be about to drop.
    fn assert_dropped<T>(what: &str, held: &Weak<T>) {
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        while held.strong_count() > 0 {
            assert!(Instant::now() < deadline, "{what} is kept");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_meter_provider_that_lives_on_keeps_no_queue_and_no_report() {
        let telemetry = Telemetry::builder()
            .vars([("", ""); 0])
            .endpoint("http://127.0.0.1:9")
            .metrics(true)
            .build()
            .unwrap();
        let meters = telemetry.meter_provider();
        let pipeline = telemetry.pipeline.as_ref().unwrap();
        let queue = Arc::downgrade(&pipeline.spans);
        let report = Arc::downgrade(&pipeline.reports.traces);
        assert!(queue.strong_count() > 1 && report.strong_count() > 1);
        drop(telemetry);
        assert_dropped("the queue", &queue);
        assert_dropped("the report", &report);
        drop(meters);
    }
}
