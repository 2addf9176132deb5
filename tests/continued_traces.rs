//! A trace that a load balancer began keeps its id, and the sampler decides about it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry::{Context, trace::SpanId};
use opentelemetry_sdk::trace::{RandomIdGenerator, Sampler};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    Propagators, RequestTrace, propagation::is_denied, telemetry::ContinuingIdGenerator,
};

use crate::support::Recorder;

const ROOT: &str = "1-8a3c60f7-d188f8fa79d48a391a778fa6";
const TRACE: &str = "8a3c60f7d188f8fa79d48a391a778fa6";

async fn root_for(recorder: &Recorder, header: &str) {
    call(recorder, "tracecontext,xray", "x-amzn-trace-id", header).await;
}

/// The `traceparent` of a call that the service makes.
async fn call(recorder: &Recorder, propagators: &str, name: &str, value: &str) -> String {
    let propagators: Propagators = propagators.parse().unwrap();
    let layer = recorder
        .builder()
        .propagators(propagators)
        .propagate_external(true)
        .random_trace_ids(true)
        .trace_response(true)
        .build();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        let mut response = Response::new(Empty::<Bytes>::new());
        trace.stage("call").inject(response.headers_mut());
        Ok::<_, Infallible>(response)
    }));
    let request = Request::get("/").header(name, value).body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    let header = |name| {
        let value = response.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let (sent, answered) = (header("traceparent"), header("traceresponse"));
    if !sent.is_empty() {
        assert_eq!(
            sent[53..],
            answered[53..],
            "both have the flags of the trace"
        );
    }
    sent
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

/// Faults B4.
#[tokio::test]
async fn a_denial_without_ids_holds_for_the_trace() {
    for (name, value) in [
        ("x-amzn-trace-id", &*format!("Root={ROOT};Sampled=0")),
        ("x-amzn-trace-id", &format!("Sampled=0; Root={ROOT}")),
        ("b3", "0"),
        ("x-b3-sampled", "0"),
        ("x-b3-sampled", "false"),
    ] {
        let recorder = recorder(Sampler::AlwaysOn);
        let sent = call(&recorder, "tracecontext,xray,b3", name, value).await;
        assert!(recorder.spans().is_empty(), "{name}: {value}");
        assert!(!sent.is_empty(), "{name}: {value}");
        let is_continued = name == "x-amzn-trace-id";
        assert_eq!(sent.contains(TRACE), is_continued, "{sent}");
        // The id of a new trace is random, that of another's is not known to be.
        let flags = if is_continued { "-00" } else { "-02" };
        assert!(sent.ends_with(flags), "{sent}");
    }
}

#[tokio::test]
async fn a_denial_goes_through_a_layer_that_skips_the_request() {
    let layer = Recorder::new()
        .builder()
        .propagators("b3".parse::<Propagators>().unwrap())
        .filter(|_| false)
        .build();
    let service = layer.layer(service_fn(|_: Request<()>| async {
        assert!(is_denied(&Context::current()));
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let request = Request::get("/").header("b3", "0").body(()).unwrap();
    service.oneshot(request).await.unwrap();
}

#[tokio::test]
async fn a_sampler_that_asks_no_caller_asks_none_that_denied() {
    let recorder = Recorder::with(|tracers| tracers.with_sampler(Sampler::AlwaysOn));
    call(&recorder, "b3", "b3", "0").await;
    recorder.root();
}

/// Faults B1.
#[tokio::test]
async fn the_random_flag_is_kept_whatever_the_sampler_says() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";
    let samplers = [
        (Sampler::AlwaysOn, "1"),
        (Sampler::AlwaysOff, "0"),
        (Sampler::TraceIdRatioBased(0.0), "0"),
    ];
    for (sampler, sampled) in samplers {
        for (came, random) in [("02", true), ("03", true), ("00", false), ("01", false)] {
            let recorder = Recorder::with(|tracers| tracers.with_sampler(sampler.clone()));
            let parent = format!("{parent}{came}");
            let sent = call(&recorder, "tracecontext", "traceparent", &parent).await;
            let flags = match (random, sampled) {
                (true, "1") => "-03",
                (true, _) => "-02",
                (false, "1") => "-01",
                (false, _) => "-00",
            };
            assert!(sent.ends_with(flags), "{came} {sampler:?}: {sent}");
        }
    }
}

/// Faults B1.
#[tokio::test]
async fn a_new_trace_says_that_its_id_is_random() {
    for (sampler, flags) in [(Sampler::AlwaysOn, "-03"), (Sampler::AlwaysOff, "-02")] {
        let recorder = recorder(sampler);
        let sent = call(&recorder, "tracecontext", "accept", "*/*").await;
        assert!(sent.ends_with(flags), "{sent}");
        assert_eq!(recorder.spans().len(), if flags == "-03" { 2 } else { 0 });
    }
    // The id of a load balancer's trace was made elsewhere.
    let recorder = recorder(Sampler::AlwaysOn);
    let header = format!("Root={ROOT}");
    let sent = call(&recorder, "xray,tracecontext", "x-amzn-trace-id", &header).await;
    assert!(sent.contains(TRACE) && sent.ends_with("-01"), "{sent}");
}
