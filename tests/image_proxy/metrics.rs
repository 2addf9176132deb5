//! A full run of the service, as a collector receives it. Every metric and span is there with the right
//! values, and the code agrees with the registry.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    metrics::v1::{Metric, metric::Data, number_data_point},
    trace::v1::span::SpanKind,
};
use tower::ServiceExt;
#[cfg(not(feature = "libvips"))]
use tower_image_trace::metrics::VipsMemory;
use tower_image_trace::{RequestTrace, Telemetry};

use super::{Limits, Service};
use crate::support::{
    otlp::{OtlpServer, PATIENCE, ReceivedSpan, attributes},
    registry::{self, Registry},
};

/// Semantic conventions 1.42: instrument, unit, and the attributes that this run may have.
const SEMCONV_METRICS: [(&str, &str, &str, &[&str]); 10] = [
    (
        "http.client.request.duration",
        "histogram",
        "s",
        &[
            "error.type",
            "http.request.method",
            "http.response.status_code",
            "network.protocol.version",
            "server.address",
            "server.port",
            "url.scheme",
        ],
    ),
    ("http.server.request.duration", "histogram", "s", HTTP),
    ("http.server.request.body.size", "histogram", "By", HTTP),
    ("http.server.response.body.size", "histogram", "By", HTTP),
    (
        "http.server.active_requests",
        "updowncounter",
        "{request}",
        &["http.request.method", "url.scheme"],
    ),
    ("process.cpu.time", "counter", "s", &["cpu.mode"]),
    ("process.memory.usage", "updowncounter", "By", &[]),
    ("process.memory.virtual", "updowncounter", "By", &[]),
    ("process.thread.count", "updowncounter", "{thread}", &[]),
    (
        "process.unix.file_descriptor.count",
        "updowncounter",
        "{file_descriptor}",
        &[],
    ),
];

const HTTP: &[&str] = &[
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "url.scheme",
];

/// The attributes that semantic conventions 1.42 have for HTTP spans, and for errors.
const SEMCONV_SPAN_ATTRIBUTES: [&str; 23] = [
    "client.address",
    "client.port",
    "error.type",
    "http.request.body.size",
    "http.request.method",
    "http.request.method_original",
    "http.request.resend_count",
    "http.response.body.size",
    "http.response.status_code",
    "http.route",
    "network.local.address",
    "network.local.port",
    "network.peer.address",
    "network.peer.port",
    "network.protocol.name",
    "network.protocol.version",
    "server.address",
    "server.port",
    "url.full",
    "url.path",
    "url.query",
    "url.scheme",
    "user_agent.original",
];

/// The attributes of a series and its value; for a histogram, the count.
type Point = (BTreeMap<String, String>, f64);

struct Run {
    metrics: BTreeMap<String, Metric>,
    spans: Vec<ReceivedSpan>,
}

impl Run {
    fn points(&self, name: &str) -> Vec<Point> {
        let metric = self.metrics.get(name);
        points(metric.unwrap_or_else(|| panic!("no {name}")))
    }

    fn total(&self, name: &str) -> f64 {
        self.points(name).iter().map(|(_, value)| value).sum()
    }

    /// The values by the attribute `key`, which is different in each series.
    fn by(&self, name: &str, key: &str) -> BTreeMap<String, f64> {
        let points = self.points(name).into_iter();
        points
            .map(|(attributes, value)| (attributes[key].clone(), value))
            .collect()
    }
}

