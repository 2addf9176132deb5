//! The trace of each request shows its stages and how they ended.

use axum::{
    Router,
    body::{Body, HttpBody},
    http::{Method, Request, StatusCode},
    routing::get,
};
use http_body_util::BodyExt;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::trace::SpanData;
use tower::ServiceExt;

use super::{Limits, OnDrop, Service, origin, serve};

const ROOT: &str = "GET /resize/{options}/{source}";

/// All spans of a service's only request, after its end.
struct Trace(Vec<SpanData>);

impl Service {
    /// Waits for the end of the only request, which may come after the client has its answer.
    async fn trace(&self) -> Trace {
        while self.app.in_progress.requests() > 0 {
            tokio::task::yield_now().await;
        }
        let spans = self.spans.get_finished_spans().unwrap();
        self.spans.reset();
        assert_eq!(self.app.in_progress.images(), 0);
        let trace = Trace(spans);
        let root = trace.span(ROOT);
        for span in &trace.0 {
            assert_eq!(span.span_context.trace_id(), root.span_context.trace_id());
            if span.name != ROOT {
                let parent = match &*span.name {
                    "GET" => trace.span("downloading_image"),
                    _ => root,
                };
                assert_eq!(
                    span.parent_span_id,
                    parent.span_context.span_id(),
                    "{}",
                    span.name
                );
                assert!(root.start_time <= span.start_time && span.end_time <= root.end_time);
            }
        }
        trace
    }

    fn request(&self, options: &str, source: &str) -> Request<Body> {
        let path = format!("/resize/{options}/plain/http://{}{source}", self.origin);
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }
}

impl Trace {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|span| &*span.name).collect()
    }

    fn span(&self, name: &str) -> &SpanData {
        let mut named = self.0.iter().filter(|span| span.name == name);
        let span = named
            .next()
            .unwrap_or_else(|| panic!("{name} in {:?}", self.names()));
        assert!(named.next().is_none(), "one {name} in {:?}", self.names());
        span
    }

    fn attribute(&self, span: &str, key: &str) -> Option<String> {
        let attributes = &self.span(span).attributes;
        let attribute = attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key);
        attribute.map(|attribute| attribute.value.to_string())
    }

    fn has(&self, span: &str, attributes: &[(&str, &str)]) {
        for (key, value) in attributes {
            assert_eq!(
                self.attribute(span, key).as_deref(),
                Some(*value),
                "{span}: {key}"
            );
        }
    }

    /// The message of a span's only error.
    fn error(&self, span: &str) -> String {
        let [event] = &*self.span(span).events.events else {
            panic!("one event of {span}");
        };
        let mut attributes = event.attributes.iter();
        let message = attributes.find(|attribute| attribute.key.as_str() == "exception.message");
        message.unwrap().value.to_string()
    }
}

#[tokio::test]
async fn a_resize_has_four_stages() {
    let service = Service::start().await;
    let answer = service.resize("rs:fit:90:90/f:jpg", "/chelsea.png").await;
    let trace = service.trace().await;
    assert_eq!(
        trace.names(),
        [
            "queue",
            "GET",
            "downloading_image",
            "processing_image",
            "streaming_image",
            ROOT
        ]
    );
    let origin = format!("http://{}", service.origin);
    trace.has(
        "downloading_image",
        &[
            ("image.source.url", &format!("{origin}/chelsea.png")),
            ("image.source.origin", &origin),
            ("image.source.size", "240512"),
        ],
    );
    let size = answer.body.len().to_string();
    trace.has(
        "processing_image",
        &[
            ("image.processing.options", "rs:fit:90:90/f:jpg"),
            ("image.source.format", "png"),
            ("image.source.width", "451"),
            ("image.source.height", "300"),
            ("image.result.format", "jpeg"),
            ("image.result.width", "90"),
            ("image.result.height", "60"),
            ("image.result.size", &size),
        ],
    );
    trace.has(
        ROOT,
        &[
            ("http.route", "/resize/{options}/{source}"),
            ("http.response.status_code", "200"),
            ("http.response.body.size", &size),
        ],
    );
    assert_eq!(trace.span(ROOT).span_kind, SpanKind::Server);
}

/// What a result does not show of its source is on the span.
#[tokio::test]
async fn animations_and_profiles_are_on_the_span() {
    // faults E3, E6
    let animation = include_bytes!("pictures/anim.webp").as_slice();
    let profile = include_bytes!("pictures/icc_swapped.png").as_slice();
    let router = Router::new()
        .route("/animation", get(animation))
        .route("/profile", get(profile));
    let service = Service::with(serve(router).await, Limits::default()).await;
    for (source, animated, profile) in [
        ("/animation", "true", "none"),
        ("/profile", "false", "converted"),
    ] {
        service.resize("w:9", source).await;
        service.trace().await.has(
            "processing_image",
            &[
                ("image.source.animated", animated),
                ("image.source.color_profile", profile),
            ],
        );
    }
}

