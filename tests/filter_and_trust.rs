//! Which requests are recorded, and what the caller's context is worth.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use opentelemetry::{
    Context,
    baggage::BaggageExt,
    trace::{SpanContext, SpanId, TraceContextExt, TraceId},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    ImageTraceLayer, RequestTrace, Trust,
    trace::{PeerAddr, Record},
};

use crate::support::Recorder;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// What a handler sees of its request's trace.
async fn seen_by_handler(layer: &ImageTraceLayer, path: &str) -> (SpanContext, TraceId) {
    seen_of_peer(layer, path, None).await
}

async fn seen_of_peer(
    layer: &ImageTraceLayer,
    path: &str,
    peer: Option<SocketAddr>,
) -> (SpanContext, TraceId) {
    let seen = Arc::new(Mutex::new(None));
    let service = layer.layer(service_fn(|request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        trace.stage("work").end();
        let current = Context::current().span().span_context().clone();
        *seen.lock().unwrap() = Some((current, trace.trace_id()));
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    }));
    let request = Request::get(path)
        .header("traceparent", format!("00-{TRACE}-{SPAN}-01"))
        .header("baggage", "user=alice");
    let mut request = request.body(()).unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(PeerAddr::from(peer));
    }
    service.oneshot(request).await.unwrap();
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
        "request_span_duration_seconds",
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

#[tokio::test]
async fn a_request_without_a_span_is_measured_and_keeps_its_callers_context() {
    let recorder = Recorder::new();
    let layer = recorder.builder().filter(|_| Record::Metrics).build();
    let (current, handle) = seen_by_handler(&layer, "/metrics").await;
    assert_eq!(current.span_id().to_string(), SPAN);
    assert_eq!(handle.to_string(), TRACE);
    assert!(recorder.spans().is_empty());
    assert_eq!(
        recorder.only_series("http.server.request.duration").count,
        1
    );
    recorder.only_series_of("request_span_duration_seconds", "span", "work");
    recorder.assert_nothing_active();
}

#[tokio::test]
async fn closures_that_panic_record_the_request_and_trust_nobody() {
    let recorder = Recorder::new();
    let builder = recorder.builder().filter(|_| -> bool { panic!("filter") });
    let layer = builder.trust(|_| panic!("trust")).build();
    let (current, trace) = seen_by_handler(&layer, "/").await;
    assert_ne!(trace.to_string(), TRACE);
    assert_eq!(current.trace_id(), trace);
    let root = recorder.root();
    assert_eq!(root.0.parent_span_id, SpanId::INVALID);
    assert_eq!(root.0.links.iter().count(), 0);
}

#[tokio::test]
async fn only_callers_in_these_networks_are_trusted() {
    let peers = [
        (Some("10.1.2.3:4000"), Trust::Link, 1),
        (Some("[::ffff:10.1.2.3]:4000"), Trust::Link, 1),
        (Some("203.0.113.9:4000"), Trust::Link, 2),
        (Some("203.0.113.9:4000"), Trust::Ignore, 3),
        (None, Trust::Ignore, 3),
    ];
    for (peer, others, expected) in peers {
        let recorder = Recorder::new();
        let networks = "10.0.0.0/8".parse().unwrap();
        let layer = recorder.builder().trust_only(networks, others).build();
        let peer = peer.map(|peer| peer.parse().unwrap());
        seen_of_peer(&layer, "/", peer).await;
        let root = recorder.root();
        let links = root.0.links.iter().count();
        let seen = match (root.parent().to_string() == SPAN, links) {
            (true, 0) => 1,
            (false, 1) => 2,
            (false, 0) => 3,
            _ => 0,
        };
        assert_eq!(seen, expected, "{peer:?} {others:?}");
    }
}

#[tokio::test]
async fn baggage_follows_the_trust() {
    for (trust, expected) in [
        (Trust::Parent, Some("alice")),
        (Trust::Link, None),
        (Trust::Ignore, None),
    ] {
        let recorder = Recorder::new();
        let layer = recorder.builder().trust(move |_| trust).build();
        let service = layer.layer(service_fn(|_: Request<()>| async {
            let user = Context::current()
                .baggage()
                .get("user")
                .map(ToString::to_string);
            Ok::<_, Infallible>(Response::new(user.unwrap_or_default()))
        }));
        let request = Request::get("/").header("baggage", "user=alice");
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let user = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(user, expected.unwrap_or_default(), "{trust:?}");
    }
}
