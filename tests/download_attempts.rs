//! Each request to an origin is a client span with what semconv says of one, under the stage that
//! it belongs to, and one measurement.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, header::LOCATION};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use opentelemetry::trace::{SpanKind, Status, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracer};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{DownloadLayer, RequestTrace, download::Attempts};

use crate::support::{
    ChannelBody, Recorder,
    body::{assert_passes_through, data},
    download::{Answer, Origin, builder, client, get, request, response},
};

const DURATION: &str = "http.client.request.duration";

/// Runs a handler inside a traced request.
async fn traced<F: Future<Output = ()>>(recorder: &Recorder, handler: impl Fn(RequestTrace) -> F) {
    let service = recorder.layer().layer(service_fn(|request: Request<()>| {
        let handled = handler(RequestTrace::from_extensions(request.extensions()));
        async {
            handled.await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    }));
    let request = Request::post("/").body(()).unwrap();
    service.oneshot(request).await.unwrap();
}

#[tokio::test]
async fn a_download_that_succeeds() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("200 OK", "a picture")).await;
    let response = get(&builder(&recorder).build(), &origin.url("/cat.jpg?w=1")).await;
    let response = response.unwrap();
    assert!(recorder.spans().is_empty(), "not before the body's end");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "a picture");

    let port = origin.address.port().to_string();
    let span = recorder.span("GET");
    assert_eq!(span.0.span_kind, SpanKind::Client);
    span.assert_no_error();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("url.full", &origin.url("/cat.jpg?w=1")),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "9"),
        ("network.protocol.version", "1.1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", &port),
    ] {
        assert_eq!(span.get(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(span.keys().len(), 9, "{:?}", span.keys());

    let series = recorder.only_series(DURATION);
    assert_eq!(series.count, 1);
    let attributes: Vec<_> = series
        .attributes
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    assert_eq!(
        attributes,
        [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
        ]
    );
}

#[tokio::test]
async fn a_body_without_a_length_is_read_to_its_end() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   4\r\npict\r\n3\r\nure\r\n0\r\n\r\n";
    for answer in [chunked, "HTTP/1.0 200 OK\r\n\r\npicture"] {
        let recorder = Recorder::new();
        let origin = Origin::start(move |_| Answer::Close(answer.to_owned())).await;
        let response = get(&builder(&recorder).build(), &origin.url("/")).await;
        response.unwrap().into_body().collect().await.unwrap();
        let span = recorder.span("GET");
        span.assert_no_error();
        assert_eq!(span.get("http.response.body.size").as_deref(), Some("7"));
        assert_eq!(span.get("image.stage.cancelled"), None);
        let version = if answer == chunked { "1.1" } else { "1.0" };
        assert_eq!(
            span.get("network.protocol.version").as_deref(),
            Some(version)
        );
    }
}

#[tokio::test]
async fn errors_of_the_origin_are_errors_of_the_attempt() {
    for (status, code) in [("404 Not Found", "404"), ("503 Busy", "503")] {
        for is_read in [true, false] {
            let recorder = Recorder::new();
            let origin = Origin::start(move |_| response(status, "sorry")).await;
            let response = get(&builder(&recorder).build(), &origin.url("/")).await;
            let response = response.unwrap();
            if is_read {
                response.into_body().collect().await.unwrap();
            } else {
                drop(response);
            }
            let span = recorder.span("GET");
            span.assert_error(code, "");
            assert_eq!(span.get("http.response.status_code").as_deref(), Some(code));
            assert_eq!(span.get("image.stage.cancelled"), None, "nobody left");
            assert!(span.exceptions().is_empty());
            let series = recorder.only_series(DURATION);
            assert_eq!(series.attributes["error.type"], code);
        }
    }
}

#[tokio::test]
async fn responses_without_a_body_are_complete_at_once() {
    for (method, status) in [
        ("HEAD", "200 OK"),
        ("GET", "204 No Content"),
        ("GET", "304 Not Modified"),
    ] {
        let recorder = Recorder::new();
        let origin = Origin::start(move |_| {
            let length = if status.starts_with("204") {
                ""
            } else {
                "content-length: 900\r\n"
            };
            Answer::Close(format!("HTTP/1.1 {status}\r\n{length}\r\n"))
        })
        .await;
        let mut request = request(&origin.url("/"));
        *request.method_mut() = method.parse().unwrap();
        let service = builder(&recorder).build().layer(client());
        let response = service.oneshot(request).await.unwrap();
        let span = recorder.span(method);
        span.assert_no_error();
        assert_eq!(span.get("image.stage.cancelled"), None, "{method} {status}");
        drop(response);
        recorder.span(method);
    }
}

#[tokio::test]
async fn a_tunnel_is_complete_when_it_is_open() {
    let recorder = Recorder::new();
    let service = builder(&recorder)
        .build()
        .layer(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(ChannelBody::new().1))
        }));
    let request = Request::connect("cdn.example:443").body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    let span = recorder.span("CONNECT");
    assert_eq!(span.get("image.stage.cancelled"), None);
    drop(response);
    recorder.span("CONNECT");
}