/// An error is recorded on its stage and on the request.
#[tokio::test]
async fn errors_are_on_their_stage() {
    let service = Service::start().await;
    for (source, stage, sentence) in [
        (
            "/missing.png",
            "downloading_image",
            "the source does not exist: its origin answered 404 Not Found",
        ),
        (
            "/notes.txt",
            "processing_image",
            "the source is not a JPEG, PNG or WebP picture",
        ),
    ] {
        let answer = service.resize("w:9", source).await;
        assert_eq!(answer.text(), format!("{sentence}\n"));
        let trace = service.trace().await;
        assert_eq!(trace.error(stage), sentence);
        assert_eq!(trace.error(ROOT), sentence);
        assert_eq!(trace.span(stage).status, Status::error(sentence));
        // A 4xx is not an error of the server.
        assert_eq!(trace.span(ROOT).status, Status::Unset);
    }
}

#[tokio::test]
async fn refused_requests_have_no_stages() {
    let service = Service::start().await;
    for path in [
        "/resize/w:wide/plain/x",
        "/resize/w:9/plain/http://foreign/cat.png",
    ] {
        let answer = service.get(path).await;
        let trace = service.trace().await;
        assert_eq!(trace.names(), [ROOT]);
        assert_eq!(format!("{}\n", trace.error(ROOT)), answer.text());
    }
}

#[tokio::test]
async fn a_full_queue_is_an_error_of_the_queue() {
    let limits = Limits {
        workers: 0,
        queue: 0,
        ..Limits::default()
    };
    let service = Service::with(origin::start().await.unwrap(), limits).await;
    service.resize("w:9", "/chelsea.png").await;
    let trace = service.trace().await;
    let sentence = "all workers are busy and the queue is full";
    assert_eq!(trace.names(), ["queue", ROOT]);
    assert_eq!(trace.error("queue"), sentence);
    trace.has(ROOT, &[("error.type", "503")]);
}

/// The trace says why an origin could not be reached. The client is not told.
#[tokio::test]
async fn causes_are_in_the_trace_only() {
    let service = Service::with(([127, 0, 0, 1], 1).into(), Limits::default()).await;
    let answer = service.resize("w:9", "/cat.png").await;
    let error = service.trace().await.error("downloading_image");
    assert!(error.starts_with(answer.text().trim_end()));
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_download() {
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (end, mut over) = tokio::sync::mpsc::unbounded_channel();
    let slow = async move || {
        let _over = OnDrop(end.clone());
        let _ = ask.send(());
        std::future::pending::<()>().await;
    };
    let origin = serve(Router::new().route("/slow.png", get(slow))).await;
    let service = Service::with(origin, Limits::default()).await;
    tokio::select! {
        answer = service.resize("w:9", "/slow.png") => panic!("{answer:?}"),
        _ = asked.recv() => {
            assert_eq!(service.app.in_progress.requests(), 1);
            assert_eq!(service.app.in_progress.images(), 1);
        }
    }
    over.recv().await.unwrap();
    let trace = service.trace().await;
    assert_eq!(trace.names(), ["queue", "GET", "downloading_image", ROOT]);
    trace.has("downloading_image", &[("image.stage.cancelled", "true")]);
    trace.has(ROOT, &[("image.request.cancelled", "downloading_image")]);
    assert_eq!(trace.span(ROOT).status, Status::Unset);
    assert_eq!(service.idle_workers().await, 2);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_stream() {
    let service = Service::start().await;
    let request = service.request("f:png", "/rocket.jpg");
    let response = service.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(chunk.len(), 16 * 1024);
    drop(body);
    let trace = service.trace().await;
    trace.has("streaming_image", &[("image.stage.cancelled", "true")]);
    trace.has(
        ROOT,
        &[
            ("image.request.cancelled", "streaming_image"),
            ("http.response.body.size", "16384"),
        ],
    );
}

#[tokio::test]
async fn the_stream_ends_with_its_last_chunk() {
    let service = Service::start().await;
    let request = service.request("f:png", "/rocket.jpg");
    let response = service.router.clone().oneshot(request).await.unwrap();
    let mut body = response.into_body();
    let mut left = body.size_hint().exact().unwrap();
    let is_over = || {
        let spans = service.spans.get_finished_spans().unwrap();
        spans.iter().any(|span| span.name == "streaming_image")
    };
    while left > 0 {
        assert!(!is_over(), "{left}");
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        left -= chunk.len() as u64;
    }
    assert!(is_over(), "the body is still held");
    drop(body);
    service
        .trace()
        .await
        .has(ROOT, &[("http.response.status_code", "200")]);
}

#[tokio::test]
async fn the_upstreams_trace_is_continued() {
    let service = Service::start().await;
    let mut request = service.request("w:9", "/rocket.jpg");
    let upstream = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .headers_mut()
        .insert("traceparent", upstream.parse().unwrap());
    let response = service.router.clone().oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    let trace = service.trace().await;
    let root = trace.span(ROOT);
    let id = TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!(root.span_context.trace_id(), id);
    assert_eq!(root.parent_span_id, SpanId::from(0x00f0_67aa_0ba9_02b7));
}

#[tokio::test]
async fn health_checks_leave_no_trace() {
    let service = Service::start().await;
    service.send(Method::GET, "/health").await;
    assert!(service.spans.get_finished_spans().unwrap().is_empty());
}
