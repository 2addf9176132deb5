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
use tower_image_trace::{RequestTrace, Telemetry, telemetry::Keep};

use super::{Limits, Service};
use crate::support::{
    otlp::{OtlpServer, PATIENCE, ReceivedSpan, attributes},
    registry::{self, Registry},
    semconv,
};

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
        // All of them, which then say why.
        .keep(Keep::ratio(1.0))
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
    // `metric_attributes` has stages with caches.
    let of_caches = |name: &str| name.ends_with(".cache");
    let registry = Registry::read();
    let mut seen = BTreeSet::new();

    for (name, metric) in &run.metrics {
        let points = points(metric);
        let emitted = |attributes| registry::Metric {
            instrument: instrument(metric).to_owned(),
            unit: metric.unit.clone(),
            brief: metric.description.clone(),
            attributes,
        };
        if let Some(declared) = registry.metrics.get(name) {
            let attributes: BTreeSet<String> = points
                .into_iter()
                .flat_map(|(attributes, _)| attributes.into_keys())
                .collect();
            seen.extend(attributes.iter().cloned());
            let mut declared = declared.clone();
            declared.attributes.retain(|name| !of_caches(name));
            assert_eq!(emitted(attributes), declared, "{name}");
        } else {
            let semconv = semconv::Metric::named(name);
            let semconv = semconv.unwrap_or_else(|| panic!("{name} is undeclared"));
            let declared = registry::Metric {
                instrument: semconv.instrument.to_owned(),
                unit: semconv.unit.to_owned(),
                brief: semconv.brief.to_owned(),
                attributes: BTreeSet::new(),
            };
            assert_eq!(emitted(BTreeSet::new()), declared, "{name}");
            for (attributes, _) in &points {
                semconv.check_attributes(attributes.keys().map(String::as_str));
            }
        }
    }
    let optional = |name: &str| {
        name.starts_with("process.") && !cfg!(all(feature = "process", target_os = "linux"))
            || name.starts_with("tokio.") && !cfg!(feature = "tokio-metrics")
            || name == "image.stage.cpu_time" && !cfg!(target_os = "linux")
    };
    // `every_row` makes calls, and `telemetry_self_metrics` exports log records.
    let elsewhere = |name: &str| name.starts_with("rpc.") || name.contains(".log.");
    let semconv = semconv::METRICS.iter().map(|metric| metric.name);
    for name in semconv.chain(registry.metrics.keys().map(String::as_str)) {
        assert!(
            run.metrics.contains_key(name) || optional(name) || elsewhere(name),
            "no {name}"
        );
    }

    let mut seen_of_attempts = BTreeSet::new();
    for span in &run.spans {
        let group = match span.name.as_str() {
            name if registry.spans.contains_key(name) => name,
            _ if span.kind() == SpanKind::Client => "attempt",
            _ => "request",
        };
        let (kind, _) = &registry.spans[group];
        assert_eq!(
            span.kind().as_str_name(),
            format!("SPAN_KIND_{}", kind.to_uppercase())
        );
        let keys = span.attributes.iter().map(|pair| pair.key.as_str());
        registry.check_span(group, keys.clone());
        if group == "attempt" {
            seen_of_attempts.extend(keys.map(str::to_owned));
        }
        for KeyValue { key, value, .. } in &span.attributes {
            let Some(declared) = registry.attributes.get(key) else {
                continue;
            };
            let value = value.as_ref().unwrap().value.as_ref().unwrap();
            let emitted = match value {
                any_value::Value::StringValue(_) => "string",
                any_value::Value::IntValue(_) => "int",
                any_value::Value::BoolValue(_) => "boolean",
                any_value::Value::DoubleValue(_) => "double",
                other => panic!("{key}: {other:?}"),
            };
            assert_eq!(emitted, declared, "{key}");
            seen.insert(key.clone());
        }
        for event in &span.events {
            assert_eq!(event.name, "exception");
            let keys = event.attributes.iter().map(|pair| pair.key.as_str());
            semconv::EXCEPTION.check_attributes("exception", keys);
        }
    }
    let names: BTreeSet<&str> = run.spans.iter().map(|span| span.name.as_str()).collect();
    for name in registry.spans.keys() {
        // The example joins no requests; a test of stages does.
        let unnamed = ["attempt", "call", "request", "waiting_for_image"].contains(&name.as_str());
        assert!(unnamed || names.contains(name.as_str()), "no span {name}");
    }
    for name in registry.attributes.keys() {
        assert!(
            seen.contains(name) || optional(name) || of_caches(name),
            "no {name}"
        );
    }
    // No attempt of this run has an unknown method or is repeated.
    let (_, declared) = &registry.spans["attempt"];
    let unseen: Vec<_> = declared.difference(&seen_of_attempts).collect();
    assert_eq!(
        unseen,
        ["http.request.method_original", "http.request.resend_count"]
    );

    resource_is_declared(&run.spans[0].resource, &registry);
}

// faults A16, A17
fn resource_is_declared(resource: &BTreeMap<String, String>, registry: &Registry) {
    let mut known = BTreeSet::new();
    for (name, entity) in &semconv::ENTITIES {
        assert!(registry.imports.contains(*name), "{name} is undeclared");
        let keys = resource.keys().map(String::as_str);
        let keys: Vec<_> = keys.filter(|key| entity.knows(key)).collect();
        known.extend(keys.iter().copied());
        if *name != "process" || cfg!(all(feature = "process", target_os = "linux")) {
            entity.check_attributes(name, keys);
        }
    }
    let keys: BTreeSet<_> = resource.keys().map(String::as_str).collect();
    assert_eq!(keys, known);
    let metrics = semconv::METRICS.iter().map(|metric| metric.name);
    let entities = semconv::ENTITIES.iter().map(|(name, _)| *name);
    let imports = metrics.chain(entities).chain(semconv::EXCEPTIONS);
    let imports: BTreeSet<String> = imports.map(str::to_owned).collect();
    assert_eq!(registry.imports, imports);
    if cfg!(all(feature = "process", target_os = "linux")) {
        let pid = std::process::id().to_string();
        assert_eq!(resource["process.pid"], pid);
        let created = &resource["process.creation.time"];
        assert!(
            created.len() == "2023-11-21T09:25:34Z".len() && created.ends_with('Z'),
            "{created}"
        );
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
