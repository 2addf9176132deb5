//! Prometheus pulls the metrics, from the service's own routes or from a listener, with or without a
//! collector beside it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY,
    },
};
use http_body_util::{BodyExt, Empty};
use opentelemetry::{InstrumentationScope, KeyValue, metrics::MeterProvider};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    Protocol, RequestTrace, Settings, Telemetry, TelemetryBuilder,
    telemetry::{Exporter, PrometheusExporter, TelemetryEvent},
};

use crate::support::otlp::{OtlpServer, PATIENCE};

type Vars<'a> = &'a [(&'a str, &'a str)];

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

fn builder() -> TelemetryBuilder {
    Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .service_name("thumbs")
}

async fn ask(
    telemetry: &Telemetry,
    request: Request<Empty<Bytes>>,
) -> (HeaderMap, StatusCode, Bytes) {
    let response = telemetry.prometheus().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (
        parts.headers,
        parts.status,
        body.collect().await.unwrap().to_bytes(),
    )
}

fn get(accept: &str) -> Request<Empty<Bytes>> {
    let request = Request::get("/metrics").header(ACCEPT, accept);
    request.body(Empty::new()).unwrap()
}

async fn page(telemetry: &Telemetry, accept: &str) -> String {
    let (_, status, page) = ask(telemetry, get(accept)).await;
    assert_eq!(status, StatusCode::OK);
    String::from_utf8(page.to_vec()).unwrap()
}

/// The lines of a family, without those of others.
fn lines<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let of_family = |line: &&str| {
        let rest = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(' '));
        rest.map_or(*line, |(_, rest)| rest).starts_with(name)
    };
    page.lines().filter(of_family).collect()
}

fn everything(telemetry: &Telemetry) {
    let scope = InstrumentationScope::builder("test")
        .with_version("1.2")
        .with_attributes([KeyValue::new("build.kind", "debug")])
        .build();
    let meter = telemetry.meter_provider().meter_with_scope(scope);
    let counter = meter.u64_counter("cats.seen").with_unit("{cat}");
    let counter = counter.with_description("Cats \\ seen\nso \"far\"").build();
    counter.add(
        3,
        &[
            KeyValue::new("colour", "a\\b\n\"c\"ü"),
            KeyValue::new("le", 1),
        ],
    );
    let joined = [
        KeyValue::new("a_b", "second"),
        KeyValue::new("a.b", "first"),
        KeyValue::new("c", true),
    ];
    counter.add(1, &joined);
    meter.i64_up_down_counter("cats.here").build().add(-2, &[]);
    meter
        .f64_gauge("weight")
        .with_unit("kg")
        .build()
        .record(1e21, &[]);
    meter
        .f64_gauge("hit")
        .with_unit("1")
        .build()
        .record(0.25, &[]);
    meter.f64_gauge("cats.count").build().record(1.0, &[]);
    let histogram = meter.f64_histogram("nap").with_unit("s");
    let histogram = histogram
        .with_boundaries(vec![0.005, 1.0, 1_048_576.0])
        .build();
    for nap in [0.001, 1.0, 2.0, 2e6] {
        histogram.record(nap, &[]);
    }
}

const SCOPE: &str =
    r#"otel_scope_name="test",otel_scope_version="1.2",otel_scope_build_kind="debug""#;

/// What both formats write.
fn values(page: &str) -> Vec<String> {
    let ours = page
        .lines()
        .filter(|line| line.contains("otel_scope_name=\"test\""));
    let mut values: Vec<_> = ours.map(|line| line.replace(SCOPE, "*")).collect();
    values.sort();
    values
}

