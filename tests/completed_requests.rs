//! A request's span ends with the last frame of its response, and says what the response was.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::RequestTrace;

use crate::support::{ChannelBody, Recorder, body::data};

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

#[tokio::test]
async fn the_span_ends_with_the_last_frame() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    let mut body = Some(body);
    let service = recorder.layer().layer(service_fn(move |_| {
        let response = Response::new(body.take().unwrap());
        async { Ok::<_, std::io::Error>(response) }
    }));

    let mut response = service.oneshot(get("/cat.jpg")).await.unwrap();
    frames.send(data("first ")).unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert!(recorder.spans().is_empty(), "ended before its body did");
    assert!(recorder.series("http.server.request.duration").is_empty());
    let active = recorder.only_series("http.server.active_requests");
    assert_eq!(active.sum, 1.0);

    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    frames.send(data("second")).unwrap();
    drop(frames);
    response.body_mut().frame().await.unwrap().unwrap();
    assert!(response.body_mut().frame().await.is_none());

    let root = recorder.root();
    root.assert_no_error();
    assert_eq!(
        root.get("http.response.status_code").as_deref(),
        Some("200")
    );
    assert_eq!(root.get("http.response.body.size").as_deref(), Some("12"));
    assert_eq!(root.get("image.request.cancelled"), None);
    let took = root.0.end_time.duration_since(root.0.start_time).unwrap();
    assert!(took.as_millis() >= 300, "{took:?}");

    let duration = recorder.only_series("http.server.request.duration");
    assert_eq!(duration.count, 1);
    assert!(duration.sum >= 0.3);
    assert_eq!(duration.attributes.get("error.type"), None);
    let size = recorder.only_series("http.server.response.body.size");
    assert_eq!((size.count, size.sum), (1, 12.0));
    recorder.assert_nothing_active();
}

#[tokio::test]
async fn attributes_are_the_same_after_sampling() {
    let recorded = async |after| {
        let recorder = Recorder::new();
        let layer = recorder.builder().attributes_after_sampling(after).build();
        let service = layer.layer(service_fn(async |_| {
            Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from("x")))
        }));
        let request = Request::get("https://images.example:8443/cat.jpg?w=1");
        let request = request.header("user-agent", "curl/8").body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        recorder.root().0.attributes
    };
    let attributes = recorded(false).await;
    assert!(attributes.len() > 8, "{attributes:?}");
    assert_eq!(recorded(true).await, attributes);
}

#[tokio::test]
async fn requests_that_differ_are_series_of_their_own() {
    const KINDS: [(&str, &str, Version); 7] = [
        ("GET", "/200", Version::HTTP_11),
        ("POST", "/200", Version::HTTP_11),
        ("GET", "/404", Version::HTTP_11),
        ("GET", "/500", Version::HTTP_11),
        ("GET", "/200?route", Version::HTTP_11),
        ("GET", "/200", Version::HTTP_2),
        ("GET", "https://images.example/200", Version::HTTP_11),
    ];
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(async |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            trace.set_route(request.uri().query().unwrap_or_default());
            let mut response = Response::new(Full::<Bytes>::from("x"));
            *response.status_mut() = request.uri().path()[1..].parse().unwrap();
            Ok::<_, std::io::Error>(response)
        }));
    for (method, uri, version) in KINDS.iter().chain(&KINDS) {
        let request = Request::builder().method(*method).uri(*uri);
        let request = request.version(*version).body(()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }

    for metric in [
        "http.server.request.duration",
        "http.server.response.body.size",
    ] {
        let series = recorder.series(metric);
        assert_eq!(series.len(), KINDS.len(), "{metric} {series:?}");
        for series in series {
            assert_eq!(series.count, 2, "{metric} {series:?}");
        }
    }
    assert!(recorder.series("http.server.request.body.size").is_empty());
    assert_eq!(recorder.series("http.server.active_requests").len(), 3);
    recorder.assert_nothing_active();
}

#[tokio::test]
async fn statuses_say_what_semconv_says() {
    for (status, error_type) in [
        (200, None),
        (301, None),
        (404, None),
        (500, Some("500")),
        (503, Some("503")),
    ] {
        let recorder = Recorder::new();
        let service = recorder
            .layer()
            .layer(service_fn(move |_: Request<()>| async move {
                let mut response = Response::new(Full::new(Bytes::from_static(b"x")));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, std::io::Error>(response)
            }));
        let response = service.oneshot(get("/")).await.unwrap();
        response.collect().await.unwrap();

        let root = recorder.root();
        match error_type {
            None => root.assert_no_error(),
            Some(error_type) => {
                root.assert_error(error_type, "");
                assert!(root.exceptions().is_empty());
            }
        }
        let series = recorder.only_series("http.server.request.duration");
        assert_eq!(
            series.attributes["http.response.status_code"],
            status.to_string()
        );
        assert_eq!(
            series.attributes.get("error.type").map(String::as_str),
            error_type
        );
    }
}

