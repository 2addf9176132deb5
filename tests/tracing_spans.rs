//! With `tracing-opentelemetry` in the subscriber, `tracing` spans belong to the request's trace.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry::trace::TracerProvider;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::RequestTrace;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::support::Recorder;

#[tracing::instrument]
async fn look_up(id: u32) -> u32 {
    tokio::task::yield_now().await;
    tracing::info_span!("cache").in_scope(|| id)
}

#[tokio::test]
async fn instrumented_functions_are_children_of_root_and_stages() {
    let recorder = Recorder::new();
    let tracer = recorder.tracers.tracer("service");
    let subscriber = Registry::default().with(tracing_opentelemetry::layer().with_tracer(tracer));
    let service = recorder
        .layer()
        .layer(service_fn(|request: Request<()>| async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            look_up(1).await;
            let download = trace.download("http://cdn.example/cat.jpg");
            download.attach(look_up(2)).await;
            drop(download);
            let resize = || {
                tracing::info_span!("resize").in_scope(|| ());
                Ok::<_, Infallible>(())
            };
            trace.process("w:1").in_scope(resize).unwrap();
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }));
    let call = service.oneshot(Request::get("/").body(()).unwrap());
    call.with_subscriber(subscriber).await.unwrap();

    let root = recorder.root();
    let spans = recorder.spans();
    let parent_of = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name() == name).collect();
        found.iter().map(|span| span.parent()).collect::<Vec<_>>()
    };
    let ids_of = |name: &str| {
        let found = spans.iter().filter(|span| span.name() == name);
        found.map(|span| span.id()).collect::<Vec<_>>()
    };
    assert_eq!(
        parent_of("look_up"),
        [root.id(), recorder.span("downloading_image").id()]
    );
    assert_eq!(parent_of("cache"), ids_of("look_up"));
    assert_eq!(
        parent_of("resize"),
        [recorder.span("processing_image").id()]
    );
    for span in &spans {
        assert_eq!(span.trace_id(), root.trace_id(), "{}", span.name());
    }
}
