//! No client can add series to a metric, whatever it sends.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, service_fn};

use crate::support::Recorder;

const METRICS: [&str; 7] = [
    "http.server.request.duration",
    "http.server.active_requests",
    "http.server.request.body.size",
    "http.server.response.body.size",
    "requests_total",
    "status_codes_total",
    "request_duration_seconds",
];

/// Every value that a client can choose is different in each request.
fn request(number: usize) -> Request<()> {
    let method = match number % 4 {
        0 => Method::GET,
        1 => Method::POST,
        _ => format!("M{number}").parse().unwrap(),
    };
    let authority = format!("h{number}.example:{}", number % 60_000);
    let uri = match number % 3 {
        0 => format!("/p{number}?q{number}=v"),
        1 => format!("http://{authority}/p{number}"),
        _ => format!("s{number}://{authority}/"),
    };
    Request::builder()
        .method(method)
        .uri(uri)
        .version(match number % 2 {
            0 => Version::HTTP_11,
            _ => Version::HTTP_2,
        })
        .header(header::HOST, authority)
        .header(header::USER_AGENT, format!("agent/{number}"))
        .header(header::CONTENT_LENGTH, number)
        .header("traceparent", format!("00-{number:032x}-{number:016x}-01"))
        .header("baggage", format!("k{number}=v{number}"))
        .header("x-forwarded-for", format!("10.0.0.1, client{number}"))
        .body(())
        .unwrap()
}

/// What Prometheus gets, and the memory that is resident then.
#[cfg(target_os = "linux")]
async fn scraped(telemetry: &tower_image_trace::Telemetry, encoding: &str) -> (Bytes, u64) {
    let request = Request::get("/metrics").header(header::ACCEPT_ENCODING, encoding);
    let request = request.body(()).unwrap();
    let page = tower::ServiceExt::oneshot(telemetry.prometheus(), request)
        .await
        .unwrap();
    let page = page.into_body().collect().await.unwrap().to_bytes();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (page, pages * 4096)
}

/// Also what the service labels measurements with comes from the client. In release, and alone:
/// `cargo test --release --test behaviour a_million_hostile -- --ignored --nocapture`.
#[cfg(target_os = "linux")]
#[ignore = "takes a minute in release"]
#[tokio::test]
async fn a_million_hostile_requests_stay_within_the_limits() {
    use opentelemetry::KeyValue;
    use tower_image_trace::Telemetry;

    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .prometheus(true)
        .build()
        .unwrap();
    let layer = telemetry
        .trace_layer_builder()
        .request_metric_attributes(|parts| {
            let tenant = String::from_utf8_lossy(parts.headers[header::HOST].as_bytes());
            [KeyValue::new("tenant", tenant.into_owned())]
        });
    let layer = layer.label_stages(true).time_to_first_byte(true).build();
    let mut service = layer.layer(service_fn(async |request: Request<()>| {
        let trace = tower_image_trace::RequestTrace::from_extensions(request.extensions());
        drop(trace.process("rs:fit:1:1"));
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"no"))))
    }));
    let mut send = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let response = service.call(request(number)).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    };
    send(0..100_000).await;
    let _ = scraped(&telemetry, "gzip").await;
    let (_, before) = scraped(&telemetry, "gzip").await;
    send(100_000..1_000_000).await;
    let (packed, after) = scraped(&telemetry, "gzip").await;
    let (plain, _) = scraped(&telemetry, "identity").await;
    let plain = std::str::from_utf8(&plain).unwrap();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for line in plain
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
    {
        *counts.entry(line.split('{').next().unwrap()).or_default() += 1;
    }
    println!("samples without those of buckets: {counts:?}");
    println!(
        "{} series at most; resident {} MiB after 100,000 requests, {} MiB after 1,000,000; \
         a scrape has {} bytes, {} unpacked",
        counts.values().max().unwrap(),
        before >> 20,
        after >> 20,
        packed.len(),
        plain.len()
    );
    assert!(counts.values().all(|count| *count <= 2_001), "{counts:?}");
    assert!(after < before + (8 << 20), "{before} {after}");
    assert!(packed.len() <= 5_000_000);
}

