//! What other layers have stumbled over in the field.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use axum::{Router, body::Body as AxumBody, middleware::from_extractor, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId},
};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_image_trace::{DownloadLayer, RequestTrace, Telemetry, Trust, trace::Record};

use crate::support::{ChannelBody, Recorder, body::data};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn get_request(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// A response with a body that has more to come.
fn unread(status: StatusCode) -> (impl Send, Response<ChannelBody>) {
    let (frames, body) = ChannelBody::new();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    (frames, response)
}

// faults A3, F10
#[tokio::test]
async fn a_server_error_stays_one_whatever_happens_to_its_body() {
    for (status, error) in [
        (503, Some("503")),
        (500, Some("500")),
        (404, None),
        (200, None),
    ] {
        let recorder = Recorder::new();
        let status = StatusCode::from_u16(status).unwrap();
        let (_frames, response) = unread(status);
        let mut response = Some(response);
        let service = recorder.layer().layer(service_fn(move |_| {
            let response = response.take().unwrap();
            async { Ok::<_, Infallible>(response) }
        }));
        drop(service.oneshot(get_request("/")).await.unwrap());
        let root = recorder.root();
        assert_eq!(root.get("error.type").as_deref(), error, "{status}");
        assert_eq!(
            root.get("image.request.cancelled").as_deref(),
            Some("response_body")
        );
        match error {
            Some(code) => root.assert_error(code, ""),
            None => root.assert_no_error(),
        }
        let duration = recorder.only_series("http.server.request.duration");
        assert_eq!(
            duration.attributes.get("error.type").map(String::as_str),
            error
        );
        recorder.assert_nothing_active();
    }
}

// faults F10: a retry drops the body of what it does not pass on.
#[tokio::test]
async fn a_response_that_is_tried_again_was_an_error() {
    let recorder = Recorder::new();
    let mut statuses = [503, 200].into_iter();
    let mut service = recorder.layer().layer(service_fn(move |_| {
        let status = StatusCode::from_u16(statuses.next().unwrap()).unwrap();
        let body = Full::<Bytes>::from("an answer");
        let response = Response::builder().status(status).body(body);
        async { Ok::<_, Infallible>(response.unwrap()) }
    }));
    loop {
        let response = service.ready().await.unwrap().call(get_request("/"));
        let response = response.await.unwrap();
        if response.status().is_success() {
            response.into_body().collect().await.unwrap();
            break;
        }
    }
    let [first, second] = <[_; 2]>::try_from(recorder.spans()).unwrap();
    first.assert_error("503", "");
    second.assert_no_error();
    assert_eq!(second.get("image.request.cancelled"), None);
    let duration = "http.server.request.duration";
    assert_eq!(
        recorder.only_series_of(duration, "error.type", "503").count,
        1
    );
    assert_eq!(recorder.series(duration).len(), 2);
}

/// What a gRPC service sends, of which no more is read than the frames.
async fn unread_call(
    content_type: &'static str,
    head: http::response::Builder,
    frames: &[&'static [u8]],
) -> Recorder {
    let recorder = Recorder::new();
    let (sender, body) = ChannelBody::new();
    for frame in frames {
        let frame = Frame::data(Bytes::from_static(frame));
        sender.send(Ok(frame)).unwrap();
    }
    let mut response = Some(head.body(body).unwrap());
    let service = recorder.layer().layer(service_fn(move |_| {
        let response = response.take().unwrap();
        async { Ok::<_, Infallible>(response) }
    }));
    let request = Request::post("/thumbs.v1.Thumbnailer/Resize")
        .header("content-type", content_type)
        .body(());
    let mut response = service.oneshot(request.unwrap()).await.unwrap();
    for _ in frames {
        response.body_mut().frame().await.unwrap().unwrap();
    }
    drop(response);
    recorder
}

// faults A3
#[tokio::test]
async fn a_call_that_has_failed_stays_an_error_whatever_happens_to_its_body() {
    const GRPC: &str = "application/grpc";
    const WEB: &str = "application/grpc-web";
    let grpc = |content_type| Response::builder().header("content-type", content_type);
    let unavailable = b"\x80\0\0\0\x11grpc-status: 14\r\n";
    let cancelled = Some("response_body");
    for (content_type, head, frames, code, error, phase) in [
        (
            GRPC,
            grpc(GRPC).header("grpc-status", "14"),
            vec![],
            "UNAVAILABLE",
            true,
            cancelled,
        ),
        (
            GRPC,
            grpc(GRPC).header("grpc-status", "5"),
            vec![],
            "NOT_FOUND",
            false,
            cancelled,
        ),
        // From something in front of the service that speaks no gRPC.
        (
            GRPC,
            Response::builder().status(503),
            vec![],
            "UNAVAILABLE",
            true,
            cancelled,
        ),
        (GRPC, grpc(GRPC), vec![], "CANCELLED", false, cancelled),
        // Nothing follows the trailers of gRPC-Web.
        (
            WEB,
            grpc(WEB),
            vec![&unavailable[..]],
            "UNAVAILABLE",
            true,
            None,
        ),
        (
            WEB,
            grpc(WEB),
            vec![&unavailable[..9]],
            "CANCELLED",
            false,
            cancelled,
        ),
    ] {
        let recorder = unread_call(content_type, head, &frames).await;
        let root = recorder.root();
        assert_eq!(root.get("rpc.response.status_code").as_deref(), Some(code));
        assert_eq!(root.get("image.request.cancelled").as_deref(), phase);
        match error {
            true => root.assert_error(code, ""),
            false => root.assert_no_error(),
        }
        let duration = recorder.only_series("rpc.server.call.duration");
        let kind = duration.attributes.get("error.type").map(String::as_str);
        assert_eq!(kind, error.then_some(code));
    }
}

// faults A3: for a client every 4xx and 5xx is an error, and its body need not be read.
#[tokio::test]
async fn a_download_with_an_error_status_is_an_error_whatever_happens_to_its_body() {
    for (status, error) in [(503, Some("503")), (404, Some("404")), (200, None)] {
        let recorder = Recorder::new();
        let (_frames, response) = unread(StatusCode::from_u16(status).unwrap());
        let mut response = Some(response);
        let layer = DownloadLayer::builder()
            .tracer_provider(recorder.tracers.clone())
            .build();
        let service = layer.layer(service_fn(move |_: Request<()>| {
            let response = response.take().unwrap();
            async { Ok::<_, Infallible>(response) }
        }));
        let request = get_request("http://cdn.example/cat.jpg");
        drop(service.oneshot(request).await.unwrap());
        let [attempt] = <[_; 1]>::try_from(recorder.spans()).unwrap();
        assert_eq!(attempt.get("error.type").as_deref(), error, "{status}");
        let cancelled = attempt.get("image.stage.cancelled");
        assert_eq!(cancelled.is_some(), error.is_none(), "{status}");
    }
}

// faults A8, F11
#[tokio::test]
async fn server_timing_is_bounded_and_well_formed() {
    let recorder = Recorder::new();
    let layer = recorder.builder().server_timing(true).build();
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        for number in 0..1_000 {
            let name: &'static str = format!("stage number {number}").leak();
            drop(trace.stage(name));
            drop(trace.stage("again"));
        }
        let long = trace.stage("the \"longest\", by far");
        std::thread::sleep(Duration::from_millis(3));
        long.end();
        drop(trace.stage(""));
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let response = service.oneshot(get_request("/")).await.unwrap();
    let timing = response.headers()["server-timing"].to_str().unwrap();
    assert!((1900..=2048).contains(&timing.len()), "{}", timing.len());
    assert!(timing.contains("the__longest___by_far;dur="), "{timing}");
    assert_eq!(timing.matches("again;").count(), 1, "{timing}");
    for entry in timing.split(", ") {
        assert!(!entry.starts_with(';'), "an empty name: {timing}");
    }
}

// faults A8: one that has no room takes none from the others.
#[tokio::test]
async fn server_timing_leaves_out_a_name_that_is_too_long() {
    let recorder = Recorder::new();
    let layer = recorder.builder().server_timing(true).build();
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        drop(trace.stage(""));
        drop(trace.queue());
        let long = trace.stage("x".repeat(3000).leak());
        std::thread::sleep(Duration::from_millis(3));
        long.end();
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let response = service.oneshot(get_request("/")).await.unwrap();
    let timing = response.headers()["server-timing"].to_str().unwrap();
    let names = timing.split(", ").map(|entry| entry.split(';').next());
    assert_eq!(Vec::from_iter(names.flatten()), ["_", "queue"], "{timing}");
}

// faults A12, F6, G14
#[tokio::test]
async fn two_layers_are_one_server_span_with_a_child() {
    for traceparent in [None, Some(TRACEPARENT)] {
        for inner_trust in [Trust::Parent, Trust::Link, Trust::Ignore] {
            let recorder = Recorder::new();
            let outer = recorder.builder().trace_response(true).build();
            let inner = recorder
                .builder()
                .trace_response(true)
                .trust(move |_| inner_trust)
                .build();
            let service = ServiceBuilder::new()
                .layer(outer)
                .layer(inner)
                .service(service_fn(async |_: Request<()>| {
                    Ok::<_, Infallible>(Response::new(String::new()))
                }));
            let mut request = get_request("/");
            if let Some(traceparent) = traceparent {
                let value = traceparent.parse().unwrap();
                request.headers_mut().insert("traceparent", value);
            }
            let response = service.oneshot(request).await.unwrap();
            let spans = recorder.spans();
            let of_kind = |kind| spans.iter().find(|span| span.0.span_kind == kind).unwrap();
            let (root, child) = (of_kind(SpanKind::Server), of_kind(SpanKind::Internal));
            assert_eq!(spans.len(), 2);
            assert_eq!(child.parent(), root.id());
            assert_eq!(child.trace_id(), root.trace_id());
            if traceparent.is_some() {
                assert_eq!(root.parent().to_string(), "00f067aa0ba902b7");
            }
            let told: Vec<_> = response.headers().get_all("traceresponse").iter().collect();
            assert_eq!(told.len(), 1);
            assert!(told[0].to_str().unwrap().contains(&root.id().to_string()));
            let duration = recorder.only_series("http.server.request.duration");
            assert_eq!(duration.count, 1, "the request is measured once");
            recorder.assert_nothing_active();
        }
    }
}

// faults F6: between the layers the request goes to a task that knows nothing of the first one's context.
#[tokio::test]
async fn a_layer_behind_another_task_is_the_outer_ones_child() {
    let recorder = Recorder::new();
    let inner = recorder.layer().layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let service = recorder.layer().layer(service_fn(move |request| {
        let inner = inner.clone();
        let answer = tokio::spawn(async move { inner.oneshot(request).await });
        async { answer.await.unwrap() }
    }));
    let mut request = get_request("/");
    let headers = request.headers_mut();
    headers.insert("traceparent", TRACEPARENT.parse().unwrap());
    service.oneshot(request).await.unwrap();
    let [child, root] = <[_; 2]>::try_from(recorder.spans()).unwrap();
    assert_eq!(root.0.span_kind, SpanKind::Server);
    assert_eq!(child.parent(), root.id());
}

/// A refresh in the background goes on with the extensions of the request that has asked for it.
#[tokio::test]
async fn a_request_with_the_handle_of_one_that_is_over_is_one_of_its_own() {
    let recorder = Recorder::new();
    let (sender, extensions) = std::sync::mpsc::channel();
    let service = recorder
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            sender.send(request.extensions().clone()).unwrap();
            std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
        }));
    let first = service.clone().oneshot(get_request("/")).await.unwrap();
    first.into_body().collect().await.unwrap();
    let mut again = get_request("/");
    *again.extensions_mut() = extensions.recv().unwrap();
    let second = service.oneshot(again).await.unwrap();
    second.into_body().collect().await.unwrap();
    let [first, second] = <[_; 2]>::try_from(recorder.spans()).unwrap();
    assert_eq!(second.0.span_kind, SpanKind::Server);
    assert_ne!(second.trace_id(), first.trace_id());
    let duration = recorder.only_series("http.server.request.duration");
    assert_eq!(duration.count, 2);
    recorder.assert_nothing_active();
}