#[tokio::test]
async fn the_text_format() {
    let telemetry = builder().prometheus(true).build().unwrap();
    everything(&telemetry);
    let page = page(&telemetry, "text/plain").await;
    assert_eq!(
        values(&page),
        [
            r#"cats_count{*} 1"#,
            r#"cats_here{*} -2"#,
            r#"cats_seen_total{a_b="first;second",c="true",*} 1"#,
            r#"cats_seen_total{colour="a\\b\n\"c\"ü",exported_le="1",*} 3"#,
            r#"hit_ratio{*} 0.25"#,
            r#"nap_seconds_bucket{*,le="+Inf"} 4"#,
            r#"nap_seconds_bucket{*,le="0.005"} 1"#,
            r#"nap_seconds_bucket{*,le="1"} 2"#,
            r#"nap_seconds_bucket{*,le="1048576"} 3"#,
            r#"nap_seconds_count{*} 4"#,
            r#"nap_seconds_sum{*} 2000003.001"#,
            r#"weight_kg{*} 1000000000000000000000"#,
        ]
    );
    assert_eq!(
        &lines(&page, "cats_seen")[..2],
        [
            r#"# HELP cats_seen_total Cats \\ seen\nso "far""#,
            "# TYPE cats_seen_total counter"
        ]
    );
    assert_eq!(
        lines(&page, "nap_seconds")[0],
        "# TYPE nap_seconds histogram"
    );
    assert_eq!(lines(&page, "cats_count")[0], "# TYPE cats_count untyped");
    let target = lines(&page, "target_info");
    assert_eq!(
        target[..2],
        [
            "# HELP target_info Target metadata",
            "# TYPE target_info gauge"
        ]
    );
    assert!(
        target[2].contains(r#"service_name="thumbs""#) && target[2].ends_with("} 1"),
        "{target:?}"
    );
    assert!(page.ends_with('\n') && !page.contains("# EOF") && !page.contains("# UNIT"));
}

/// Three sequences of keys in turn, and a histogram whose measurements only count.
#[tokio::test]
async fn points_of_one_metric_have_different_labels() {
    let telemetry = builder().prometheus(true).build().unwrap();
    let meter = telemetry.meter_provider().meter("test");
    let counter = meter.u64_counter("cats").build();
    for number in 0..20 {
        counter.add(1, &[KeyValue::new("colour", number)]);
        let unsorted = [KeyValue::new("size", number), KeyValue::new("age", 1)];
        counter.add(2, &unsorted);
        counter.add(3, &[KeyValue::new("size", number)]);
    }
    counter.add(4, &[]);
    let histogram = meter.u64_histogram("naps").with_boundaries(Vec::new());
    let histogram = histogram.build();
    histogram.record(7, &[]);
    histogram.record(8, &[KeyValue::new("colour", "red")]);
    let page = page(&telemetry, "text/plain").await;
    let mut expected: Vec<String> = (0..20)
        .flat_map(|number| {
            [
                format!(r#"cats_total{{colour="{number}",otel_scope_name="test"}} 1"#),
                format!(r#"cats_total{{age="1",size="{number}",otel_scope_name="test"}} 2"#),
                format!(r#"cats_total{{size="{number}",otel_scope_name="test"}} 3"#),
            ]
        })
        .chain([r#"cats_total{otel_scope_name="test"} 4"#.to_owned()])
        .collect();
    for (labels, nap) in [("", 7), (r#"colour="red","#, 8)] {
        let scope = r#"otel_scope_name="test""#;
        expected.extend([
            format!(r#"naps_bucket{{{labels}{scope},le="+Inf"}} 1"#),
            format!(r#"naps_sum{{{labels}{scope}}} {nap}"#),
            format!(r#"naps_count{{{labels}{scope}}} 1"#),
        ]);
    }
    expected.sort();
    let samples = page.lines().filter(|line| line.contains("\"test\""));
    // The SDK returns the keys of a point in either of two orders.
    let mut samples: Vec<_> = samples
        .map(|line| match line.split_once("size=") {
            Some((before, rest)) if rest.contains("age=") => {
                let (size, rest) = rest.split_once(",age=\"1\"").unwrap();
                format!("{before}age=\"1\",size={size}{rest}")
            }
            _ => line.to_owned(),
        })
        .collect();
    samples.sort();
    assert_eq!(samples, expected);
}

/// Two scopes with metrics of one name stay apart.
#[tokio::test]
async fn scopes_can_be_left_out() {
    let telemetry = builder().prometheus_without_scope(true).prometheus(true);
    let telemetry = telemetry.build().unwrap();
    let meters = telemetry.meter_provider();
    for (scope, name, attributes) in [
        ("one", "alone", &[KeyValue::new("colour", "red")][..]),
        ("one", "unlabelled", &[]),
        ("one", "shared", &[]),
        ("other", "shared", &[]),
    ] {
        meters
            .meter(scope)
            .u64_counter(name)
            .build()
            .add(1, attributes);
    }
    let meter = meters.meter("one");
    let naps = meter.u64_histogram("naps");
    naps.with_boundaries(vec![1.0]).build().record(7, &[]);
    let page = page(&telemetry, "text/plain").await;
    let names = ["alone", "unlabelled", "shared", "naps"];
    let samples = page
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    let samples: Vec<_> = samples.collect();
    assert_eq!(
        samples,
        [
            r#"alone_total{colour="red"} 1"#,
            r#"naps_bucket{le="1"} 0"#,
            r#"naps_bucket{le="+Inf"} 1"#,
            "naps_sum 7",
            "naps_count 1",
            r#"shared_total{otel_scope_name="one"} 1"#,
            r#"shared_total{otel_scope_name="other"} 1"#,
            "unlabelled_total 1",
        ]
    );
}

#[tokio::test]
async fn open_metrics() {
    let telemetry = builder().prometheus(true).build().unwrap();
    everything(&telemetry);
    let text = values(&page(&telemetry, "text/plain").await);
    let page = page(&telemetry, OPEN_METRICS).await;
    let as_text = |line: String| {
        line.replace("\"1.0\"", "\"1\"")
            .replace("1.048576e+06", "1048576")
    };
    let mut found: Vec<_> = values(&page).into_iter().map(as_text).collect();
    found.sort();
    assert_eq!(found, text);
    assert_eq!(
        &lines(&page, "cats_seen")[..2],
        [
            r#"# HELP cats_seen Cats \\ seen\nso \"far\""#,
            "# TYPE cats_seen counter"
        ]
    );
    assert_eq!(
        &lines(&page, "nap_seconds")[..2],
        ["# TYPE nap_seconds histogram", "# UNIT nap_seconds seconds"]
    );
    assert_eq!(lines(&page, "cats_count")[0], "# TYPE cats_count unknown");
    assert_eq!(lines(&page, "target")[1], "# TYPE target info");
    assert!(page.ends_with("\n# EOF\n"));
}

/// A family's lines stand together, whatever scopes its metrics are from, and have one type.
#[tokio::test]
async fn one_name_has_one_type() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let telemetry = builder()
        .prometheus(true)
        .on_event(move |event| {
            if let TelemetryEvent::NameTaken { .. } = event {
                heard.lock().unwrap().push(event.to_string());
            }
        })
        .build()
        .unwrap();
    let meters = telemetry.meter_provider();
    for scope in ["b", "a"] {
        let meter = meters.meter(scope);
        meter.u64_counter("jobs.done").build().add(1, &[]);
        meter.u64_counter("jobs_done").build().add(1, &[]);
    }
    let later = meters.meter("z");
    later.f64_gauge("jobs.done_total").build().record(1.0, &[]);
    later.f64_histogram("jobs").build().record(1.0, &[]);
    later.u64_gauge("jobs.count").build().record(1, &[]);
    later.u64_gauge("target.info").build().record(1, &[]);
    for accept in ["text/plain", OPEN_METRICS, "text/plain"] {
        let page = page(&telemetry, accept).await;
        let samples: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("jobs_done"))
            .collect();
        // Of two in one scope the first.
        assert_eq!(samples.len(), 2, "{page}");
        let types = page.lines().filter(|line| line.starts_with("# TYPE jobs"));
        assert_eq!(types.count(), 2, "{page}");
        let first = page.find("jobs_done_total{").unwrap();
        let last = page.rfind("jobs_done_total{").unwrap();
        assert!(!page[first..last].contains("\n#"), "{page}");
    }
    let mut said = said.lock().unwrap().clone();
    said.sort();
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[0].starts_with("jobs.count is left out"), "{said:?}");
    assert!(
        said[1].starts_with("jobs.done_total is left out"),
        "{said:?}"
    );
    assert!(said[2].starts_with("jobs_done is left out"), "{said:?}");
    assert!(said[3].starts_with("target.info is left out"), "{said:?}");
}

#[tokio::test]
async fn a_scope_has_each_label_once() {
    let telemetry = builder().prometheus(true).build().unwrap();
    let attributes = [
        KeyValue::new("a.b", 1),
        KeyValue::new("a_b", 2),
        KeyValue::new("schema.url", "z"),
    ];
    let scope = InstrumentationScope::builder("cats").with_schema_url("http://s");
    let scope = scope.with_attributes(attributes).build();
    let meter = telemetry.meter_provider().meter_with_scope(scope);
    meter.u64_counter("first").build().add(1, &[]);
    let page = page(&telemetry, "text/plain").await;
    let labels = r#"otel_scope_name="cats",otel_scope_schema_url="http://s",otel_scope_a_b="1;2""#;
    let expected = format!("first_total{{{labels}}} 1");
    assert!(page.lines().any(|line| line == expected), "{page}");
}

#[tokio::test]
async fn the_request_decides_about_the_answer() {
    let telemetry = builder().prometheus(true).build().unwrap();
    everything(&telemetry);
    let (plain, _, body) = ask(&telemetry, get("*/*")).await;
    assert_eq!(
        plain[CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let body_length = body.len();
    assert_eq!(plain[CONTENT_LENGTH], body_length.to_string());
    assert_eq!(plain[VARY], "Accept, Accept-Encoding");

    let mut request = get(OPEN_METRICS);
    request
        .headers_mut()
        .insert(ACCEPT_ENCODING, "gzip".parse().unwrap());
    let (packed, _, body) = ask(&telemetry, request).await;
    assert_eq!(
        packed[CONTENT_TYPE],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(packed[CONTENT_ENCODING], "gzip");
    let mut unpacked = String::new();
    GzDecoder::new(&*body)
        .read_to_string(&mut unpacked)
        .unwrap();
    assert_eq!(
        values(&unpacked),
        values(&page(&telemetry, OPEN_METRICS).await)
    );

    let mut request = get("*/*");
    *request.method_mut() = Method::HEAD;
    let (head, status, body) = ask(&telemetry, request).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    // The memory of the process, for example, may have grown by a digit.
    let length: usize = head[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
    assert!(length.abs_diff(body_length) < 100, "{length} {body_length}");
    for name in [CONTENT_TYPE, VARY] {
        assert_eq!(head[&name], plain[&name]);
    }

    for method in [Method::POST, Method::OPTIONS, Method::DELETE] {
        let mut request = get("*/*");
        *request.method_mut() = method;
        let (headers, status, _) = ask(&telemetry, request).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[ALLOW], "GET, HEAD");
    }
}

/// A page that is larger than the buffer it is written in.
#[tokio::test]
async fn a_long_page_is_whole_in_every_form() {
    let telemetry = builder().prometheus(true).build().unwrap();
    let meter = telemetry.meter_provider().meter("test");
    let histogram = meter.f64_histogram("nap").build();
    for number in 0..1_000 {
        histogram.record(1.0, &[KeyValue::new("cat", number)]);
    }
    let plain = page(&telemetry, OPEN_METRICS).await;
    assert!(plain.len() > 1_000_000);
    let mut request = get(OPEN_METRICS);
    let gzip = "gzip".parse().unwrap();
    request.headers_mut().insert(ACCEPT_ENCODING, gzip);
    let (_, _, packed) = ask(&telemetry, request).await;
    let mut unpacked = String::new();
    GzDecoder::new(&*packed)
        .read_to_string(&mut unpacked)
        .unwrap();
    let sorted = |page: &str| {
        let lines = page.lines().filter(|line| line.starts_with("nap"));
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(sorted(&unpacked) == sorted(&plain));
    assert!(unpacked.ends_with("\n# EOF\n"));
    let count = plain.lines().filter(|line| line.starts_with("nap_count{"));
    assert_eq!(count.count(), 1_000);
}

/// One request, and what its handler does.
async fn serve_one(telemetry: &Telemetry) {
    let service = service_fn(async |request: Request<Empty<Bytes>>| {
        drop(RequestTrace::from_extensions(request.extensions()).process("rs:fit:1:1"));
        Ok::<_, std::io::Error>(Response::new(String::from("cat")))
    });
    let service = telemetry.trace_layer().layer(service);
    let response = service.oneshot(get("*/*")).await.unwrap();
    response.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn no_collector_is_needed() {
    for telemetry in [
        builder().prometheus(true).build().unwrap(),
        builder().metrics(true).build().unwrap(),
        builder()
            .vars([
                ("OTEL_METRICS_EXPORTER", "prometheus"),
                ("OTEL_EXPORTER_PROMETHEUS_PORT", "0"),
            ])
            .build()
            .unwrap(),
    ] {
        assert!(telemetry.is_enabled());
        serve_one(&telemetry).await;
        let page = page(&telemetry, "*/*").await;
        let count = lines(&page, "http_server_request_duration_seconds_count");
        assert!(count.len() == 1 && count[0].ends_with("} 1"), "{page}");
        let stage = lines(&page, "request_span_duration_seconds_count");
        assert!(stage[0].contains(r#"span="processing_image""#), "{stage:?}");
        telemetry.shutdown(PATIENCE).await.unwrap();
        let (_, status, _) = ask(&telemetry, get("*/*")).await;
        assert_eq!(
            status,
            StatusCode::SERVICE_UNAVAILABLE,
            "after the shutdown"
        );
    }
}

/// What is collected for the collector is enough for a page.
#[tokio::test]
async fn what_is_only_pushed_can_be_pulled() {
    for (temporality, status) in [
        ("cumulative", StatusCode::OK),
        ("delta", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let server = OtlpServer::start();
        let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let telemetry = builder()
            .vars([(preference, temporality)])
            .endpoint(server.endpoint())
            .metrics(true)
            .build()
            .unwrap();
        assert_eq!(telemetry.settings().prometheus, None);
        for count in 1..=3 {
            serve_one(&telemetry).await;
            let (_, found, page) = ask(&telemetry, get(OPEN_METRICS)).await;
            assert_eq!(found, status);
            if status == StatusCode::OK {
                let page = String::from_utf8(page.to_vec()).unwrap();
                let lines = lines(&page, "http_server_request_duration_seconds_count");
                assert!(lines[0].ends_with(&format!("}} {count}")), "{lines:?}");
            }
        }
        telemetry.shutdown(PATIENCE).await.unwrap();
        let (_, found, _) = ask(&telemetry, get("*/*")).await;
        assert_eq!(found, StatusCode::SERVICE_UNAVAILABLE, "after the shutdown");
        let pushed = server.metrics();
        let name = "http.server.request.duration";
        assert!(pushed.iter().any(|metric| metric.name == name));
    }
}

#[tokio::test]
async fn what_is_not_pulled_says_so() {
    for telemetry in [
        builder().build().unwrap(),
        builder().console().build().unwrap(),
    ] {
        let (_, status, sentence) = ask(&telemetry, get("*/*")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            sentence.starts_with(b"metrics are not pulled: ask for it with"),
            "{sentence:?}"
        );
        assert_eq!(telemetry.prometheus_address(), None);
    }
}

#[tokio::test]
async fn metrics_are_pushed_and_pulled_at_once() {
    let server = OtlpServer::start();
    let endpoint = format!("http://{}", server.endpoint());
    let telemetry = builder()
        .vars([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_METRICS_EXPORTER", "otlp, prometheus"),
            ("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "0"),
        ])
        .build()
        .unwrap();
    serve_one(&telemetry).await;
    let address = telemetry.prometheus_address().unwrap();
    let pulled = tokio::task::spawn_blocking(move || over_http(address, "/metrics"))
        .await
        .unwrap();
    let count = lines(&pulled, "http_server_request_duration_seconds_count");
    assert!(count.len() == 1 && count[0].ends_with("} 1"), "{pulled}");
    telemetry.shutdown(PATIENCE).await.unwrap();
    let pushed = server.metrics();
    assert!(
        pushed
            .iter()
            .any(|metric| metric.name == "http.server.request.duration")
    );
}

/// The body of an answer on a connection of its own.
fn over_http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

/// imgproxy's own variables: its page is there on any path, under its names.
#[test]
fn imgproxys_variables_give_imgproxys_page() {
    let telemetry = Telemetry::builder()
        .vars([
            ("IMGPROXY_PROMETHEUS_BIND", "127.0.0.1:0"),
            ("IMGPROXY_PROMETHEUS_NAMESPACE", "img"),
        ])
        .build()
        .unwrap();
    let (_, counts) = telemetry.in_progress_layer();
    let _image = counts.image();
    telemetry
        .gauges()
        .workers(&tower_image_trace::pool::Workers::new(4));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(serve_one(&telemetry));
    let address = telemetry.prometheus_address().unwrap();
    for path in ["/", "/metrics", "/any/thing"] {
        let page = over_http(address, path);
        let mut values = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            values.insert(name.to_owned(), line.rsplit(' ').next().unwrap().to_owned());
        }
        assert!(
            values
                .keys()
                .all(|name| name.starts_with("img_") || name == "target_info"),
            "{page}"
        );
        for (name, value) in [
            ("img_requests_total", "1"),
            ("img_status_codes_total", "1"),
            ("img_request_duration_seconds_count", "1"),
            ("img_request_span_duration_seconds_count", "1"),
            ("img_requests_in_progress", "0"),
            ("img_images_in_progress", "1"),
            ("img_workers", "4"),
            ("img_workers_utilization", "0"),
            ("img_http_server_request_duration_seconds_count", "1"),
        ] {
            assert_eq!(
                values.get(name).map(String::as_str),
                Some(value),
                "{name}: {page}"
            );
        }
        assert!(page.contains(r#"service_name="imgproxy""#), "{page}");
    }
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_ok() {
        assert!(std::time::Instant::now() < deadline, "still listening");
    }
}

#[test]
fn a_listener_that_cannot_be_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let own = Telemetry::builder().vars([("THUMBS_PROMETHEUS_BIND", address.to_string())]);
    let error = own.env_prefix("THUMBS_").build().unwrap_err().to_string();
    assert!(
        error.contains(&format!(
            "THUMBS_PROMETHEUS_BIND=\"{address}\": cannot listen there"
        )),
        "{error}"
    );

    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let port = address.port().to_string();
    let standard = Telemetry::builder().vars([
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", &port),
    ]);
    let standard = standard.on_event(move |event| heard.lock().unwrap().push(event.to_string()));
    let telemetry = standard.build().unwrap();
    assert_eq!(telemetry.prometheus_address(), None);
    let said = said.lock().unwrap().join("\n");
    let expected = format!("OTEL_EXPORTER_PROMETHEUS_HOST: cannot listen on {address}");
    assert!(
        said.contains(&expected) && said.contains("; nothing listens for Prometheus"),
        "{said}"
    );
    drop(taken);
}

#[test]
fn settings_say_how_metrics_are_pulled() {
    let from = |vars: Vars<'_>| Settings::from_vars(vars.iter().copied()).unwrap();
    let listens = |vars: Vars<'_>| from(vars).prometheus.map(|it| it.listen.unwrap());
    let prometheus = ("OTEL_METRICS_EXPORTER", "prometheus");
    let rows: [(Vars<'_>, Option<&str>); 11] = [
        (&[], None),
        (&[prometheus], Some("localhost:9464")),
        (
            &[("OTEL_METRICS_EXPORTER", "Prometheus,OTLP")],
            Some("localhost:9464"),
        ),
        (
            &[prometheus, ("OTEL_EXPORTER_PROMETHEUS_HOST", "::1")],
            Some("[::1]:9464"),
        ),
        (
            &[
                prometheus,
                ("OTEL_EXPORTER_PROMETHEUS_HOST", "0.0.0.0"),
                ("OTEL_EXPORTER_PROMETHEUS_PORT", "81"),
            ],
            Some("0.0.0.0:81"),
        ),
        (&[("OTEL_EXPORTER_PROMETHEUS_PORT", "81")], None),
        (&[("IMGPROXY_PROMETHEUS_BIND", ":8081")], Some(":8081")),
        (
            &[("IMGPROXY_PROMETHEUS_BIND", ":8081"), prometheus],
            Some(":8081"),
        ),
        (&[("IMGPROXY_PROMETHEUS_NAMESPACE", "a")], None),
        (
            &[
                ("IMGPROXY_PROMETHEUS_BIND", ":8081"),
                ("OTEL_SDK_DISABLED", "true"),
            ],
            None,
        ),
        (&[("OTEL_METRICS_EXPORTER", "none")], None),
    ];
    for (vars, expected) in rows {
        assert_eq!(listens(vars).as_deref(), expected, "{vars:?}");
    }
    let both = from(&[("OTEL_METRICS_EXPORTER", "otlp,prometheus")]);
    assert!(matches!(both.metrics, Exporter::Otlp(_)));
    let pulled = from(&[
        prometheus,
        ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "c:1"),
        ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "true"),
    ]);
    assert!(pulled.metrics == Exporter::None && pulled.prometheus.is_some());
    let off = Telemetry::builder().vars([("IMGPROXY_PROMETHEUS_BIND", ":8081")]);
    assert_eq!(off.metrics(false).settings().unwrap().prometheus, None);
    let none = Telemetry::builder().vars([("OTEL_METRICS_EXPORTER", "none")]);
    assert_eq!(none.metrics(true).settings().unwrap().prometheus, None);

    for (vars, parts) in [
        (
            &[("IMGPROXY_PROMETHEUS_BIND", "localhost")][..],
            &["IMGPROXY_PROMETHEUS_BIND=\"localhost\"", "host:port"][..],
        ),
        (
            &[("IMGPROXY_PROMETHEUS_NAMESPACE", "1a")],
            &["IMGPROXY_PROMETHEUS_NAMESPACE=\"1a\"", "letters, digits"],
        ),
        (
            &[("IMGPROXY_OPEN_TELEMETRY_SERIES_LIMIT", "0")],
            &["SERIES_LIMIT=\"0\"", "from 1 to 1000000"],
        ),
    ] {
        let error = Settings::from_vars(vars.iter().copied())
            .unwrap_err()
            .to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    for (vars, part) in [
        (
            ("OTEL_METRICS_EXPORTER", "none,prometheus"),
            "expected otlp, console, prometheus",
        ),
        (
            ("OTEL_TRACES_EXPORTER", "prometheus"),
            "expected otlp, console or none",
        ),
    ] {
        let settings = from(&[vars]);
        assert!(settings.prometheus.is_none() && !settings.is_enabled());
        assert!(
            settings.warnings[0].to_string().contains(part),
            "{:?}",
            settings.warnings
        );
    }
    let settings = from(&[
        prometheus,
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "http"),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "a b"),
    ]);
    assert_eq!(settings.warnings.len(), 2, "{:?}", settings.warnings);
    assert_eq!(
        settings.prometheus.unwrap().listen.unwrap(),
        "localhost:9464"
    );

    let mut settings = Settings::default();
    let mut prometheus = PrometheusExporter::default();
    prometheus.listen = Some("nowhere".to_owned());
    prometheus.namespace = Some("a-b".to_owned());
    settings.prometheus = Some(prometheus);
    settings.series_limit = 0;
    let error = Telemetry::from_settings(settings).unwrap_err().to_string();
    for part in [
        "prometheus.listen=\"nowhere\"",
        "prometheus.namespace=\"a-b\"",
        "series_limit=\"0\"",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let code = builder()
        .prometheus_listen("nowhere")
        .prometheus_namespace("")
        .series_limit(0);
    let error = code.settings().unwrap_err().to_string();
    for part in [
        "prometheus_listen=\"nowhere\"",
        "prometheus_namespace=\"\"",
        "series_limit=\"0\"",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

/// Those who go on asking while a page is made wait for their turn.
#[test]
fn pages_are_made_one_after_the_other_on_any_runtime_and_on_none() {
    let telemetry = builder()
        .prometheus(true)
        .protocol(Protocol::Grpc)
        .build()
        .unwrap();
    let asked = || futures_util::future::join_all((0..50).map(|_| page(&telemetry, "*/*")));
    let pages = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(asked());
    assert_eq!(pages.len(), 50);
    let page = telemetry.prometheus().oneshot(get("*/*"));
    let response = futures_util::FutureExt::now_or_never(page)
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
