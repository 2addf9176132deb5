//! A trace that a load balancer began keeps its id, and the sampler decides about it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::{RandomIdGenerator, Sampler};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{Propagators, telemetry::ContinuingIdGenerator};

use crate::support::Recorder;

const ROOT: &str = "1-8a3c60f7-d188f8fa79d48a391a778fa6";
const TRACE: &str = "8a3c60f7d188f8fa79d48a391a778fa6";

async fn root_for(recorder: &Recorder, header: &str) {
    let propagators: Propagators = "tracecontext,xray".parse().unwrap();
    let layer = recorder.builder().propagators(propagators).build();
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let request = Request::get("/").header("x-amzn-trace-id", header);
    service.oneshot(request.body(()).unwrap()).await.unwrap();
}

fn recorder(root_sampler: Sampler) -> Recorder {
    Recorder::with(|tracers| {
        tracers
            .with_id_generator(ContinuingIdGenerator::new(RandomIdGenerator::default()))
            .with_sampler(Sampler::ParentBased(Box::new(root_sampler)))
    })
}

#[tokio::test]
async fn a_root_without_a_parent_is_continued() {
    for header in [
        format!("Root={ROOT}"),
        format!("Root={ROOT};Sampled=?"),
        format!("Self=1-67891234-12456789abcdef012345678;Root={ROOT}"),
    ] {
        let recorder = recorder(Sampler::AlwaysOn);
        root_for(&recorder, &header).await;
        let root = recorder.root();
        assert_eq!(root.trace_id().to_string(), TRACE, "{header}");
        assert_eq!(root.parent(), SpanId::INVALID);
        assert!(root.0.links.is_empty());
    }
}

#[tokio::test]
async fn an_undecided_parent_is_linked_to() {
    let recorder = recorder(Sampler::AlwaysOn);
    root_for(
        &recorder,
        &format!("Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=?"),
    )
    .await;
    let root = recorder.root();
    assert_eq!(root.trace_id().to_string(), TRACE);
    assert_eq!(root.parent(), SpanId::INVALID);
    let links: Vec<_> = root
        .0
        .links
        .iter()
        .map(|link| link.span_context.span_id().to_string())
        .collect();
    assert_eq!(links, ["53995c3f42cd8ad8"]);
}

#[tokio::test]
async fn the_sampler_may_say_no_and_a_decision_is_kept() {
    let undecided = recorder(Sampler::AlwaysOff);
    root_for(&undecided, &format!("Root={ROOT};Sampled=?")).await;
    assert!(undecided.spans().is_empty());

    let decided = recorder(Sampler::AlwaysOff);
    root_for(
        &decided,
        &format!("Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1"),
    )
    .await;
    let root = decided.root();
    assert_eq!(root.parent().to_string(), "53995c3f42cd8ad8");

    let denied = recorder(Sampler::AlwaysOn);
    root_for(
        &denied,
        &format!("Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=0"),
    )
    .await;
    assert!(denied.spans().is_empty());
}