// faults G14: what the inner layer learns is the outer one's too, and one of them measures.
#[tokio::test]
async fn two_layers_measure_a_request_once_with_its_route() {
    for (outer_measures, inner_measures) in [(true, true), (false, true), (true, false)] {
        for named in [None, Some("/img/{options}/{source}")] {
            let recorder = Recorder::new();
            let outer = recorder.builder().metrics(outer_measures).build();
            let inner = recorder.builder().metrics(inner_measures).build();
            let handler = async move |request: axum::extract::Request| {
                if let Some(route) = named {
                    RequestTrace::from_extensions(request.extensions()).set_route(route);
                }
                "a picture"
            };
            let nested = Router::new().route("/{*path}", get(handler)).layer(inner);
            let service = outer.layer(Router::new().nest("/img", nested));
            let request = Request::get("/img/w:1").body(AxumBody::empty());
            let response = service.oneshot(request.unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
            let route = named.unwrap_or("/img/{*path}");
            for span in recorder.spans() {
                assert_eq!(span.get("http.route").as_deref(), Some(route));
                assert_eq!(span.name(), format!("GET {route}"));
                assert_eq!(span.get("url.path").as_deref(), Some("/img/w:1"));
            }
            let duration = recorder.only_series("http.server.request.duration");
            assert_eq!(duration.count, 1);
            assert_eq!(duration.attributes["http.route"], route);
            recorder.assert_nothing_active();
        }
    }
}

// faults F6: a span of another middleware that has continued the trace comes before the headers.
#[tokio::test]
async fn a_current_span_of_the_same_trace_is_the_parent() {
    use opentelemetry::trace::{Tracer, TracerProvider};
    let recorder = Recorder::new();
    let props = tower_image_trace::Propagators::default();
    let mut request = get_request("/");
    let headers = request.headers_mut();
    headers.insert("traceparent", TRACEPARENT.parse().unwrap());
    headers.insert("baggage", "tier=gold".parse().unwrap());
    let caller = props.extract_headers(&Context::new(), request.headers());
    let middleware = recorder
        .tracers
        .tracer("other")
        .start_with_context("other", &caller);
    let other = opentelemetry::trace::Span::span_context(&middleware).span_id();
    let context = Context::new().with_span(middleware);
    let service = recorder.layer().layer(service_fn(async |_: Request<()>| {
        use opentelemetry::baggage::BaggageExt;
        let tier = Context::map_current(|context| context.baggage().get("tier").cloned());
        assert_eq!(tier.unwrap().as_str(), "gold");
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let attached = context.attach();
    service.oneshot(request).await.unwrap();
    drop(attached);
    let root = recorder
        .spans()
        .into_iter()
        .find(|span| span.0.span_kind == SpanKind::Server);
    assert_eq!(root.unwrap().parent(), other);
}

// faults G14
#[tokio::test]
async fn the_path_in_a_nested_router_is_the_whole_one() {
    let recorder = Recorder::new();
    let inner = Router::new()
        .route("/resize/{options}", get(async || "a picture"))
        .layer(recorder.layer());
    let app = Router::new().nest("/img", inner);
    let request = Request::get("/img/resize/w:100?q=1")
        .body(AxumBody::empty())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    let root = recorder.root();
    assert_eq!(root.get("url.path").as_deref(), Some("/img/resize/w:100"));
    assert_eq!(root.get("url.query").as_deref(), Some("q=1"));
    assert_eq!(
        root.get("http.route").as_deref(),
        Some("/img/resize/{options}")
    );
}

// faults A11
#[tokio::test]
async fn a_layer_around_a_router_learns_the_route_of_handlers_without_the_extractor() {
    let recorder = Recorder::new();
    let app = Router::new()
        .route("/resize/{options}", get(async || "a picture"))
        .route_layer(from_extractor::<RequestTrace>());
    let app = recorder.layer().layer(app);
    let request = Request::get("/resize/w:100")
        .body(AxumBody::empty())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    let root = recorder.root();
    assert_eq!(root.get("http.route").as_deref(), Some("/resize/{options}"));
    assert_eq!(root.name(), "GET /resize/{options}");
}

// faults A13, F8
#[tokio::test]
async fn the_size_of_a_request_is_what_the_service_has_read() {
    async fn read(body: AxumBody) -> Result<String, StatusCode> {
        let bytes = body.collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
        Ok(bytes.to_bytes().len().to_string())
    }
    let sizes = |recorder: &Recorder| {
        let size = recorder.root().get("http.request.body.size");
        let series = recorder.series("http.server.request.body.size");
        (
            size,
            series.iter().map(|series| series.sum).collect::<Vec<_>>(),
        )
    };
    // Without Content-Length, and with one that is not kept.
    for announced in [None, Some("1000000")] {
        let recorder = Recorder::new();
        let app = Router::new()
            .route("/", axum::routing::post(read))
            .layer(recorder.layer());
        let (frames, body) = ChannelBody::new();
        frames.send(data("ten bytes.")).unwrap();
        frames.send(data("and more")).unwrap();
        drop(frames);
        let mut request = Request::post("/").body(AxumBody::new(body)).unwrap();
        if let Some(announced) = announced {
            let announced = announced.parse().unwrap();
            request.headers_mut().insert("content-length", announced);
        }
        let response = app.oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(sizes(&recorder), (Some("18".to_owned()), vec![18.0]));
    }

    // A body of any other type is counted when the handle is asked to.
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(async |request: Request<Full<Bytes>>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let body = trace.request_body(request.into_body());
            assert_eq!(body.size_hint().exact(), Some(5));
            body.collect().await.unwrap();
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
    let request = Request::post("/").body(Full::from("bytes")).unwrap();
    service.oneshot(request).await.unwrap();
    assert_eq!(sizes(&recorder), (Some("5".to_owned()), vec![5.0]));

    // A body that is counted and not read has no size but 0.
    let recorder = Recorder::new();
    let app = Router::new()
        .route("/", axum::routing::post(async || StatusCode::OK))
        .layer(recorder.layer());
    let request = Request::post("/").header("content-length", "5");
    let request = request.body(AxumBody::from("bytes")).unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(sizes(&recorder), (Some("0".to_owned()), vec![0.0]));

    // What was announced and not counted is believed when the service has answered.
    for (answer, size) in [
        (Some(200), Some("1000000".to_owned())),
        (Some(303), Some("1000000".to_owned())),
        (Some(400), None),
        (Some(413), None),
        (Some(500), None),
        (None, None),
    ] {
        let recorder = Recorder::new();
        let service = recorder
            .layer()
            .layer(service_fn(move |_: Request<()>| async move {
                let gone = io::Error::from(io::ErrorKind::ConnectionReset);
                let status = answer.ok_or(gone)?;
                let response = Response::builder().status(status);
                Ok::<_, io::Error>(response.body(String::new()).unwrap())
            }));
        let request = Request::post("/")
            .header("content-length", "1000000")
            .body(())
            .unwrap();
        let _ = service.oneshot(request).await;
        assert_eq!(recorder.root().get("http.request.body.size"), size);
    }
}

/// Panics where it is told to.
struct Trap {
    at: &'static str,
}

impl Trap {
    fn spring(&self, place: &str) {
        assert!(self.at != place, "sprung at {place}");
    }
}

impl Body for Trap {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.spring("poll");
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.spring("end");
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.spring("hint");
        SizeHint::default()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        if self.at == "drop" {
            panic!("sprung at drop");
        }
    }
}

// faults F2
#[tokio::test]
async fn a_panic_is_the_services_own_and_no_other_is_added() {
    let service = |recorder: &Recorder, at: &'static str| {
        recorder
            .layer()
            .layer(service_fn(move |_: Request<()>| async move {
                Ok::<_, Infallible>(Response::new(Trap { at }))
            }))
    };
    // What this crate asks of a body, its consumer may never ask.
    for at in ["end", "hint", "none"] {
        let recorder = Recorder::new();
        let mut response = service(&recorder, at)
            .oneshot(get_request("/"))
            .await
            .unwrap();
        assert!(response.body_mut().frame().await.is_none());
        recorder.root().assert_no_error();
    }
    // The consumer's own question panics, as it would without the layer.
    for (at, ask) in [
        (
            "end",
            (|body| assert!(!body.ask_end())) as fn(&mut dyn Asked),
        ),
        ("hint", |body| assert_eq!(body.ask_size().exact(), None)),
    ] {
        let recorder = Recorder::new();
        let mut response = service(&recorder, at)
            .oneshot(get_request("/"))
            .await
            .unwrap();
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let mut body = response.into_body();
            ask(&mut body);
        }));
        response = service(&recorder, "none")
            .oneshot(get_request("/"))
            .await
            .unwrap();
        drop(response);
        assert!(asked.is_err());
        let error = recorder.spans().remove(0).get("error.type");
        assert_eq!(error.as_deref(), Some("panic"), "{at}");
    }
    // A panic in the drop of the body.
    let recorder = Recorder::new();
    let response = service(&recorder, "drop")
        .oneshot(get_request("/"))
        .await
        .unwrap();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(response)));
    assert!(dropped.is_err());
    assert_eq!(recorder.root().get("error.type").as_deref(), Some("panic"));
    recorder.assert_nothing_active();
}

