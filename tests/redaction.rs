//! No credential and no signature leaves the service, however it came in.

use std::{convert::Infallible, future::ready, io};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use opentelemetry::{Array, KeyValue, Value};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_image_trace::{
    DownloadLayer, ErrorKind, ImageTraceLayer, RequestTrace, Telemetry,
    download::{DownloadLayerBuilder, Origin},
    trace::{ImageTraceLayerBuilder, SourceUrls},
};

use crate::support::{Recorder, download::builder};

const SOURCE: &str =
    "https://alice:hunter2@cdn.example/private/cat.jpg?w=9&sig=5ecre7&X-Amz-Signature=5ecre7";
const SECRETS: [&str; 3] = ["alice", "hunter2", "5ecre7"];

/// Everything that was exported, and what of it is base64.
fn exported(recorder: &Recorder) -> String {
    let mut text = format!("{:?}", recorder.spans());
    for metric in [
        "http.server.request.duration",
        "rpc.server.call.duration",
        "request_span_duration_seconds",
        "errors_total",
    ] {
        text.push_str(&format!("{:?}", recorder.series(metric)));
    }
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let letters = |letter: char| letter.is_ascii_alphanumeric() || "-_/".contains(letter);
    let words: Vec<String> = text
        .split(|letter| !letters(letter))
        .map(|word| word.replace('/', ""))
        .collect();
    for word in words {
        for start in 0..word.len() {
            let whole = (word.len() - start) / 4 * 4;
            if let Ok(bytes) = base64::Engine::decode(&engine, &word[start..start + whole]) {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }
    text
}

fn paths() -> Vec<String> {
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, SOURCE);
    let chunks: Vec<_> = encoded.as_bytes().chunks(16).collect();
    let split = String::from_utf8(chunks.join(&b'/')).unwrap();
    let percent: String = SOURCE.bytes().map(|byte| format!("%{byte:02X}")).collect();
    vec![
        format!("/rs:fill:300:200/plain/{SOURCE}"),
        format!("/plain/{percent}@webp"),
        format!("/signature/{encoded}.webp"),
        format!("/signature/{split}.webp"),
        format!("/resize?url={percent}&w=300"),
        format!("/resize?src={encoded}"),
        "/resize?sig=5ecre7&w=300".to_owned(),
    ]
}

async fn run(recorder: &Recorder, request: Request<()>, source_urls: SourceUrls) {
    let layer = recorder.builder().source_urls(source_urls).build();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        let failed = io::Error::other(format!("error sending request for url ({SOURCE})"));
        trace.download(SOURCE).record_error(&failed);
        trace.process(format!("w:300 wm:{SOURCE}")).end();
        trace.error(ErrorKind::Security, &failed);
        if request.uri().path() == "/panic" {
            panic!("cannot fetch {SOURCE}");
        }
        Err::<Response<Empty<Bytes>>, _>(failed)
    }));
    let outcome = std::panic::AssertUnwindSafe(service.oneshot(request));
    let _ = futures_util::FutureExt::catch_unwind(outcome).await;
}

#[tokio::test]
async fn no_secret_is_exported() {
    let get = |path: String| Request::get(path).body(()).unwrap();
    let call = |path: String| {
        let call = Request::post(path).header("content-type", "application/grpc");
        call.body(()).unwrap()
    };
    let mut requests: Vec<_> = paths().into_iter().map(get).collect();
    requests.push(get("/panic".to_owned()));
    // A client may send anything as the name of a gRPC method.
    requests.extend(paths().into_iter().map(call));
    for request in requests {
        for source_urls in [SourceUrls::Redacted, SourceUrls::OriginOnly] {
            let recorder = Recorder::new();
            run(&recorder, request.clone(), source_urls).await;
            let exported = exported(&recorder);
            for secret in SECRETS {
                assert!(!exported.contains(secret), "{secret}: {exported}");
            }
            assert!(exported.contains("cdn.example"));
        }
    }
}

#[tokio::test]
async fn the_full_url_of_a_source_is_recorded_when_it_is_asked_for() {
    let recorder = Recorder::new();
    let request = Request::get("/resize").body(()).unwrap();
    run(&recorder, request, SourceUrls::Full).await;
    assert_eq!(
        recorder
            .span("downloading_image")
            .get("image.source.url")
            .as_deref(),
        Some(
            "https://REDACTED:REDACTED@cdn.example/private/cat.jpg?w=9&sig=5ecre7&X-Amz-Signature=5ecre7"
        )
    );
}

#[tokio::test]
async fn only_the_origin_is_recorded_when_it_is_asked_for() {
    let recorder = Recorder::new();
    let request = Request::get("/plain/https://cdn.example/private/cat.jpg")
        .body(())
        .unwrap();
    run(&recorder, request, SourceUrls::OriginOnly).await;
    let stage = recorder.span("downloading_image");
    assert_eq!(stage.get("image.source.url"), None);
    assert_eq!(
        stage.get("image.source.origin").as_deref(),
        Some("https://cdn.example")
    );
    assert_eq!(
        recorder.root().get("url.path").as_deref(),
        Some("/plain/https://cdn.example")
    );
    assert!(!format!("{:?}", recorder.spans()).contains("private"));
}

