//! With metrics and no traces the service leaves its callers' traces as they are, unless a processor of its own takes
//! the spans.

use std::convert::Infallible;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use opentelemetry::{
    Context,
    trace::{Span as _, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::trace::{BatchSpanProcessor, InMemorySpanExporter};
use tower::{ServiceExt, layer::Layer, service_fn};
use tower_image_trace::{RequestTrace, Telemetry};

use crate::support::otlp::{OtlpServer, PATIENCE};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn answer(request: Request<()>) -> Result<Response<String>, Infallible> {
    let trace = RequestTrace::from_extensions(request.extensions());
    let stage = trace.download("https://origin.example/cat.jpg");
    let mut outgoing = HeaderMap::new();
    stage.inject(&mut outgoing);
    let current = Context::current().span().span_context().clone();
    let sent = outgoing.get("traceparent");
    Ok(Response::new(format!(
        "{} {} {}",
        trace.trace_id(),
        current.span_id(),
        sent.map_or("nothing", |sent| sent.to_str().unwrap())
    )))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_context_passes_through() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_TRACES_EXPORTER", "none")])
        .endpoint(server.endpoint())
        .metrics(true)
        .propagate_external(true)
        .build()
        .unwrap();
    let service = telemetry.trace_layer().layer(service_fn(answer));

    let text = async |request| {
        let response = service.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    };
    let called = Request::builder().header("traceparent", CALLER);
    assert_eq!(
        text(called.body(()).unwrap()).await,
        format!("4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 {CALLER}")
    );
    assert_eq!(
        text(Request::new(())).await,
        format!("{} {} nothing", "0".repeat(32), "0".repeat(16))
    );

    telemetry.force_flush(PATIENCE).await.unwrap();
    let metrics = server.metrics();
    for name in [
        "http.server.request.duration",
        "request_span_duration_seconds",
    ] {
        assert!(metrics.iter().any(|metric| metric.name == name), "{name}");
    }
    assert!(server.spans().is_empty());
    telemetry.shutdown(PATIENCE).await.unwrap();
}

/// It takes the place of an exporter.
#[tokio::test]
async fn a_processor_of_ones_own_needs_no_exporter() {
    for (disabled, expected) in [("false", &["GET", "own"][..]), ("true", &[])] {
        let exporter = InMemorySpanExporter::default();
        let processor = BatchSpanProcessor::builder(exporter.clone()).build();
        let telemetry = Telemetry::builder()
            .vars([("OTEL_SDK_DISABLED", disabled)])
            .tracer_provider_with(|tracers| tracers.with_span_processor(processor))
            .build()
            .unwrap();
        assert_eq!(telemetry.is_enabled(), disabled == "false");
        let service = telemetry
            .trace_layer()
            .layer(service_fn(async |_: Request<()>| {
                Ok::<_, Infallible>(Response::new(String::new()))
            }));
        let get = Request::get("/").body(()).unwrap();
        drop(service.oneshot(get).await.unwrap());
        telemetry.tracer_provider().tracer("own").start("own").end();
        telemetry.force_flush(PATIENCE).await.unwrap();
        let spans = exporter.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, expected);
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(exporter.is_shutdown_called(), disabled == "false");
    }
}