/// Ready at once with what it holds; panics when it is dropped after that.
struct DroppedBadly<T>(Option<T>);

impl<T: Unpin> Future for DroppedBadly<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<T> {
        Poll::Ready(self.0.take().unwrap())
    }
}

impl<T> Drop for DroppedBadly<T> {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

// faults F2: the caller gets what the service said before it panicked.
#[tokio::test]
async fn a_panic_in_a_drop_takes_nothing_from_the_caller() {
    // Of the future, with a response or an error, in the layers and in a stage.
    for fails in [false, true] {
        let answer = move || match fails {
            false => Ok(Response::new(Full::new(Bytes::from_static(b"picture")))),
            true => Err(io::Error::other("no picture")),
        };
        let recorder = Recorder::new();
        let service = service_fn(move |_: Request<()>| DroppedBadly(Some(answer())));
        let download = DownloadLayer::builder()
            .tracer_provider(recorder.tracers.clone())
            .build();
        let result = recorder.layer().layer(service).oneshot(get_request("/"));
        let result = result.await;
        assert_eq!(result.is_err(), fails);
        if let Ok(response) = result {
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "picture");
        }
        let result = download.layer(service).oneshot(get_request("http://a/"));
        assert_eq!(result.await.is_err(), fails);
        let traced = recorder
            .layer()
            .layer(service_fn(move |request: Request<()>| async move {
                let trace = RequestTrace::from_extensions(request.extensions());
                let future = DroppedBadly(Some(answer()));
                let result = trace.stage("badly").run(future).await;
                assert_eq!(result.is_err(), fails);
                Ok::<_, Infallible>(Response::new(String::new()))
            }));
        traced.oneshot(get_request("/")).await.unwrap();
        let spans = recorder.spans();
        let panicked = spans
            .iter()
            .filter(|span| span.get("error.type").as_deref() == Some("panic"));
        assert_eq!(panicked.count(), 3, "{spans:#?}");
        recorder.assert_nothing_active();
    }

