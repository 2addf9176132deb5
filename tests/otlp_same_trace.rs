//! The same trace arrives over gRPC and over HTTP as it is in memory.

use std::{collections::BTreeMap, convert::Infallible};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{ErrorKind, ImageTraceLayer, Protocol, RequestTrace, Telemetry};

use crate::support::otlp::{OtlpServer, PATIENCE, ReceivedSpan, attributes, hex};

/// One request with four stages, one of which fails.
async fn request(layer: &ImageTraceLayer) {
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        trace.set_route("/resize/{source}");
        drop(trace.queue());
        let download = trace.download("https://cdn.example/cat.jpg");
        let error = std::io::Error::other("connection reset");
        download.record_error(&error);
        drop(download);
        trace.error(ErrorKind::Download, &error);
        drop(trace.process("rs:fill:300:200"));
        drop(trace.stream());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("body"))))
    }));
    let request = Request::get("/resize/cat.jpg?w=300")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("tracestate", "vendor=value")
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
}

/// What must be the same in memory and behind the collector.
#[derive(Debug, PartialEq)]
struct Shape {
    trace_id: String,
    span_id: String,
    parent_id: String,
    name: String,
    trace_state: String,
    start: u128,
    end: u128,
    attributes: BTreeMap<String, String>,
    events: Vec<(String, BTreeMap<String, String>)>,
}

fn in_memory(span: &SpanData) -> Shape {
    let nanos = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos()
    };
    let attributes = |attributes: &[opentelemetry::KeyValue]| {
        attributes
            .iter()
            .map(|kv| (kv.key.to_string(), kv.value.to_string()))
            .collect()
    };
    Shape {
        trace_id: span.span_context.trace_id().to_string(),
        span_id: span.span_context.span_id().to_string(),
        parent_id: match span.parent_span_id {
            SpanId::INVALID => String::new(),
            id => id.to_string(),
        },
        name: span.name.to_string(),
        trace_state: span.span_context.trace_state().header(),
        start: nanos(span.start_time),
        end: nanos(span.end_time),
        attributes: attributes(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| (event.name.to_string(), attributes(&event.attributes)))
            .collect(),
    }
}

fn received(span: &ReceivedSpan) -> Shape {
    Shape {
        trace_id: span.trace_id(),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        name: span.name.clone(),
        trace_state: span.trace_state.clone(),
        start: span.start_time_unix_nano.into(),
        end: span.end_time_unix_nano.into(),
        attributes: span.attributes(),
        events: span
            .events
            .iter()
            .map(|event| (event.name.clone(), attributes(&event.attributes)))
            .collect(),
    }
}

async fn compare(protocol: Protocol, compression: &str) {
    let server = OtlpServer::start();
    let memory = InMemorySpanExporter::default();
    let exporter = memory.clone();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_EXPORTER_OTLP_COMPRESSION", compression)])
        .endpoint(server.endpoint())
        .protocol(protocol)
        .service_name("thumbs")
        .metrics(true)
        .tracer_provider_with(|provider| provider.with_simple_exporter(exporter))
        .build()
        .unwrap();
    request(&telemetry.trace_layer()).await;
    let expected = memory.get_finished_spans().unwrap();
    telemetry.shutdown(PATIENCE).await.unwrap();

    let spans = server.spans();
    assert_eq!(expected.len(), 5);
    assert_eq!(
        spans.iter().map(received).collect::<Vec<_>>(),
        expected.iter().map(in_memory).collect::<Vec<_>>(),
    );
    assert!(
        spans
            .iter()
            .all(|span| span.resource["service.name"] == "thumbs")
    );
    assert_eq!(spans[0].trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    server.wait_for_metric("http.server.request.duration");
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "one for traces, one for metrics");
    for head in requests {
        let encoding = head.get("grpc-encoding").or(head.get("content-encoding"));
        assert_eq!(
            encoding.map_or("none", |name| name.to_str().unwrap()),
            compression
        );
    }
}

#[tokio::test]
async fn over_grpc() {
    compare(Protocol::Grpc, "none").await;
}

#[tokio::test]
async fn over_http() {
    compare(Protocol::Http, "none").await;
}

#[tokio::test]
async fn over_grpc_compressed() {
    compare(Protocol::Grpc, "gzip").await;
}

#[tokio::test]
async fn over_http_compressed() {
    compare(Protocol::Http, "gzip").await;
}