/// Faults A2, F15, F16: wherever the service records a text.
#[tokio::test]
async fn no_secret_is_exported_from_any_text() {
    let urls = [
        "https://alice:5ecre7@h/a.jpg",
        "https:\\/\\/alice:5ecre7@h\\/a.jpg",
        "//alice:5ecre7@h/a.jpg",
        "/a.jpg?AWSAccessKeyId=5ecre7&amp;Signature=5ecre7",
        "/a.jpg?w=1\\u0026SIG=5ecre7",
        "/a.jpg??token=5ecre7;w=1",
        "/a.jpg?%2573ig=5ecre7",
        "(aHR0cHM6Ly9hbGljZTo1ZWNyZTdAaC9hLmpwZw)",
        "<Error><AWSAccessKeyId>5ecre7</AWSAccessKeyId></Error>",
    ];
    for url in urls {
        let recorder = Recorder::new();
        let service = recorder
            .layer()
            .layer(service_fn(|request: Request<()>| async move {
                let trace = RequestTrace::from_extensions(request.extensions());
                trace.set_attribute(KeyValue::new("image.watermark.url", url));
                let stage = trace.stage("watermark");
                stage.set_attribute(KeyValue::new("watermark.url", url));
                let sources = vec![url.into(), "local".into()];
                stage.set_attribute(KeyValue::new(
                    "sources",
                    Value::Array(Array::String(sources)),
                ));
                // An attribute of a span that has begun.
                let _ = stage.context();
                stage.set_attribute(KeyValue::new("mask.url", url));
                stage.record_error(&io::Error::other(format!("cannot fetch {url}: refused")));
                drop(stage);
                trace.process(url).end();
                Err::<Response<Empty<Bytes>>, _>(io::Error::other(url))
            }));
        let request = Request::get("/resize").header("user-agent", format!("bot (+{url})"));
        let _ = service.oneshot(request.body(()).unwrap()).await;
        let exported = exported(&recorder);
        assert!(!exported.contains("5ecre7"), "{url}: {exported}");
        assert!(exported.contains("user_agent.original"));
        assert!(exported.contains("mask.url"));
    }
}

