//! What becomes of spans is exported as metrics, under the names of the OpenTelemetry SDK's own.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value};
use tower_image_trace::{Protocol, Telemetry};

use crate::support::otlp::{OtlpServer, PATIENCE, attributes};

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
        (
            format!("{} {error}", attributes["otel.component.type"]),
            value,
        )
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
        let capacity = points(&metrics, "otel.sdk.processor.span.queue.capacity");
        assert_eq!(capacity["batching_span_processor "], 100);
        assert!(points(&metrics, "otel.sdk.processor.span.queue.size").len() == 1);
        assert!(points(&metrics, "otel.sdk.exporter.metric_data_point.exported").len() == 2);
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
