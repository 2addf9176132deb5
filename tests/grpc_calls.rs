//! gRPC calls are recorded as such: by method and status code, wherever the code is written.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{ImageTraceLayer, RequestTrace};

use crate::support::{
    ChannelBody, Recorder,
    body::{Fed, data},
};

const METHOD: &str = "thumbs.v1.Thumbnailer/Resize";
const DURATION: &str = "rpc.server.call.duration";

fn call(method: &str, content_type: &str) -> Request<()> {
    let request = Request::post(format!("http://thumbs.example:50051/{method}"))
        .version(http::Version::HTTP_2)
        .header("content-type", content_type);
    request.body(()).unwrap()
}

fn grpc() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

fn trailers(code: &'static str) -> Fed {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Ok(Frame::trailers(trailers))
}

/// Answers `request` with this head and these frames, and reads them to the end.
async fn answer(
    layer: &ImageTraceLayer,
    request: Request<()>,
    head: http::response::Builder,
    frames: Vec<Fed>,
) {
    let (sender, body) = ChannelBody::new();
    for frame in frames {
        sender.send(frame).unwrap();
    }
    drop(sender);
    let mut response = Some(head.body(body).unwrap());
    let service = layer.layer(service_fn(|_| {
        let response = response.take().unwrap();
        async { Ok::<_, Infallible>(response) }
    }));
    let mut body = service.oneshot(request).await.unwrap().into_body();
    while let Some(Ok(_)) = body.frame().await {}
}

async fn answer_call(recorder: &Recorder, head: http::response::Builder, frames: Vec<Fed>) {
    let request = call(METHOD, "application/grpc+proto");
    answer(&recorder.layer(), request, head, frames).await;
}

#[tokio::test]
async fn a_call_is_named_after_its_method_and_has_the_status_of_its_trailers() {
    let recorder = Recorder::new();
    answer_call(&recorder, grpc(), vec![data("message"), trailers("0")]).await;
    let root = recorder.root();
    root.assert_no_error();
    assert_eq!(root.name(), METHOD);
    assert_eq!(
        root.keys(),
        [
            "http.response.body.size",
            "http.response.status_code",
            "rpc.method",
            "rpc.response.status_code",
            "rpc.system.name",
            "server.address",
            "server.port",
        ]
    );
    assert_eq!(root.get("rpc.system.name").as_deref(), Some("grpc"));
    assert_eq!(root.get("rpc.method").as_deref(), Some(METHOD));
    assert_eq!(root.get("rpc.response.status_code").as_deref(), Some("OK"));
    let series = recorder.only_series(DURATION);
    assert_eq!(
        Vec::from_iter(&series.attributes),
        [
            (&"rpc.method".to_owned(), &METHOD.to_owned()),
            (&"rpc.response.status_code".to_owned(), &"OK".to_owned()),
            (&"rpc.system.name".to_owned(), &"grpc".to_owned()),
        ]
    );
    assert!(recorder.series("http.server.request.duration").is_empty());
    recorder.assert_nothing_active();
}

