//! Which requests are recorded, and what the caller's context is worth.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceId},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{ImageTraceLayer, RequestTrace, Trust};

use crate::support::Recorder;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// What a handler sees of its request's trace.
async fn seen_by_handler(layer: &ImageTraceLayer, path: &str) -> (SpanContext, TraceId) {
    let seen = Arc::new(Mutex::new(None));
    let service = layer.layer(service_fn(|request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        let current = Context::current().span().span_context().clone();
        *seen.lock().unwrap() = Some((current, trace.trace_id()));
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    }));
    let request = Request::get(path).header("traceparent", format!("00-{TRACE}-{SPAN}-01"));
    service.oneshot(request.body(()).unwrap()).await.unwrap();
    seen.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn a_filtered_request_records_nothing_and_keeps_its_callers_context() {
    let recorder = Recorder::new();
    let layer = recorder
        .builder()
        .filter(|parts| parts.uri.path() != "/health")
        .build();
    let (current, handle) = seen_by_handler(&layer, "/health").await;
    assert_eq!(current.trace_id().to_string(), TRACE);
    assert_eq!(current.span_id().to_string(), SPAN);
    assert_eq!(handle, TraceId::INVALID);
    assert!(recorder.spans().is_empty());
    for metric in [
        "http.server.request.duration",
        "http.server.active_requests",
    ] {
        assert!(recorder.series(metric).is_empty(), "{metric}");
    }

    let (_, handle) = seen_by_handler(&layer, "/resize").await;
    assert_eq!(handle.to_string(), TRACE);
    recorder.root();
}

#[tokio::test]
async fn a_trusted_caller_is_the_parent() {
    let recorder = Recorder::new();
    let layer = recorder.builder().trust(|_| Trust::Parent).build();
    seen_by_handler(&layer, "/").await;
    assert_eq!(recorder.root().parent().to_string(), SPAN);
}

#[tokio::test]
async fn another_caller_is_only_linked_to() {
    let recorder = Recorder::new();
    seen_by_handler(&recorder.builder().trust(|_| Trust::Link).build(), "/").await;
    let root = recorder.root();
    assert_ne!(root.trace_id().to_string(), TRACE);
    assert_eq!(root.parent(), SpanId::INVALID);
    let links: Vec<_> = root
        .0
        .links
        .iter()
        .map(|link| link.span_context.clone())
        .collect();
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].trace_id().to_string(), TRACE);
    assert_eq!(links[0].span_id().to_string(), SPAN);
}

#[tokio::test]
async fn an_ignored_caller_leaves_no_trace() {
    let recorder = Recorder::new();
    seen_by_handler(&recorder.builder().trust(|_| Trust::Ignore).build(), "/").await;
    let root = recorder.root();
    assert_ne!(root.trace_id().to_string(), TRACE);
    assert_eq!(root.parent(), SpanId::INVALID);
    assert!(root.0.links.is_empty());
}