#[tokio::test]
async fn the_sensitive_keys_are_settable() {
    let recorder = Recorder::new();
    let layer = recorder.builder().sensitive_query_keys(["hmac"]).build();
    let service = layer.layer(service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let request = Request::get("/?hmac=a&sig=b").body(()).unwrap();
    service.oneshot(request).await.unwrap();
    assert_eq!(
        recorder.root().get("url.query").as_deref(),
        Some("hmac=REDACTED&sig=b")
    );
}

const TOKEN: &str = "https://cdn.example/private/cat.jpg?hmac=planted&key=planted";

/// One attempt at `TOKEN`, which fails and says the URL.
async fn attempt(layer: DownloadLayer, request: http::request::Builder) {
    let client = layer.layer(service_fn(async |_: Request<()>| {
        let error = io::Error::other(format!("no answer from {TOKEN}"));
        Err::<Response<Empty<Bytes>>, _>(error)
    }));
    let request = request.uri(TOKEN).body(()).unwrap();
    client.oneshot(request).await.unwrap_err();
}

/// The same while a request is handled.
async fn attempt_in_request(layer: ImageTraceLayer, download: DownloadLayer) {
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let fetched = attempt(download.clone(), Request::builder());
        async {
            fetched.await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    let request = Request::put("/").body(()).unwrap();
    service.oneshot(request).await.unwrap();
}

// faults A1
#[tokio::test]
async fn what_is_set_for_a_request_holds_for_its_downloads() {
    let unset = |layer: DownloadLayerBuilder| layer;
    let key = |layer: DownloadLayerBuilder| layer.sensitive_query_keys(["key"]);
    let origin = |layer: DownloadLayerBuilder| layer.source_urls(SourceUrls::OriginOnly);
    type Change = fn(DownloadLayerBuilder) -> DownloadLayerBuilder;
    let token = |layer: ImageTraceLayerBuilder| layer.sensitive_query_keys(["hmac"]);
    let only_origin = |layer: ImageTraceLayerBuilder| layer.source_urls(SourceUrls::OriginOnly);
    let as_it_is = |layer: ImageTraceLayerBuilder| layer.source_urls(SourceUrls::Full);
    type ChangeRequest = fn(ImageTraceLayerBuilder) -> ImageTraceLayerBuilder;
    let rows: [(Option<ChangeRequest>, Change, &str); 7] = [
        (None, unset, TOKEN),
        (Some(as_it_is), unset, TOKEN),
        (
            Some(token),
            unset,
            "https://cdn.example/private/cat.jpg?hmac=REDACTED&key=planted",
        ),
        (Some(only_origin), unset, "https://cdn.example"),
        (
            None,
            key,
            "https://cdn.example/private/cat.jpg?hmac=planted&key=REDACTED",
        ),
        (None, origin, "https://cdn.example"),
        // Both hold.
        (
            Some(token),
            key,
            "https://cdn.example/private/cat.jpg?hmac=REDACTED&key=REDACTED",
        ),
    ];
    for (request, download, expected) in rows {
        let recorder = Recorder::new();
        let download = download(builder(&recorder)).build();
        match request {
            None => attempt(download, Request::builder()).await,
            Some(change) => {
                let layer = change(recorder.builder()).build();
                attempt_in_request(layer, download).await;
            }
        }
        let span = recorder.span("GET");
        assert_eq!(span.get("url.full").as_deref(), Some(expected));
        assert_eq!(span.exceptions(), [format!("no answer from {expected}")]);
    }
}

// faults A1
#[tokio::test]
async fn a_download_on_another_task_is_given_its_request() {
    let recorder = Recorder::new();
    let layer = recorder.builder().sensitive_query_keys(["hmac"]);
    let service = layer.build().layer(service_fn(|request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        let fetched = attempt(
            builder(&recorder).build(),
            Request::builder().extension(trace),
        );
        async {
            tokio::spawn(fetched).await.unwrap();
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    let request = Request::put("/").body(()).unwrap();
    service.oneshot(request).await.unwrap();
    let url = recorder.span("GET").get("url.full").unwrap();
    assert!(url.contains("hmac=REDACTED"), "{url}");
}

// faults A1, F15
#[tokio::test]
async fn attributes_of_the_service_are_redacted() {
    let recorder = Recorder::new();
    let layer = recorder.builder().sensitive_query_keys(["hmac"]).build();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        let lines = Value::Array(Array::String(vec!["a".into(), TOKEN.into()]));
        trace.set_attribute(KeyValue::new("watermarks", lines.clone()));
        let stage = trace.stage("watermark");
        stage.set_attribute(KeyValue::new("watermark.url", TOKEN));
        stage.in_scope(|| stage.set_attribute(KeyValue::new("watermarks", lines)));
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let request = Request::get("/").body(()).unwrap();
    service.oneshot(request).await.unwrap();
    let exported = format!("{:?}", recorder.spans());
    assert_eq!(exported.matches("hmac=REDACTED").count(), 3, "{exported}");
    assert!(!exported.contains("hmac=planted"), "{exported}");
}

// faults F3, F15
#[tokio::test]
async fn a_long_message_shows_no_half_of_a_url() {
    let url = "https:user:5ecre7-5ecre7-5ecre7-5ecre7@h/plain/http://x/a.png";
    // The password begins before the byte 8192, up to which a message of 4096 bytes is read.
    for length in 8145..8165 {
        let token = "t".repeat(length);
        for between in [" ", "#", "%20", "/é"] {
            let recorder = Recorder::new();
            let message = format!("w:1:2:token={token}{between}{url}");
            let service = recorder.layer().layer(service_fn(move |_: Request<()>| {
                let failed = io::Error::other(message.clone());
                async { Err::<Response<Empty<Bytes>>, _>(failed) }
            }));
            let _ = service.oneshot(Request::new(())).await;
            assert_eq!(
                recorder.root().exceptions(),
                ["w:1:2:token=REDACTED…"],
                "{length} {between}"
            );
        }
    }
}

/// A service may log what it has.
#[tokio::test]
async fn no_debug_text_shows_a_secret() {
    const SECRET: &str = "hunter2";
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .trace_page(true)
        .build()
        .unwrap();
    let path = "/plain/http://user:hunter2@cdn.example/cat.jpg?sig=hunter2";
    for content_type in ["image/png", "application/grpc"] {
        let mut service = telemetry
            .trace_layer()
            .layer(service_fn(|request: Request<()>| {
                let trace = RequestTrace::from_extensions(request.extensions());
                let run = trace.process("rs:fit").run(ready(Ok::<_, io::Error>(())));
                let text = format!("{trace:?} {:?} {run:?}", trace.process("rs:fit"));
                ready(Ok::<_, Infallible>(Response::new(text)))
            }));
        let request = Request::post(path).header("content-type", content_type);
        let future = service.call(request.body(()).unwrap());
        let of_future = format!("{future:?}");
        let response = future.await.unwrap();
        let of_body = format!("{:?}", response.body());
        let of_stages = response.into_body().collect().await.unwrap().to_bytes();
        let of_stages = String::from_utf8_lossy(&of_stages);
        for text in [&*of_future, &of_body, &of_stages, &format!("{telemetry:?}")] {
            assert!(!text.contains(SECRET), "{content_type}: {text}");
        }
    }
    let error = "https://user:hunter2@images.internal".parse::<Origin>();
    assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
}