#[tokio::test]
async fn readiness_and_bodies_are_those_of_the_client() {
    assert_passes_through(&builder(&Recorder::new()).build()).await;
}

#[tokio::test]
async fn redirects_are_attempts_under_the_stage() {
    let recorder = Recorder::new();
    let layer = builder(&recorder).build();
    let origin = Origin::start(|path| match path {
        "/old" => Answer::Close(
            "HTTP/1.1 302 Found\r\nlocation: /new\r\ncontent-length: 5\r\n\r\nmoved".to_owned(),
        ),
        _ => response("200 OK", "picture"),
    })
    .await;
    let url = origin.url("/old");
    traced(&recorder, async |trace| {
        let attempts = Attempts::default();
        let follow = async {
            let mut url = url.clone();
            loop {
                let mut request = request(&url);
                request.extensions_mut().insert(attempts.clone());
                let response = layer.layer(client()).oneshot(request).await?;
                match response.headers().get(LOCATION) {
                    Some(location) => url = origin.url(location.to_str().unwrap()),
                    None => {
                        response.into_body().collect().await.unwrap();
                        return Ok::<_, hyper_util::client::legacy::Error>(());
                    }
                }
            }
        };
        trace.download(&url).run(follow).await.unwrap();
    })
    .await;

    let stage = recorder.span("downloading_image");
    assert_eq!(stage.parent(), recorder.root().id());
    let mut attempts = recorder.spans();
    attempts.retain(|span| span.name() == "GET");
    let facts: Vec<_> = attempts
        .iter()
        .map(|span| {
            span.assert_no_error();
            assert_eq!(span.parent(), stage.id());
            assert_eq!(span.get("image.stage.cancelled"), None);
            (
                span.get("http.response.status_code").unwrap(),
                span.get("http.request.resend_count"),
                span.get("url.full").unwrap(),
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("302".to_owned(), None, origin.url("/old")),
            ("200".to_owned(), Some("1".to_owned()), origin.url("/new")),
        ]
    );
}

#[tokio::test]
async fn the_span_is_as_long_as_the_measurement_says() {
    let recorder = Recorder::new();
    let service = service_fn(async |_: Request<()>| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let request = Request::get("http://cdn.example/").body(()).unwrap();
    let service = builder(&recorder).build().layer(service);
    service.oneshot(request).await.unwrap();
    let span = recorder.span("GET");
    let length = span.0.end_time.duration_since(span.0.start_time).unwrap();
    assert!(length >= Duration::from_millis(20), "{length:?}");
    let measured = recorder.only_series(DURATION).sum;
    assert!(
        (length.as_secs_f64() - measured).abs() < 1e-6,
        "{length:?} {measured}"
    );
}

#[tokio::test]
async fn the_parent_may_be_given_with_the_request() {
    let recorder = Recorder::new();
    let layer = builder(&recorder).build();
    let origin = Origin::start(|_| response("200 OK", "")).await;
    traced(&recorder, async |trace| {
        let stage = trace.download(&origin.url("/"));
        let mut request = request(&origin.url("/"));
        request.extensions_mut().insert(stage.context());
        // As a task of its own, that does not know whose it is.
        let attempt = tokio::spawn(layer.layer(client()).oneshot(request));
        attempt.await.unwrap().unwrap();
    })
    .await;
    let stage = recorder.span("downloading_image");
    assert_eq!(recorder.span("GET").parent(), stage.id());
}

#[tokio::test]
async fn what_the_client_records_is_inside_of_the_attempt() {
    let recorder = Recorder::new();
    struct OnDrop(SdkTracer);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.start("drop");
        }
    }

    let tracer = recorder.tracers.tracer("client");
    let service = service_fn(|_: Request<()>| {
        let tracer = tracer.clone();
        tracer.start("call");
        async move {
            tokio::task::yield_now().await;
            tracer.start("poll");
            let body = OnDrop(tracer);
            let frame = futures_util::stream::iter([data("picture")]).map(move |frame| {
                body.0.start("frame");
                frame
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(frame)))
        }
    });
    let request = Request::get("http://cdn.example/").body(()).unwrap();
    let response = builder(&recorder).build().layer(service).oneshot(request);
    response.await.unwrap().into_body().collect().await.unwrap();
    for name in ["call", "poll", "frame", "drop"] {
        assert_eq!(recorder.span(name).parent(), recorder.span("GET").id());
    }
}