/// The client chooses what the service labels measurements with and names as the route.
#[tokio::test]
async fn texts_of_16_kb_stay_short_on_a_scrape() {
    use opentelemetry::{Array, KeyValue, Value};
    use tower_image_trace::{RequestTrace, Telemetry};

    const REQUESTS: usize = 20;
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .prometheus(true)
        .build()
        .unwrap();
    let long = |number: usize| format!("{number}{}", "x".repeat(16_000));
    let layer = telemetry
        .trace_layer_builder()
        .request_metric_attributes(|parts| {
            let tenant = parts.headers[header::USER_AGENT].to_str().unwrap();
            [KeyValue::new("tenant", tenant.to_owned())]
        })
        .metric_attributes(|parts, _| {
            let words = vec![parts.uri.path().to_owned().into(); 9];
            [KeyValue::new("words", Value::Array(Array::String(words)))]
        });
    let layer = layer.label_stages(true).label_downloads(true);
    let layer = layer.time_to_first_byte(true).build();
    let fetch = telemetry
        .download_layer()
        .layer(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
    let mut service = layer.layer(service_fn(async |request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        let path = request.uri().path();
        trace.set_route(path);
        trace.metric_attribute(KeyValue::new("preset", path.to_owned()));
        let stage = trace.process("rs:fit:1:1");
        stage.metric_attribute(KeyValue::new("store", path.to_owned()));
        drop(stage);
        let source = Request::get(format!("http://{}/", &path[1..])).body(());
        let source = tower::ServiceExt::oneshot(fetch.clone(), source.unwrap());
        source.await.unwrap();
        // A gRPC server that answers calls of all methods.
        let mut response = Response::new(Full::new(Bytes::from_static(b"no")));
        if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, kind.clone());
            response
                .headers_mut()
                .insert("grpc-status", http::HeaderValue::from_static("0"));
        }
        Ok::<_, Infallible>(response)
    }));
    for number in 0..REQUESTS {
        for call in [false, true] {
            let path = match call {
                false => format!("/{}", long(number)),
                true => format!("/images.Thumbnails/{}", long(number)),
            };
            let mut request = Request::post(path).header(header::USER_AGENT, long(number));
            if call {
                request = request.header(header::CONTENT_TYPE, "application/grpc");
            }
            let response = service.call(request.body(()).unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    }
    let request = Request::get("/metrics").body(()).unwrap();
    let page = tower::ServiceExt::oneshot(telemetry.prometheus(), request);
    let page = page.await.unwrap().into_body().collect().await.unwrap();
    let page = page.to_bytes();
    let page = std::str::from_utf8(&page).unwrap();
    for metric in [
        "http_server_request_duration_seconds",
        "image_request_time_to_first_byte_seconds",
        "request_span_duration_seconds",
        "http_client_request_duration_seconds",
        "rpc_server_call_duration_seconds",
    ] {
        let start = format!("{metric}_count{{");
        let counts = page.lines().filter(|line| line.starts_with(&start));
        assert!(counts.count() >= REQUESTS, "{metric}");
    }
    assert!(page.contains(r#"rpc_method="_OTHER""#));
    for line in page.lines() {
        assert!(line.len() < 1024, "{} bytes: {line}", line.len());
    }
}

#[tokio::test]
async fn a_hundred_thousand_hostile_requests_add_no_series() {
    let recorder = Recorder::with(|tracers| {
        tracers.with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOff)
    });
    let layer = recorder.builder().imgproxy_metrics(true).build();
    let mut service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::from_static(b"no")));
        if !request.uri().path().starts_with("/p") {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Ok::<_, Infallible>(response)
    }));
    let mut send = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let response = service.call(request(number)).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    };
    let series = || METRICS.map(|metric| recorder.series(metric).len());

    send(0..100).await;
    let first = series();
    assert!(
        first.iter().all(|count| (1..=12).contains(count)),
        "{first:?}"
    );
    send(100..100_000).await;
    assert_eq!(series(), first);
    assert_eq!(recorder.only_series("requests_total").count, 100_000);
}
