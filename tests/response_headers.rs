//! `traceresponse` and `Server-Timing`, for services that want them.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Empty;
use opentelemetry_sdk::trace::Sampler;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_image_trace::{
    RequestTrace,
    trace::{ImageTraceLayerBuilder, Record, ServerTimingTrace},
};

use crate::support::Recorder;

async fn answer(
    recorder: &Recorder,
    configure: impl FnOnce(ImageTraceLayerBuilder) -> ImageTraceLayerBuilder,
) -> HeaderMap {
    let layer = configure(recorder.builder()).build();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        trace.queue().end();
        trace.stage("water mark").end();
        let streaming = trace.stream();
        let response = Response::builder()
            .header("server-timing", "db;dur=1")
            .extension(std::sync::Arc::new(streaming));
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    }));
    let request = Request::get("/").header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    response.into_parts().0.headers
}

#[tokio::test]
async fn a_response_is_left_alone_unless_it_is_asked_for() {
    let headers = answer(&Recorder::new(), |builder| builder).await;
    assert_eq!(headers.len(), 1);
    assert_eq!(headers["server-timing"], "db;dur=1");
}

#[tokio::test]
async fn traceresponse_has_the_ids_of_the_root_span() {
    let recorder = Recorder::new();
    let headers = answer(&recorder, |builder| builder.trace_response(true)).await;
    let root = recorder.root();
    assert_eq!(
        headers["traceresponse"].to_str().unwrap(),
        format!("00-{}-{}-01", root.trace_id(), root.id())
    );
}

#[tokio::test]
async fn traceresponse_says_whether_the_trace_is_sampled() {
    let recorder = Recorder::with(|builder| builder.with_sampler(Sampler::AlwaysOff));
    let headers = answer(&recorder, |builder| builder.trace_response(true)).await;
    let value = headers["traceresponse"].to_str().unwrap();
    assert!(
        value.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
        "{value}"
    );
    assert!(value.ends_with("-00"), "{value}");
}

#[tokio::test]
async fn a_request_without_a_span_has_no_traceresponse() {
    let headers = answer(&Recorder::new(), |builder| {
        builder.trace_response(true).filter(|_| Record::Metrics)
    })
    .await;
    assert!(!headers.contains_key("traceresponse"));
}

#[tokio::test]
async fn server_timing_has_the_stages_that_are_done() {
    let headers = answer(&Recorder::new(), |builder| builder.server_timing(true)).await;
    let lines: Vec<_> = headers.get_all("server-timing").iter().collect();
    assert_eq!(lines[0], "db;dur=1");
    let stages: Vec<_> = lines[1].to_str().unwrap().split(", ").collect();
    let names: Vec<_> = stages
        .iter()
        .map(|stage| {
            let (name, duration) = stage.split_once(";dur=").unwrap();
            let (_, decimals) = duration.split_once('.').unwrap();
            assert_eq!(decimals.len(), 1, "{stage}");
            assert!(duration.parse::<f64>().unwrap() >= 0.0);
            name
        })
        .collect();
    assert_eq!(names, ["queue", "water_mark"]);
}

#[tokio::test]
async fn server_timing_is_in_milliseconds() {
    let layer = Recorder::new().builder().server_timing(true).build();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let stage = RequestTrace::from_extensions(request.extensions()).queue();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stage.end();
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    let timing = response.headers()["server-timing"].to_str().unwrap();
    let duration = timing.strip_prefix("queue;dur=").unwrap();
    // In seconds or microseconds it would be far from that, in any machine's time.
    assert!(
        (20.0..15_000.0).contains(&duration.parse().unwrap()),
        "{timing}"
    );
}

fn timing_lines(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all("server-timing").iter();
    lines.map(|line| line.to_str().unwrap()).collect()
}

#[tokio::test]
async fn server_timing_names_the_trace_in_the_form_of_the_draft() {
    let recorder = Recorder::new();
    let headers = answer(&recorder, |builder| {
        builder
            .server_timing_trace(ServerTimingTrace::Trace)
            .server_timing(true)
    })
    .await;
    let root = recorder.root();
    let lines = timing_lines(&headers);
    let trace = format!("trace;desc=00-{}-{}-01", root.trace_id(), root.id());
    assert_eq!(lines[..2], ["db;dur=1", &trace]);
    assert!(lines[2].starts_with("queue;dur="), "{lines:?}");
}

#[tokio::test]
async fn server_timing_names_the_trace_as_agents_in_browsers_read_it() {
    for (sampler, flags) in [(Sampler::AlwaysOn, "01"), (Sampler::AlwaysOff, "00")] {
        let recorder = Recorder::with(|builder| builder.with_sampler(sampler));
        let layer = recorder
            .builder()
            .server_timing_trace(ServerTimingTrace::Traceparent)
            .build();
        let service = layer.layer(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }));
        // The caller's trace id is random, and says so, which the agents do not know.
        let request = Request::get("/").header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
        );
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let lines = timing_lines(response.headers());
        let ids = lines[0].strip_prefix("traceparent;desc=\"00-4bf92f3577b34da6a3ce929d0e0e4736-");
        let (span, rest) = ids.unwrap().split_once('-').unwrap();
        assert_eq!(span.len(), 16);
        assert_eq!(rest, format!("{flags}\""));
    }
}

#[tokio::test]
async fn server_timing_names_one_trace_through_layers_and_proxies() {
    let recorder = Recorder::new();
    let layer = |form| recorder.builder().server_timing_trace(form).build();
    let service = ServiceBuilder::new()
        .layer(layer(ServerTimingTrace::Trace))
        .layer(layer(ServerTimingTrace::Trace))
        .service(service_fn(async |_: Request<()>| {
            let response = Response::builder()
                .header("server-timing", "trace;desc=00-of-the-origin")
                .header("server-timing", "traced;dur=1");
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    let root = recorder.root();
    let trace = format!("trace;desc=00-{}-{}-", root.trace_id(), root.id());
    let lines = timing_lines(response.headers());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "traced;dur=1");
    assert!(lines[1].starts_with(&trace), "{lines:?}");
}

#[tokio::test]
async fn a_request_without_a_span_names_no_trace() {
    let headers = answer(&Recorder::new(), |builder| {
        builder
            .server_timing_trace(ServerTimingTrace::Trace)
            .filter(|_| Record::Metrics)
    })
    .await;
    assert_eq!(timing_lines(&headers), ["db;dur=1"]);
}

#[tokio::test]
async fn the_origins_that_may_read_timing_are_said_unless_the_service_says_them() {
    let origins = HeaderValue::from_static("https://shop.example, https://news.example");
    let headers = answer(&Recorder::new(), |builder| {
        builder.timing_allow_origin(origins.clone())
    })
    .await;
    assert_eq!(headers["timing-allow-origin"], origins);

    let layer = Recorder::new().builder().timing_allow_origin(origins);
    let service = layer.build().layer(service_fn(async |_: Request<()>| {
        let response = Response::builder().header("timing-allow-origin", "https://mine.example");
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    let said: Vec<_> = response
        .headers()
        .get_all("timing-allow-origin")
        .iter()
        .collect();
    assert_eq!(said, ["https://mine.example"]);
}