#[tokio::test]
async fn credentials_and_signatures_are_not_recorded() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("200 OK", "")).await;
    let url = format!(
        "http://user:planted@{}/cat.jpg?w=1&sig=planted",
        origin.address
    );
    get(&builder(&recorder).build(), &url).await.unwrap();
    let span = recorder.span("GET");
    assert_eq!(
        span.get("url.full").unwrap(),
        format!(
            "http://REDACTED:REDACTED@{}/cat.jpg?w=1&sig=REDACTED",
            origin.address
        )
    );
    assert!(!format!("{span:?}").contains("planted"), "{span:#?}");
}

#[tokio::test]
async fn nothing_is_recorded_when_disabled_or_not_sampled() {
    let origin = Origin::start(|_| response("200 OK", "picture")).await;
    let disabled = get(&DownloadLayer::disabled(), &origin.url("/")).await;
    let body = disabled.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "picture");

    let recorder = Recorder::with(|builder| builder.with_sampler(Sampler::AlwaysOff));
    let response = get(&builder(&recorder).build(), &origin.url("/")).await;
    response.unwrap().into_body().collect().await.unwrap();
    assert!(recorder.spans().is_empty());
    assert_eq!(recorder.only_series(DURATION).count, 1, "but measured");

    let recorder = Recorder::new();
    let unmeasured = builder(&recorder).metrics(false).build();
    drop(get(&unmeasured, &origin.url("/")).await.unwrap());
    recorder.span("GET");
    assert!(recorder.series(DURATION).is_empty());
}

/// A service that answers without a network.
async fn ask(layer: &DownloadLayer, request: http::request::Builder) {
    let service = layer.layer(service_fn(async |_: Request<Empty<Bytes>>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let request = request.body(Empty::new()).unwrap();
    service.oneshot(request).await.unwrap();
}

#[tokio::test]
async fn invented_hosts_and_methods_make_no_series() {
    let recorder = Recorder::new();
    let layer = builder(&recorder).measured_servers(2).build();
    for host in ["a", "b", "c", "d", "A", "b"] {
        let request = Request::builder().method(format!("M{host}").as_str());
        ask(&layer, request.uri(format!("https://{host}.example/"))).await;
    }
    let mut servers: Vec<_> = recorder
        .series(DURATION)
        .into_iter()
        .map(|series| {
            assert_eq!(series.attributes["http.request.method"], "_OTHER");
            let port = series.attributes.get("server.port").cloned();
            (
                series.attributes["server.address"].clone(),
                port,
                series.count,
            )
        })
        .collect();
    servers.sort();
    let https = Some("443".to_owned());
    assert_eq!(
        servers,
        [
            ("_OTHER".to_owned(), None, 2),
            ("a.example".to_owned(), https.clone(), 2),
            ("b.example".to_owned(), https, 2),
        ]
    );
    for span in recorder.spans() {
        assert_eq!(span.name(), "HTTP");
        assert!(
            span.get("http.request.method_original")
                .unwrap()
                .starts_with('M')
        );
        assert_ne!(span.get("server.address").unwrap(), "_OTHER");
        assert_eq!(span.0.status, Status::Unset);
    }
}

#[tokio::test]
async fn a_request_without_a_scheme_is_for_its_host_header() {
    let recorder = Recorder::new();
    let request = Request::get("/cat.jpg").header("host", "cdn.example:8080");
    ask(&builder(&recorder).build(), request).await;
    let span = recorder.span("GET");
    assert_eq!(span.get("server.address").as_deref(), Some("cdn.example"));
    assert_eq!(span.get("server.port").as_deref(), Some("8080"));
    assert_eq!(span.get("url.full").as_deref(), Some("/cat.jpg"));
}
