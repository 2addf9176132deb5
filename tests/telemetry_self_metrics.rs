//! What becomes of spans is exported as metrics, under the names of the OpenTelemetry SDK's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::StatusCode;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value};
use tonic::Code;
use tower_image_trace::{Protocol, Telemetry};

use crate::support::otlp::{Behaviour, OtlpServer, PATIENCE, attributes};

/// The latest value for each set of attributes.
fn points(metrics: &[Metric], name: &str) -> BTreeMap<String, i64> {
    let named = metrics.iter().filter(|metric| metric.name == name);
    let points = named.flat_map(|metric| match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.clone(),
        other => panic!("{name}: {other:?}"),
    });
    let point = |point: opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let attributes = attributes(&point.attributes);
        let error = attributes.get("error.type").cloned().unwrap_or_default();
        let Some(Value::AsInt(value)) = point.value else {
            panic!("{point:?}")
        };
        let component = &attributes["otel.component.type"];
        assert_eq!(attributes["otel.component.name"], format!("{component}/0"));
        (format!("{component} {error}"), value)
    };
    points.map(point).collect()
}

#[test]
fn spans_exported_and_dropped() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([("OTEL_BSP_MAX_QUEUE_SIZE", "100")])
            .endpoint(server.endpoint())
            .protocol(protocol)
            .metrics(true)
            .build()
            .unwrap();
        let tracer = telemetry.tracer_provider().tracer("test");
        for _ in 0..100 {
            drop(tracer.start("span"));
        }
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        telemetry.force_flush_blocking(PATIENCE).unwrap();

        let metrics = server.metrics();
        let exporter = format!("otlp_{protocol}_span_exporter ");
        let exported = points(&metrics, "otel.sdk.exporter.span.exported");
        assert_eq!(exported[&exporter], 100, "{exported:?}");
        assert_eq!(exported[&format!("{exporter}_OTHER")], 0);
        let processed = points(&metrics, "otel.sdk.processor.span.processed");
        assert_eq!(processed["batching_span_processor "], 100);
        assert_eq!(processed["batching_span_processor queue_full"], 0);
        assert_eq!(processed["batching_span_processor already_shutdown"], 0);
        let capacity = points(&metrics, "otel.sdk.processor.span.queue.capacity");
        assert_eq!(capacity["batching_span_processor "], 100);
        assert!(points(&metrics, "otel.sdk.processor.span.queue.size").len() == 1);
        assert!(points(&metrics, "otel.sdk.exporter.metric_data_point.exported").len() == 2);
    }
}

#[test]
fn what_waits_what_was_dropped_and_what_was_refused() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
                ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
            ])
            .endpoint(server.endpoint())
            .protocol(protocol)
            .timeout(Duration::from_millis(100))
            .metrics(true)
            .build()
            .unwrap();
        let record = |spans: u64| {
            let tracer = telemetry.tracer_provider().tracer("test");
            (0..spans).for_each(|_| drop(tracer.start("span")));
        };
        record(7);
        telemetry.meter_provider().force_flush().unwrap();
        server.wait_for_metric("otel.sdk.processor.span.queue.size");
        let size = points(&server.metrics(), "otel.sdk.processor.span.queue.size");
        assert_eq!(size["batching_span_processor "], 7);
        telemetry.force_flush_blocking(PATIENCE).unwrap();

        server.behave(Behaviour::Refuse {
            http: StatusCode::BAD_REQUEST,
            grpc: Code::InvalidArgument,
            message: "no",
            retry_after: None,
        });
        record(3);
        telemetry.force_flush_blocking(PATIENCE).unwrap_err();
        server.behave(Behaviour::Hang);
        record(15);
        server.behave(Behaviour::Accept);
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        telemetry.shutdown_blocking(PATIENCE).unwrap();

        let metrics = server.metrics();
        let exporter = format!("otlp_{protocol}_span_exporter ");
        let exported = points(&metrics, "otel.sdk.exporter.span.exported");
        assert_eq!(exported[&exporter], 17, "{exported:?}");
        assert_eq!(exported[&format!("{exporter}_OTHER")], 3);
        let processed = points(&metrics, "otel.sdk.processor.span.processed");
        assert_eq!(processed["batching_span_processor "], 20);
        assert_eq!(processed["batching_span_processor queue_full"], 5);
        let size = points(&metrics, "otel.sdk.processor.span.queue.size");
        assert_eq!(size["batching_span_processor "], 0);
        let data_points = points(&metrics, "otel.sdk.exporter.metric_data_point.exported");
        let exporter = format!("otlp_{protocol}_metric_exporter ");
        assert!(data_points[&exporter] > 0);
        assert!(data_points[&format!("{exporter}_OTHER")] > 0);
    }
}

#[test]
fn units_say_what_is_counted() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .endpoint(server.endpoint())
        .metrics(true)
        .build()
        .unwrap();
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    for (name, unit) in [
        ("otel.sdk.exporter.span.exported", "{span}"),
        (
            "otel.sdk.exporter.metric_data_point.exported",
            "{data_point}",
        ),
        ("otel.sdk.processor.span.processed", "{span}"),
        ("otel.sdk.processor.span.queue.size", "{span}"),
        ("otel.sdk.processor.span.queue.capacity", "{span}"),
    ] {
        assert_eq!(server.wait_for_metric(name).unit, unit, "{name}");
    }
}

#[cfg(feature = "logs")]
#[test]
fn log_records_exported_and_dropped() {
    use tracing_subscriber::layer::SubscriberExt;

    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "10"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "600000"),
        ])
        .endpoint(server.endpoint())
        .timeout(Duration::from_millis(100))
        .metrics(true)
        .logs(true)
        .build()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    server.behave(Behaviour::Hang);
    tracing::subscriber::with_default(subscriber, || {
        (0..15).for_each(|_| tracing::info!("a line"));
    });
    server.behave(Behaviour::Accept);
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    telemetry.shutdown_blocking(PATIENCE).unwrap();

    let metrics = server.metrics();
    let exported = points(&metrics, "otel.sdk.exporter.log.exported");
    assert_eq!(exported["otlp_grpc_log_exporter "], 10);
    assert_eq!(exported["otlp_grpc_log_exporter _OTHER"], 0);
    let processed = points(&metrics, "otel.sdk.processor.log.processed");
    assert_eq!(processed["batching_log_processor "], 10);
    assert_eq!(processed["batching_log_processor queue_full"], 5);
    for (name, expected) in [("size", 0), ("capacity", 10)] {
        let name = format!("otel.sdk.processor.log.queue.{name}");
        assert_eq!(points(&metrics, &name)["batching_log_processor "], expected);
        assert_eq!(server.wait_for_metric(&name).unit, "{log_record}");
    }
}

#[test]
fn in_the_scope_of_all_other_metrics() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .endpoint(server.endpoint())
        .metrics(true)
        .build()
        .unwrap();
    let _ = telemetry.in_progress_layer();
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    server.wait_for_metric("otel.sdk.exporter.span.exported");
    server.wait_for_metric("requests_in_progress");
    let scopes: BTreeSet<_> = server.metric_scopes().into_iter().collect();
    let [(name, schema)] = Vec::from_iter(scopes).try_into().unwrap();
    assert_eq!(name, "tower-image-trace");
    assert!(
        schema.starts_with("https://opentelemetry.io/schemas/"),
        "{schema}"
    );
}