    // Of a body that was read to its end.
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Trap { at: "drop" }))
    }));
    let mut response = service.oneshot(get_request("/")).await.unwrap();
    assert!(response.body_mut().frame().await.is_none());
    drop(response);
    recorder.root().assert_error("panic", "sprung at drop");
}

/// What a consumer may ask a body.
trait Asked {
    fn ask_end(&self) -> bool;
    fn ask_size(&self) -> SizeHint;
}

impl<B: Body> Asked for B {
    fn ask_end(&self) -> bool {
        Body::is_end_stream(self)
    }

    fn ask_size(&self) -> SizeHint {
        Body::size_hint(self)
    }
}

// faults F2: a second panic while the first one unwinds would abort the process.
#[tokio::test]
async fn a_future_that_panics_twice_does_not_abort() {
    struct Twice;
    impl Future for Twice {
        type Output = Result<Response<String>, Infallible>;
        fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Self::Output> {
            panic!("in poll")
        }
    }
    impl Drop for Twice {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(|_: Request<()>| Twice));
    let task = tokio::spawn(async move {
        let mut service = service;
        service.ready().await.unwrap().call(get_request("/")).await
    });
    assert!(task.await.unwrap_err().is_panic());
    let root = recorder.root();
    root.assert_error("panic", "in poll");
}

