//! With metrics and no traces the service leaves its callers' traces as they are.

use std::convert::Infallible;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use opentelemetry::{Context, trace::TraceContextExt};
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
