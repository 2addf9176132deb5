//! Metrics of telemetry itself: what becomes of spans, data points and log records.
//!
//! The names are those of the OpenTelemetry SDK's own metrics:
//! <https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/>

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use opentelemetry::KeyValue;

use super::{queue::AnyQueue, report::SignalReport, shutdown::Pipeline};
use crate::{
    metrics::{Gauges, Metric},
    semconv::server,
    telemetry::{
        settings::{Exporter, OtlpExporter, Protocol, Settings},
        signal::Signal,
    },
};

/// What the metrics of a signal are called.
struct Names {
    exporter: &'static str,
    exported: Metric,
    /// The SDK's reader of metrics is no processor.
    processor: Option<ProcessorNames>,
}

struct ProcessorNames {
    processor: &'static str,
    processed: Metric,
    queue_size: Metric,
    queue_capacity: Metric,
}

const SPANS: Names = Names {
    exporter: "span_exporter",
    exported: Metric {
        name: "otel.sdk.exporter.span.exported",
        unit: "{span}",
        description: "The number of spans for which the export has finished, either successful or failed.",
    },
    processor: Some(ProcessorNames {
        processor: "batching_span_processor",
        processed: Metric {
            name: "otel.sdk.processor.span.processed",
            unit: "{span}",
            description: "The number of spans for which the processing has finished, either successful or failed.",
        },
        queue_size: Metric {
            name: "otel.sdk.processor.span.queue.size",
            unit: "{span}",
            description: "The number of spans in the queue of a given instance of an SDK span processor.",
        },
        queue_capacity: Metric {
            name: "otel.sdk.processor.span.queue.capacity",
            unit: "{span}",
            description: "The maximum number of spans the queue of a given instance of an SDK span processor can hold.",
        },
    }),
};

const DATA_POINTS: Names = Names {
    exporter: "metric_exporter",
    exported: Metric {
        name: "otel.sdk.exporter.metric_data_point.exported",
        unit: "{data_point}",
        description: "The number of metric data points for which the export has finished, either successful or failed.",
    },
    processor: None,
};

const LOG_RECORDS: Names = Names {
    exporter: "log_exporter",
    exported: Metric {
        name: "otel.sdk.exporter.log.exported",
        unit: "{log_record}",
        description: "The number of log records for which the export has finished, either successful or failed.",
    },
    processor: Some(ProcessorNames {
        processor: "batching_log_processor",
        processed: Metric {
            name: "otel.sdk.processor.log.processed",
            unit: "{log_record}",
            description: "The number of log records for which the processing has finished, either successful or failed.",
        },
        queue_size: Metric {
            name: "otel.sdk.processor.log.queue.size",
            unit: "{log_record}",
            description: "The number of log records in the queue of a given instance of an SDK log processor.",
        },
        queue_capacity: Metric {
            name: "otel.sdk.processor.log.queue.capacity",
            unit: "{log_record}",
            description: "The maximum number of log records the queue of a given instance of an SDK Log Record processor can hold.",
        },
    }),
};

/// `otel.sdk.exporter.*` and `otel.sdk.processor.*` of all signals that go to a collector.
pub(crate) fn register(gauges: &Gauges, settings: &Settings, pipeline: &Pipeline) {
    /// Several pipelines of a process have the same resource: a number tells their components apart.
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let instance = STARTED.fetch_add(1, Relaxed);
    for (signal, names) in [
        (Signal::Traces, SPANS),
        (Signal::Metrics, DATA_POINTS),
        (Signal::Logs, LOG_RECORDS),
    ] {
        let Exporter::Otlp(exporter) = settings.exporter(signal) else {
            continue;
        };
        let report = pipeline.reports().of(signal);
        let mut attributes = component(&exporter_type(exporter, names.exporter), instance);
        attributes.extend(collector(exporter));
        let counts = Arc::clone(report);
        gauges.outcomes(names.exported, attributes, move || counts.export_outcomes());
        if let (Some(names), Some(queue)) = (names.processor, pipeline.queue(signal)) {
            let attributes = component(names.processor, instance);
            register_processor(gauges, report, queue, &names, attributes);
        }
    }
}

fn register_processor(
    gauges: &Gauges,
    report: &Arc<SignalReport>,
    queue: &Arc<dyn AnyQueue>,
    names: &ProcessorNames,
    attributes: Vec<KeyValue>,
) {
    let counts = Arc::clone(report);
    gauges.outcomes(names.processed, attributes.clone(), move || {
        counts.processing_outcomes()
    });
    let size = Arc::clone(queue);
    gauges.up_down_counter(names.queue_size, attributes.clone(), move || {
        size.pending().try_into().ok()
    });
    let capacity = queue.limits().max_queue_size;
    gauges.up_down_counter(names.queue_capacity, attributes, move || {
        capacity.try_into().ok()
    });
}

/// `otlp_grpc_span_exporter` and the like.
fn exporter_type(exporter: &OtlpExporter, of: &str) -> String {
    let protocol = match exporter.protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http | Protocol::Https => "http",
    };
    format!("otlp_{protocol}_{of}")
}

fn component(kind: &str, instance: usize) -> Vec<KeyValue> {
    vec![
        KeyValue::new("otel.component.type", kind.to_owned()),
        KeyValue::new("otel.component.name", format!("{kind}/{instance}")),
    ]
}

/// The address and the port of an exporter's collector.
fn collector(exporter: &OtlpExporter) -> Vec<KeyValue> {
    let Some((host, port)) = server(&exporter.endpoint, || None) else {
        return Vec::new();
    };
    let port = port.unwrap_or(if exporter.uses_tls() { 443 } else { 80 });
    vec![
        KeyValue::new("server.address", host.to_owned()),
        KeyValue::new("server.port", i64::from(port)),
    ]
}

#[cfg(all(test, feature = "_otlp"))]
mod tests {
    use std::{
        sync::Weak,
        time::{Duration, Instant},
    };

    use opentelemetry::StringValue;

    use super::{super::queue::Queue, *};
    use crate::telemetry::{Telemetry, event::Sink, settings::Batching};

    /// Waits for what a thread may still be about to drop.
    fn assert_dropped<T: ?Sized>(what: &str, held: &Weak<T>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while held.strong_count() > 0 {
            assert!(Instant::now() < deadline, "{what} is kept");
            std::thread::yield_now();
        }
    }

    // faults A16
    #[tokio::test]
    async fn what_was_given_up_in_the_queue_was_not_handed_to_the_exporter() {
        let report = Arc::new(SignalReport::new(Signal::Traces, Sink::default()));
        let limits = Batching {
            max_export_batch_size: 2,
            ..Settings::default().span_batching
        };
        let queue = Arc::new(Queue::<Vec<u8>>::new(
            limits,
            usize::MAX,
            Arc::clone(&report),
        ));
        (1..=3).for_each(|item| queue.push(1, 1, |batch| batch.push(item)));
        let taken = queue.next().await;
        assert_eq!(taken.content, [1, 2]);
        queue.abandon();
        let named = |outcomes: Vec<(Option<StringValue>, u64)>| {
            let outcomes = outcomes.into_iter().filter(|(_, count)| *count > 0);
            let named = outcomes.map(|(kind, count)| (kind.map(String::from), count));
            named.collect::<Vec<_>>()
        };
        let timeout = || Some("timeout".to_owned());
        assert_eq!(
            named(report.processing_outcomes()),
            [(None, 2), (timeout(), 1)]
        );
        assert_eq!(named(report.export_outcomes()), [(timeout(), 2)]);
        assert_eq!(report.stats().failed, 3);
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