// faults F2: closures of the service's are asked, never trusted.
#[tokio::test]
async fn a_closure_that_panics_fails_no_request() {
    let recorder = Recorder::new();
    let layer = recorder
        .builder()
        .filter(|parts| -> Record { panic!("filter of {}", parts.uri) })
        .trust(|parts| -> Trust { panic!("trust of {}", parts.uri) })
        .peer_address(|_| panic!("peer"))
        .build();
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let mut request = get_request("/");
    request
        .headers_mut()
        .insert("traceparent", TRACEPARENT.parse().unwrap());
    service.oneshot(request).await.unwrap();
    let root = recorder.root();
    root.assert_no_error();
    assert_ne!(
        root.trace_id().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
}

// faults F2: nor does what the layer asks of a request's body.
#[tokio::test]
async fn a_request_body_that_panics_is_the_services_to_meet() {
    let recorder = Recorder::new();
    let app = Router::new()
        .route("/", axum::routing::post(async || "a picture"))
        .layer(recorder.layer());
    let body = AxumBody::new(Trap { at: "end" });
    let request = Request::post("/").body(body).unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    recorder.root().assert_no_error();
}

// faults F9
#[tokio::test]
async fn a_host_that_no_uri_can_have_names_no_server() {
    for (hosts, address) in [
        (vec!["2001:db8::1"], None),
        (vec!["[2001:db8::1]:80"], Some("2001:db8::1")),
        (vec!["user:secret@a.example"], None),
        (vec!["a.example", "b.example"], None),
        (vec!["a.example", ""], None),
        (vec![""], None),
        (vec!["a_b.example:"], Some("a_b.example")),
    ] {
        let recorder = Recorder::new();
        let request = |uri| {
            let mut request = get_request(uri);
            for host in &hosts {
                let host = host.parse().unwrap();
                request.headers_mut().append("host", host);
            }
            request
        };
        let service =
            service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
        let traced = recorder.layer().layer(service);
        traced.oneshot(request("/")).await.unwrap();
        let download = DownloadLayer::builder().tracer_provider(recorder.tracers.clone());
        let fetched = download.build().layer(service);
        fetched.oneshot(request("/cat.jpg")).await.unwrap();
        for span in recorder.spans() {
            let found = span.get("server.address");
            assert_eq!(found.as_deref(), address, "{hosts:?}");
        }
    }
}

/// Notes the attributes that it is shown.
#[derive(Clone, Debug, Default)]
struct Shown(Arc<Mutex<Vec<KeyValue>>>);

impl ShouldSample for Shown {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        self.0.lock().unwrap().extend(attributes.iter().cloned());
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: parent
                .map(|parent| parent.span().span_context().trace_state().clone())
                .unwrap_or_default(),
        }
    }
}

