//! Metrics of telemetry itself: what becomes of spans, data points and log records.
//!
//! The names are those of the OpenTelemetry SDK's own metrics:
//! <https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/>

use std::sync::Arc;

use opentelemetry::KeyValue;

use super::{queue::AnyQueue, report::SignalReport, shutdown::Pipeline};
use crate::{
    metrics::{Gauges, Metric},
    telemetry::{
        settings::{Exporter, Protocol, Settings},
        signal::Signal,
    },
};

/// What the metrics of a signal are called.
struct Names {
    unit: &'static str,
    exporter: &'static str,
    exported: &'static str,
    /// The SDK's reader of metrics is no processor.
    processor: Option<ProcessorNames>,
}

struct ProcessorNames {
    processor: &'static str,
    processed: &'static str,
    queue_size: &'static str,
    queue_capacity: &'static str,
}

const SPANS: Names = Names {
    unit: "{span}",
    exporter: "span_exporter",
    exported: "otel.sdk.exporter.span.exported",
    processor: Some(ProcessorNames {
        processor: "batching_span_processor",
        processed: "otel.sdk.processor.span.processed",
        queue_size: "otel.sdk.processor.span.queue.size",
        queue_capacity: "otel.sdk.processor.span.queue.capacity",
    }),
};

const DATA_POINTS: Names = Names {
    unit: "{data_point}",
    exporter: "metric_exporter",
    exported: "otel.sdk.exporter.metric_data_point.exported",
    processor: None,
};

const LOG_RECORDS: Names = Names {
    unit: "{log_record}",
    exporter: "log_exporter",
    exported: "otel.sdk.exporter.log.exported",
    processor: Some(ProcessorNames {
        processor: "batching_log_processor",
        processed: "otel.sdk.processor.log.processed",
        queue_size: "otel.sdk.processor.log.queue.size",
        queue_capacity: "otel.sdk.processor.log.queue.capacity",
    }),
};

/// `otel.sdk.exporter.*` and `otel.sdk.processor.*` of all signals that go to a collector.
pub(crate) fn register(gauges: &Gauges, settings: &Settings, pipeline: &Pipeline) {
    for (signal, names) in [
        (Signal::Traces, SPANS),
        (Signal::Metrics, DATA_POINTS),
        (Signal::Logs, LOG_RECORDS),
    ] {
        let Exporter::Otlp(exporter) = settings.exporter(signal) else {
            continue;
        };
        let report = pipeline.reports().of(signal);
        register_exporter(gauges, exporter.protocol, report, &names);
        if let (Some(processor), Some(queue)) = (&names.processor, pipeline.queue(signal)) {
            register_processor(gauges, report, queue, names.unit, processor);
        }
    }
}

fn register_exporter(
    gauges: &Gauges,
    protocol: Protocol,
    report: &Arc<SignalReport>,
    names: &Names,
) {
    let protocol = match protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http | Protocol::Https => "http",
    };
    let name = || Metric {
        name: names.exported,
        unit: names.unit,
        description: "The number of items for which the export has finished, successful or failed.",
    };
    let taken = component(&format!("otlp_{protocol}_{}", names.exporter));
    let refused = with_error(&taken, "_OTHER");
    let counts = Arc::clone(report);
    gauges.counter(name(), taken, move || Some(counts.stats().exported));
    let counts = Arc::clone(report);
    gauges.counter(name(), refused, move || Some(counts.stats().failed));
}

fn register_processor(
    gauges: &Gauges,
    report: &Arc<SignalReport>,
    queue: &Arc<dyn AnyQueue>,
    unit: &'static str,
    names: &ProcessorNames,
) {
    let name = || Metric {
        name: names.processed,
        unit,
        description: "The number of items for which the processing has finished, successful or failed.",
    };
    let attributes = component(names.processor);
    let dropped = with_error(&attributes, "queue_full");
    let late = with_error(&attributes, "already_shutdown");
    let counts = Arc::clone(report);
    gauges.counter(name(), attributes.clone(), move || {
        let stats = counts.stats();
        Some(stats.exported + stats.failed)
    });
    let counts = Arc::clone(report);
    gauges.counter(name(), dropped, move || Some(counts.stats().dropped));
    let counts = Arc::clone(report);
    gauges.counter(name(), late, move || Some(counts.stats().after_shutdown));
    let size = Arc::clone(queue);
    gauges.up_down_counter(
        Metric {
            name: names.queue_size,
            unit,
            description: "The number of items in the queue.",
        },
        attributes.clone(),
        move || size.pending().try_into().ok(),
    );
    let capacity = queue.limits().max_queue_size;
    gauges.up_down_counter(
        Metric {
            name: names.queue_capacity,
            unit,
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
    use std::{
        sync::Weak,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::telemetry::Telemetry;

    /// Waits for what a thread may still be about to drop.
    fn assert_dropped<T: ?Sized>(what: &str, held: &Weak<T>) {
        let deadline = Instant::now() + Duration::from_secs(30);
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
        let queue = Arc::downgrade(pipeline.queue(Signal::Traces).unwrap());
        let report = Arc::downgrade(pipeline.reports().of(Signal::Traces));
        assert!(queue.strong_count() > 1 && report.strong_count() > 1);
        drop(telemetry);
        assert_dropped("the queue", &queue);
        assert_dropped("the report", &report);
        drop(meters);
    }
}