/// 100 requests: 79 pictures, 10 missing sources, 5 sources that are not pictures, 2 invalid paths,
/// a forbidden origin, an unknown method, a full queue, and a client that leaves.
async fn run() -> Run {
    let collector = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .endpoint(collector.endpoint())
        .metrics(true)
        .imgproxy_metrics(true)
        .build()
        .unwrap();
    #[cfg(not(feature = "libvips"))]
    telemetry.gauges().vips_with(|| VipsMemory {
        memory: 1,
        max_memory: 2,
        allocs: 3,
    });
    let limits = Limits {
        queue: 0,
        ..Limits::default()
    };
    let service = Service::observed(&telemetry, limits).await;
    let in_progress = &service.app.in_progress;
    // The client may have its answer before the service has finished the request.
    let until = async |requests: i64, images: i64| {
        while (in_progress.requests(), in_progress.images()) != (requests, images) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };

    for _ in 0..79 {
        let answer = service.resize("w:9", "/rocket.jpg").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    for _ in 0..10 {
        service.resize("w:9", "/missing.jpg").await;
    }
    for _ in 0..5 {
        service.resize("w:9", "/notes.txt").await;
    }
    for _ in 0..2 {
        service.get("/resize/w:x/plain/http://a/").await;
    }
    service
        .get("/resize/w:9/plain/http://elsewhere.example/")
        .await;

    let unknown = Request::builder()
        .method("BREW")
        .uri("http://127.0.0.1/resize/w:9?milk=yes")
        .header("content-length", 3)
        .header("user-agent", "pot")
        .body(Body::from("tea"))
        .unwrap();
    let answer = service.router.clone().oneshot(unknown).await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    answer.into_body().collect().await.unwrap();

    until(0, 0).await;
    let trace = RequestTrace::default();
    let first = service.app.workers.acquire(&trace).await.unwrap();
    let second = service.app.workers.acquire(&trace).await.unwrap();
    let refused = service.resize("w:9", "/rocket.jpg").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    drop((first, second));

    until(0, 0).await;
    tokio::select! {
        _ = service.resize("w:9", "/slow.png") => panic!("the source is slow"),
        () = until(1, 1) => {}
    }
    until(0, 0).await;

    telemetry.shutdown(PATIENCE).await.unwrap();
    Run {
        metrics: collector
            .metrics()
            .into_iter()
            .map(|metric| (metric.name.clone(), metric))
            .collect(),
        spans: collector.spans(),
    }
}

#[tokio::test]
async fn a_full_run_as_a_collector_receives_it() {
    let run = run().await;
    counts_are_right(&run);
    code_and_registry_agree(&run);
}

fn counts_are_right(run: &Run) {
    assert_eq!(run.total("http.server.request.duration"), 100.0);
    assert_eq!(run.total("http.server.active_requests"), 0.0);
    assert_eq!(run.total("http.server.request.body.size"), 1.0);
    // The client that left got no answer.
    assert_eq!(run.total("http.server.response.body.size"), 99.0);
    assert_eq!(run.total("requests_total"), 100.0);
    assert_eq!(run.total("request_duration_seconds"), 100.0);
    let statuses = [
        ("200", 79.0),
        ("400", 2.0),
        ("403", 1.0),
        ("404", 10.0),
        ("405", 1.0),
        ("422", 5.0),
        ("503", 1.0),
    ];
    assert_eq!(run.by("status_codes_total", "status"), map(&statuses));
    for gauge in ["requests_in_progress", "images_in_progress"] {
        assert_eq!(run.points(gauge), [(BTreeMap::new(), 0.0)], "{gauge}");
    }
    let stages = [
        ("queue", 96.0),
        ("downloading_image", 95.0),
        ("processing_image", 84.0),
        ("streaming_image", 79.0),
    ];
    let name = "request_span_duration_seconds";
    assert_eq!(run.by(name, "span"), map(&stages));
    let errors = [
        ("download", 10.0),
        ("processing", 5.0),
        ("path_parsing", 2.0),
        ("security", 1.0),
        ("queue", 1.0),
    ];
    assert_eq!(run.by("errors_total", "type"), map(&errors));
    assert_eq!(run.total("workers"), 2.0);
    assert_eq!(run.total("workers_utilization"), 0.0);
    let buffers = [("download", 84.0)];
    assert_eq!(run.by("buffer_size_bytes", "type"), map(&buffers));
    assert_eq!(run.total("buffer_default_size_bytes"), 0.0);
    assert_eq!(run.total("buffer_max_size_bytes"), f64::from(32 << 20));
    #[cfg(not(feature = "libvips"))]
    {
        assert_eq!(run.total("vips_memory_bytes"), 1.0);
        assert_eq!(run.total("vips_max_memory_bytes"), 2.0);
        assert_eq!(run.total("vips_allocs"), 3.0);
    }
    #[cfg(feature = "libvips")]
    assert!(run.total("vips_max_memory_bytes") > 0.0);
    #[cfg(all(feature = "process", target_os = "linux"))]
    {
        let time = run.by("process.cpu.time", "cpu.mode");
        assert!(
            time.contains_key("system") && time["user"] > 0.0,
            "{time:?}"
        );
        let memory = run.total("process.memory.usage");
        assert!(memory > 1e6 && memory < run.total("process.memory.virtual"));
        assert!(run.total("process.thread.count") >= 2.0);
        assert!(run.total("process.unix.file_descriptor.count") >= 3.0);
    }
    #[cfg(feature = "tokio-metrics")]
    {
        assert_eq!(run.total("tokio.workers"), 1.0);
        assert!(run.total("tokio.alive_tasks") >= 1.0);
        assert!(run.total("tokio.global_queue_depth") >= 0.0);
        assert!(run.by("tokio.worker.busy_duration", "tokio.worker.index")["0"] > 0.0);
    }
}

fn code_and_registry_agree(run: &Run) {
    let registry = Registry::read();
    let mut seen = BTreeSet::new();

    // `telemetry_self_metrics` tests the metrics of the export pipeline.
    let metrics = run.metrics.iter();
    for (name, metric) in metrics.filter(|(name, _)| !name.starts_with("otel.sdk.")) {
        let points = points(metric);
        let attributes: BTreeSet<String> = points
            .into_iter()
            .flat_map(|(attributes, _)| attributes.into_keys())
            .collect();
        if let Some(declared) = registry.metrics.get(name) {
            seen.extend(attributes.iter().cloned());
            let emitted = registry::Metric {
                instrument: instrument(metric).to_owned(),
                unit: metric.unit.clone(),
                brief: metric.description.clone(),
                attributes,
            };
            assert_eq!(emitted, *declared, "{name}");
        } else {
            let mut semconv = SEMCONV_METRICS.iter();
            let declared = semconv.find(|(semconv, ..)| semconv == name);
            let (_, kind, unit, known) = declared.unwrap_or_else(|| panic!("{name} is undeclared"));
            assert_eq!(
                (instrument(metric), &*metric.unit),
                (*kind, *unit),
                "{name}"
            );
            let unknown = attributes.iter().find(|key| !known.contains(&key.as_str()));
            assert_eq!(unknown, None, "{name}");
        }
    }
    let optional = |name: &str| {
        name.starts_with("process.") && !cfg!(all(feature = "process", target_os = "linux"))
            || name.starts_with("tokio.") && !cfg!(feature = "tokio-metrics")
    };
    let semconv = SEMCONV_METRICS.iter().map(|(name, ..)| *name);
    for name in semconv.chain(registry.metrics.keys().map(String::as_str)) {
        assert!(
            run.metrics.contains_key(name) || optional(name),
            "no {name}"
        );
    }

    for span in &run.spans {
        let group = match span.name.as_str() {
            name if registry.spans.contains_key(name) => name,
            _ if span.kind() == SpanKind::Client => "attempt",
            _ => "request",
        };
        let (kind, declared) = &registry.spans[group];
        assert_eq!(
            span.kind().as_str_name(),
            format!("SPAN_KIND_{}", kind.to_uppercase())
        );
        for KeyValue { key, value, .. } in &span.attributes {
            if SEMCONV_SPAN_ATTRIBUTES.contains(&key.as_str()) {
                continue;
            }
            assert!(declared.contains(key), "{key} of {group} is undeclared");
            let value = value.as_ref().unwrap().value.as_ref().unwrap();
            let emitted = match value {
                any_value::Value::StringValue(_) => "string",
                any_value::Value::IntValue(_) => "int",
                any_value::Value::BoolValue(_) => "boolean",
                other => panic!("{key}: {other:?}"),
            };
            assert_eq!(emitted, registry.attributes[key], "{key}");
            seen.insert(key.clone());
        }
    }
    let names: BTreeSet<&str> = run.spans.iter().map(|span| span.name.as_str()).collect();
    for name in registry.spans.keys() {
        let unnamed = ["attempt", "request"].contains(&name.as_str());
        assert!(unnamed || names.contains(name.as_str()), "no span {name}");
    }
    for name in registry.attributes.keys() {
        assert!(seen.contains(name) || optional(name), "no {name}");
    }
}

fn instrument(metric: &Metric) -> &'static str {
    match metric.data.as_ref().unwrap() {
        Data::Gauge(_) => "gauge",
        Data::Histogram(_) => "histogram",
        Data::Sum(sum) if sum.is_monotonic => "counter",
        Data::Sum(_) => "updowncounter",
        other => panic!("{other:?}"),
    }
}

fn points(metric: &Metric) -> Vec<Point> {
    let numbers = match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => &gauge.data_points,
        Data::Sum(sum) => &sum.data_points,
        Data::Histogram(histogram) => {
            let points = histogram.data_points.iter();
            return points
                .map(|point| (attributes(&point.attributes), point.count as f64))
                .collect();
        }
        other => panic!("{other:?}"),
    };
    let numbers = numbers.iter();
    numbers
        .map(|point| {
            let value = match point.value.unwrap() {
                number_data_point::Value::AsDouble(value) => value,
                number_data_point::Value::AsInt(value) => value as f64,
            };
            (attributes(&point.attributes), value)
        })
        .collect()
}

fn map(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), *value))
        .collect()
}