// faults F7
#[tokio::test]
async fn a_sampler_sees_the_matched_route() {
    let shown = Shown::default();
    let recorder = Recorder::with(|builder| builder.with_sampler(shown.clone()));
    let app = Router::new()
        .route("/resize/{options}", get(async || "a picture"))
        .layer(recorder.layer());
    let request = Request::get("/resize/w:1").body(AxumBody::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    let route = KeyValue::new("http.route", "/resize/{options}");
    assert!(shown.0.lock().unwrap().contains(&route));
    let root = recorder.root();
    let routes = root
        .0
        .attributes
        .iter()
        .filter(|it| it.key.as_str() == "http.route");
    assert_eq!(routes.count(), 1);
}

// faults F7
#[tokio::test]
async fn a_sampler_that_telemetry_was_given_sees_the_attributes() {
    let shown = Shown::default();
    let sampler = shown.clone();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .endpoint("http://127.0.0.1:9")
        .tracer_provider_with(|provider| provider.with_sampler(sampler))
        .build()
        .unwrap();
    let service = telemetry
        .trace_layer()
        .layer(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
    service.oneshot(get_request("/picture")).await.unwrap();
    let path = KeyValue::new("url.path", "/picture");
    assert!(shown.0.lock().unwrap().contains(&path));
}

/// A request that is not recorded goes on in the context that was current.
#[tokio::test]
async fn a_skipped_request_keeps_the_current_context() {
    use opentelemetry::baggage::BaggageExt;
    let recorder = Recorder::new();
    let layer = recorder.builder().filter(|_| false).build();
    for traceparent in [None, Some(TRACEPARENT)] {
        let service = layer.layer(service_fn(async |_: Request<()>| {
            let tier = Context::map_current(|context| context.baggage().get("tier").cloned());
            assert_eq!(tier.unwrap().as_str(), "gold");
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
        let mut request = get_request("/");
        if let Some(traceparent) = traceparent {
            let value = traceparent.parse().unwrap();
            request.headers_mut().insert("traceparent", value);
        }
        let current = Context::new().with_baggage([KeyValue::new("tier", "gold")]);
        // The response is waited for elsewhere, as behind a buffer.
        let response = {
            let _current = current.attach();
            service.clone().call(request)
        };
        response.await.unwrap();
    }
    assert!(recorder.spans().is_empty());
}

// faults G4
#[tokio::test]
async fn a_telemetry_gives_a_download_layer_that_can_be_changed() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot send")]
    struct ClientError(#[source] io::Error);

    let exporter = opentelemetry_sdk::trace::InMemorySpanExporter::default();
    let spans = exporter.clone();
    let telemetry = Telemetry::builder()
        .endpoint("127.0.0.1:1")
        .tracer_provider_with(|provider| provider.with_simple_exporter(exporter))
        .build()
        .unwrap();
    let off = Telemetry::builder().vars([("", ""); 0]).build().unwrap();
    for telemetry in [&telemetry, &off] {
        let layer = telemetry.download_layer_builder();
        let layer = layer.record_errors_as::<ClientError>().build();
        let client = layer.layer(service_fn(async |_: Request<()>| {
            let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
            Err::<Response<String>, _>(ClientError(cause))
        }));
        client.oneshot(get_request("http://a/")).await.unwrap_err();
    }
    let spans = spans.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    let kind = KeyValue::new("error.type", "connect");
    assert!(spans[0].attributes.contains(&kind), "{spans:#?}");
    telemetry.shutdown_blocking(Duration::ZERO).ok();
}
