//! The trace context leaves the service only for whom it was said to.

use opentelemetry::trace::TraceContextExt;
use tower::{Layer, ServiceExt};
use tower_image_trace::download::DownloadLayerBuilder;

use crate::support::{
    Recorder,
    download::{Origin, builder, client, get, request, response},
};

/// The `traceparent` that an origin receives, and the one that it should receive if any.
async fn received(
    configure: impl FnOnce(DownloadLayerBuilder, &Origin) -> DownloadLayerBuilder,
) -> (Option<String>, String) {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("200 OK", "")).await;
    let layer = configure(builder(&recorder), &origin).build();
    get(&layer, &origin.url("/cat.jpg")).await.unwrap();
    let span = recorder.span("GET");
    let heads = origin.heads();
    let mut lines = heads[0].lines();
    let traceparent = lines.find_map(|line| line.strip_prefix("traceparent: "));
    assert!(lines.all(|line| !line.starts_with("traceparent")));
    (
        traceparent.map(str::to_owned),
        format!("00-{}-{}-01", span.trace_id(), span.id()),
    )
}

#[tokio::test]
async fn nobody_gets_it_unasked() {
    assert_eq!(received(|layer, _| layer).await.0, None);
    let off = received(|layer, _| layer.propagate_external(true).propagate_external(false));
    assert_eq!(off.await.0, None);
}

#[tokio::test]
async fn everybody_gets_that_of_the_attempt() {
    let (received, expected) = received(|layer, _| layer.propagate_external(true)).await;
    assert_eq!(received, Some(expected));
}

#[tokio::test]
async fn only_the_listed_origins_get_it() {
    let (listed, expected) = received(|layer, origin| {
        layer.propagate_to([
            "https://images.internal".parse().unwrap(),
            origin.url("").parse().unwrap(),
        ])
    })
    .await;
    assert_eq!(listed, Some(expected));

    for other in ["http://127.0.0.1", "http://127.0.0.1.example"] {
        let (unlisted, _) = received(|layer, origin| {
            // Another port, or a name that only begins like the listed one.
            let port = origin.address.port();
            let also = format!("https://127.0.0.1:{port}");
            layer.propagate_to([other.parse().unwrap(), also.parse().unwrap()])
        })
        .await;
        assert_eq!(unlisted, None, "{other}");
    }
}

/// What the caller put into the headers is for the caller to decide, and replaced, not doubled.
#[tokio::test]
async fn a_traceparent_of_the_callers_own() {
    let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for propagate in [false, true] {
        let recorder = Recorder::new();
        let origin = Origin::start(|_| response("200 OK", "")).await;
        let layer = builder(&recorder).propagate_external(propagate).build();
        let mut request = request(&origin.url("/"));
        request
            .headers_mut()
            .insert("traceparent", own.parse().unwrap());
        layer.layer(client()).oneshot(request).await.unwrap();
        let heads = origin.heads();
        assert_eq!(heads[0].matches("traceparent").count(), 1);
        assert_eq!(heads[0].contains(own), !propagate);
    }
    assert!(!opentelemetry::Context::current().has_active_span());
}