#[tokio::test]
async fn the_codes_that_are_a_servers_errors() {
    let errors = ["2", "4", "12", "13", "14", "15"];
    let names = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let number: &'static str = number.to_string().leak();
        for trailers_only in [false, true] {
            let recorder = Recorder::new();
            if trailers_only {
                answer_call(&recorder, grpc().header("grpc-status", number), vec![]).await;
            } else {
                answer_call(&recorder, grpc(), vec![trailers(number)]).await;
            }
            let root = recorder.root();
            assert_eq!(root.get("rpc.response.status_code").as_deref(), Some(name));
            if errors.contains(&number) {
                root.assert_error(name, "");
            } else {
                root.assert_no_error();
            }
            let series = recorder.only_series(DURATION);
            assert_eq!(series.attributes["rpc.response.status_code"], name);
            assert_eq!(
                series.attributes.get("error.type").map(String::as_str),
                errors.contains(&number).then_some(name)
            );
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_status_is_what_clients_make_of_it() {
    for (head, code) in [
        (grpc(), "UNKNOWN"),
        (grpc().header("grpc-status", "99"), "UNKNOWN"),
        (Response::builder().status(200), "UNKNOWN"),
        (Response::builder().status(400), "INTERNAL"),
        (Response::builder().status(401), "UNAUTHENTICATED"),
        (Response::builder().status(403), "PERMISSION_DENIED"),
        (Response::builder().status(404), "UNIMPLEMENTED"),
        (Response::builder().status(418), "UNKNOWN"),
        (Response::builder().status(429), "UNAVAILABLE"),
        (Response::builder().status(500), "UNKNOWN"),
        (Response::builder().status(502), "UNAVAILABLE"),
        (Response::builder().status(503), "UNAVAILABLE"),
        (Response::builder().status(504), "UNAVAILABLE"),
    ] {
        let recorder = Recorder::new();
        answer_call(&recorder, head, vec![data("no trailers")]).await;
        let root = recorder.root();
        assert_eq!(root.get("rpc.response.status_code").as_deref(), Some(code));
        assert_eq!(root.get("image.request.cancelled"), None);
    }
}

#[tokio::test]
async fn trailers_without_a_status_change_nothing() {
    let recorder = Recorder::new();
    let head = Response::builder().status(503);
    let trailers = Ok(Frame::trailers(HeaderMap::new()));
    answer_call(&recorder, head, vec![trailers]).await;
    recorder.root().assert_error("UNAVAILABLE", "");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    frames.send(data("message")).unwrap();
    // What was announced is out, but the status is not.
    let mut response = Some(grpc().body(body.with_exact_size(7)).unwrap());
    let service = recorder.layer().layer(service_fn(|_| {
        let response = response.take().unwrap();
        async { Ok::<_, Infallible>(response) }
    }));
    let request = call(METHOD, "application/grpc");
    let mut body = service.oneshot(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let root = recorder.root();
    root.assert_no_error();
    assert_eq!(root.name(), METHOD);
    assert_eq!(
        root.get("image.request.cancelled").as_deref(),
        Some("response_body")
    );
    assert_eq!(
        root.get("rpc.response.status_code").as_deref(),
        Some("CANCELLED")
    );
    recorder.assert_nothing_active();
}

#[tokio::test]
async fn invented_methods_add_no_series() {
    let recorder = Recorder::new();
    let layer = recorder.layer();
    let refusals = [
        grpc as fn() -> _,
        || Response::builder().status(404),
        || Response::builder().status(200),
    ];
    for (index, refusal) in (0..50).zip(refusals.into_iter().cycle()) {
        let head = refusal().header("grpc-status", "12");
        let request = call(&format!("invented.v{index}/Method"), "application/grpc");
        answer(&layer, request, head, vec![]).await;
    }
    let series = recorder.only_series(DURATION);
    assert_eq!(series.count, 50);
    assert_eq!(series.attributes["rpc.method"], "_OTHER");
    for (index, span) in recorder.spans().iter().enumerate() {
        assert_eq!(span.name(), "grpc");
        assert_eq!(span.get("rpc.method").as_deref(), Some("_OTHER"));
        assert_eq!(
            span.get("rpc.method_original"),
            Some(format!("invented.v{index}/Method"))
        );
    }
}

#[tokio::test]
async fn no_more_methods_are_learned_than_a_server_may_have() {
    let recorder = Recorder::new();
    let layer = recorder.layer();
    for index in 0..520 {
        let head = grpc().header("grpc-status", "0");
        let request = call(&format!("invented.v{index}/Method"), "application/grpc");
        answer(&layer, request, head, vec![]).await;
    }
    assert_eq!(recorder.series(DURATION).len(), 513);
    let others = recorder.only_series_of(DURATION, "rpc.method", "_OTHER");
    assert_eq!(others.count, 8);
}

#[tokio::test]
async fn a_method_that_was_answered_once_is_known_from_the_start() {
    let recorder = Recorder::new();
    let layer = recorder.layer();
    for code in ["0", "14"] {
        let head = grpc().header("grpc-status", code);
        let request = call(METHOD, "application/grpc");
        answer(&layer, request, head, vec![]).await;
    }
    let [first, second] = <[_; 2]>::try_from(recorder.spans()).unwrap();
    for span in [first, second] {
        assert_eq!(span.name(), METHOD);
        assert_eq!(span.get("rpc.method").as_deref(), Some(METHOD));
    }
}

#[tokio::test]
async fn a_path_that_no_method_can_have_is_not_learned() {
    let recorder = Recorder::new();
    let layer = recorder.layer();
    let paths = [
        "",
        "cat",
        "cats/",
        "/Resize",
        "cats/42-17",
        "a/b/c",
        "cats/42.jpg",
    ];
    for path in paths {
        let head = grpc().header("grpc-status", "0");
        answer(&layer, call(path, "application/grpc"), head, vec![]).await;
    }
    let series = recorder.only_series(DURATION);
    assert_eq!(series.attributes["rpc.method"], "_OTHER");
    assert_eq!(series.count, paths.len() as u64);
}

#[tokio::test]
async fn a_call_that_is_cancelled_at_work_is_named_on_its_span_only() {
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(|request: Request<()>| async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            let _stage = trace.download("http://cdn.example/cat.jpg");
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
    let mut call = Box::pin(service.oneshot(call(METHOD, "application/grpc")));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    let root = recorder.root();
    assert_eq!(root.name(), METHOD);
    assert_eq!(
        root.get("image.request.cancelled").as_deref(),
        Some("downloading_image")
    );
    assert_eq!(
        recorder.only_series(DURATION).attributes["rpc.method"],
        "_OTHER"
    );
}

#[tokio::test]
async fn a_path_on_which_no_method_worked_is_no_method() {
    let refused = async |method: &str, works: bool, answers: bool| {
        let recorder = Recorder::new();
        let service = recorder
            .layer()
            .layer(service_fn(|request: Request<()>| async move {
                let trace = RequestTrace::from_extensions(request.extensions());
                let _stage = works.then(|| trace.queue());
                if !answers {
                    std::future::pending::<()>().await;
                }
                let refusal = grpc().header("grpc-status", "12");
                Ok::<_, Infallible>(refusal.body(String::new()).unwrap())
            }));
        let mut call = Box::pin(service.oneshot(call(method, "application/grpc")));
        let answered = futures_util::poll!(&mut call).is_ready();
        assert_eq!(answered, answers);
        drop(call);
        recorder.root()
    };
    // Base64 of `http://user:s3cret@`.
    let secret = "sig/aHR0cDovL3VzZXI6czNjcmV0QGEv";
    for root in [
        // Cancelled before anybody began, or refused by who works for any path.
        refused(METHOD, false, false).await,
        refused(METHOD, true, true).await,
        // A picture's path, which only looks like a method.
        refused(secret, true, false).await,
    ] {
        assert_eq!(root.name(), "grpc");
        assert_eq!(root.get("rpc.method").as_deref(), Some("_OTHER"));
        assert!(!format!("{root:?}").contains(secret), "{root:#?}");
    }
}

#[tokio::test]
async fn only_listed_methods_are_known_when_there_is_a_list() {
    let recorder = Recorder::new();
    // With or without the slash that paths have.
    let path = format!("/{METHOD}");
    let layer = recorder.builder().rpc_methods([path]).build();
    for method in [METHOD, "thumbs.v1.Thumbnailer/Unlisted"] {
        let head = grpc().header("grpc-status", "0");
        answer(&layer, call(method, "application/grpc"), head, vec![]).await;
    }
    let names: Vec<_> = recorder
        .spans()
        .iter()
        .map(|span| span.name().to_owned())
        .collect();
    assert_eq!(names, [METHOD, "grpc"]);
}

#[tokio::test]
async fn the_trailers_of_grpc_web_are_in_the_body() {
    let block = b"\x80\0\0\0\x11grpc-status: 13\r\n";
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, block);
    for (content_type, last) in [
        ("application/grpc-web+proto", Bytes::from_static(block)),
        ("application/grpc-web-text", Bytes::from(text)),
        (
            "application/grpc-web",
            Bytes::from_static(b"\x80\0\0\0\x11Grpc-Status: 13\r\n"),
        ),
    ] {
        let recorder = Recorder::new();
        let frames = vec![data("message"), Ok(Frame::data(last))];
        let head = Response::builder().header("content-type", content_type);
        answer(&recorder.layer(), call(METHOD, content_type), head, frames).await;
        let root = recorder.root();
        assert_eq!(root.name(), METHOD);
        root.assert_error("INTERNAL", "");
    }
}

#[tokio::test]
async fn a_message_that_begins_like_trailers_is_none() {
    for (content_type, message) in [
        ("application/grpc-web", b"\x80\0\0\0\xffgrpc-status: 13\r\n"),
        ("application/grpc", b"\x80\0\0\0\x11grpc-status: 13\r\n"),
    ] {
        let recorder = Recorder::new();
        let frames = vec![Ok(Frame::data(Bytes::from_static(message)))];
        let head = Response::builder().header("content-type", content_type);
        answer(&recorder.layer(), call(METHOD, content_type), head, frames).await;
        recorder.root().assert_error("UNKNOWN", "");
    }
}

#[tokio::test]
async fn a_content_type_may_have_a_format_and_parameters() {
    for content_type in [
        "Application/gRPC",
        "application/grpc+json",
        "application/grpc;charset=utf-8",
        "application/grpc ; charset=utf-8",
        "application/grpc-web; charset=utf-8",
    ] {
        let recorder = Recorder::new();
        let request = call(METHOD, content_type);
        answer(&recorder.layer(), request, grpc(), vec![trailers("0")]).await;
        assert_eq!(recorder.root().name(), METHOD, "{content_type}");
    }
}

#[tokio::test]
async fn other_content_types_are_plain_http() {
    for content_type in ["application/grpcish", "application/json", "application/grp"] {
        let recorder = Recorder::new();
        let request = call(METHOD, content_type);
        answer(&recorder.layer(), request, Response::builder(), vec![]).await;
        let root = recorder.root();
        assert_eq!(root.name(), "POST");
        assert_eq!(root.get("rpc.system.name"), None);
        recorder.only_series("http.server.request.duration");
    }
}