#[tokio::test]
async fn the_request_is_described_by_the_stable_attributes() {
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(|_| async {
        Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
    }));
    let request = Request::post("/resize/cat.jpg?w=300&sig=secret")
        .header("host", "images.example:8080")
        .header("user-agent", "curl/8.0")
        .header("content-length", "17")
        .body(())
        .unwrap();
    service.oneshot(request).await.unwrap();

    let root = recorder.root();
    assert_eq!(root.name(), "POST");
    let expected = [
        ("http.request.method", "POST"),
        ("url.scheme", "http"),
        ("url.path", "/resize/cat.jpg"),
        ("url.query", "w=300&sig=REDACTED"),
        ("network.protocol.version", "1.1"),
        ("server.address", "images.example"),
        ("server.port", "8080"),
        ("user_agent.original", "curl/8.0"),
        ("http.request.body.size", "17"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "0"),
    ];
    let mut keys: Vec<_> = expected.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    assert_eq!(root.keys(), keys);
    for (key, value) in expected {
        assert_eq!(root.get(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(root.0.instrumentation_scope.name(), "tower-image-trace");

    let duration = recorder.only_series("http.server.request.duration");
    let labels: Vec<_> = duration
        .attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        labels,
        [
            ("http.request.method", "POST"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            ("url.scheme", "http"),
        ]
    );
    let active = recorder.only_series("http.server.active_requests");
    assert_eq!(
        active.attributes.keys().collect::<Vec<_>>(),
        ["http.request.method", "url.scheme"]
    );
    assert_eq!(
        recorder.only_series("http.server.request.body.size").sum,
        17.0
    );
}

/// hyper polls no body of these responses: dropping it is their regular end.
#[tokio::test]
async fn responses_without_a_body_are_complete_when_it_is_dropped() {
    let cases = [
        (Method::HEAD, 200),
        (Method::GET, 204),
        (Method::GET, 304),
        (Method::CONNECT, 200),
    ];
    for (method, status) in cases {
        let recorder = Recorder::new();
        let service = recorder
            .layer()
            .layer(service_fn(move |_: Request<()>| async move {
                let (_, body) = ChannelBody::new();
                let response = Response::builder()
                    .status(status)
                    .header("content-length", "1000")
                    .body(body);
                Ok::<_, std::io::Error>(response.unwrap())
            }));
        let request = Request::builder()
            .method(method.clone())
            .uri("http://a/")
            .body(())
            .unwrap();
        drop(service.oneshot(request).await.unwrap());
        let root = recorder.root();
        root.assert_no_error();
        assert_eq!(
            root.get("image.request.cancelled"),
            None,
            "{method} {status}"
        );
    }
}

/// hyper stops polling when the announced length is out.
#[tokio::test]
async fn a_body_that_gave_what_it_announced_is_complete_when_it_is_dropped() {
    for announced_by_header in [true, false] {
        for (sent, complete) in [("12345", true), ("1234", false)] {
            let recorder = Recorder::new();
            let (frames, body) = ChannelBody::new();
            let body = if announced_by_header {
                body
            } else {
                body.with_exact_size(5)
            };
            let mut response = Response::new(body);
            if announced_by_header {
                response
                    .headers_mut()
                    .insert("content-length", "5".parse().unwrap());
            }
            let mut response = Some(response);
            let service = recorder.layer().layer(service_fn(move |_| {
                let response = response.take().unwrap();
                async { Ok::<_, std::io::Error>(response) }
            }));
            let mut response = service.oneshot(get("/")).await.unwrap();
            frames.send(data(sent)).unwrap();
            response.body_mut().frame().await.unwrap().unwrap();
            drop(response);
            let cancelled = recorder.root().get("image.request.cancelled");
            assert_eq!(
                cancelled.is_none(),
                complete,
                "{announced_by_header} {sent} {cancelled:?}"
            );
        }
    }
}

#[tokio::test]
async fn trailers_are_the_end() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    let mut body = Some(body);
    let service = recorder.layer().layer(service_fn(move |_| {
        let response = Response::new(body.take().unwrap());
        async { Ok::<_, std::io::Error>(response) }
    }));
    let mut response = service.oneshot(get("/")).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    frames.send(data("x")).unwrap();
    frames.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    let last = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap(), trailers);
    drop(response);
    assert_eq!(recorder.root().get("image.request.cancelled"), None);
}

#[tokio::test]
async fn the_response_is_passed_on_untouched() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    frames.send(data("abc")).unwrap();
    drop(frames);
    let mut given = Response::builder()
        .status(207)
        .version(http::Version::HTTP_2)
        .header("x-a", "1")
        .header("x-a", "2")
        .body(body.with_exact_size(3))
        .unwrap();
    given.extensions_mut().insert(42_u8);
    let headers = given.headers().clone();
    let mut given = Some(given);
    let service = recorder.layer().layer(service_fn(move |_| {
        let response = given.take().unwrap();
        async { Ok::<_, std::io::Error>(response) }
    }));

    let response = service.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), 207);
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.headers(), &headers);
    assert_eq!(response.extensions().get::<u8>(), Some(&42));
    assert_eq!(response.body().size_hint().exact(), Some(3));
    assert!(!response.body().is_end_stream());
    assert_eq!(response.collect().await.unwrap().to_bytes(), "abc");

    let full = recorder.layer().layer(service_fn(|_: Request<()>| async {
        Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
    }));
    assert!(full.oneshot(get("/")).await.unwrap().body().is_end_stream());
}
