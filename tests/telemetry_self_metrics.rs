//! What becomes of spans is exported as metrics, under the names of the OpenTelemetry SDK's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use http::StatusCode;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value};
use tonic::Code;
use tower_image_trace::{Protocol, Telemetry};

use crate::support::{
    otlp::{Behaviour, OtlpServer, PATIENCE, attributes},
    registry::Registry,
    semconv,
};

/// The latest value for each set of attributes.
fn points(metrics: &[Metric], name: &str) -> BTreeMap<String, i64> {
    let named = metrics.iter().filter(|metric| metric.name == name);
    let points = named.flat_map(|metric| match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.clone(),
        other => panic!("{name}: {other:?}"),
    });
    let point = |point: opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let attributes = attributes(&point.attributes);
        let error = attributes.get("error.type").cloned().unwrap_or_default();
        let Some(Value::AsInt(value)) = point.value else {
            panic!("{point:?}")
        };
        let component = &attributes["otel.component.type"];
        let (kind, number) = attributes["otel.component.name"].split_once('/').unwrap();
        assert!(kind == component && number.parse::<u32>().is_ok());
        (format!("{component} {error}"), value)
    };
    points.map(point).collect()
}

/// Instrument, unit, description and attributes.
fn assert_as_semconv_has_it(metric: &Metric) {
    let name = &*metric.name;
    let semconv = semconv::Metric::named(name).unwrap_or_else(|| panic!("{name}"));
    let Some(Data::Sum(sum)) = &metric.data else {
        panic!("{metric:?}")
    };
    let instrument = match sum.is_monotonic {
        true => "counter",
        false => "updowncounter",
    };
    assert_eq!(instrument, semconv.instrument, "{name}");
    assert_eq!(metric.unit, semconv.unit, "{name}");
    assert_eq!(metric.description, semconv.brief, "{name}");
    for point in &sum.data_points {
        semconv.check_attributes(point.attributes.iter().map(|pair| pair.key.as_str()));
    }
}

/// Telemetry whose metrics arrive whatever becomes of its spans.
fn with_spans_to(endpoint: &str, metrics: &OtlpServer) -> Telemetry {
    Telemetry::builder()
        .vars([
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", metrics.endpoint()),
            ("OTEL_BSP_EXPORT_TIMEOUT", "100".to_owned()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.to_owned()),
            ("OTEL_METRICS_EXPORTER", "otlp".to_owned()),
        ])
        .build()
        .unwrap()
}

fn record(telemetry: &Telemetry, spans: u64) {
    let tracer = telemetry.tracer_provider().tracer("test");
    (0..spans).for_each(|_| drop(tracer.start("span")));
}

/// The metrics as they are when this is called.
fn collect(telemetry: &Telemetry, server: &OtlpServer) -> Vec<Metric> {
    let before = server.metrics().len();
    telemetry.meter_provider().force_flush().unwrap();
    server.wait_for_metrics_beyond(before)
}

// faults A16
#[test]
fn spans_are_processed_when_the_exporter_gets_them_whatever_becomes_of_the_export() {
    let metrics_server = OtlpServer::start();
    let server = OtlpServer::start();
    server.behave(Behaviour::Hang);
    let telemetry = with_spans_to(&server.endpoint(), &metrics_server);
    record(&telemetry, 3);
    let before = points(
        &collect(&telemetry, &metrics_server),
        "otel.sdk.processor.span.processed",
    );
    assert_eq!(before["batching_span_processor "], 0);
    telemetry
        .force_flush_blocking(Duration::ZERO)
        .expect_err("the collector hangs");
    server.wait_for_requests(1);
    // The flush has collected metrics too, and may have done so before the exporter got the spans.
    let deadline = Instant::now() + PATIENCE;
    let metrics = loop {
        let metrics = collect(&telemetry, &metrics_server);
        let processed = points(&metrics, "otel.sdk.processor.span.processed");
        if processed["batching_span_processor "] == 3 {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{processed:?}");
    };
    let exported = points(&metrics, "otel.sdk.exporter.span.exported");
    assert_eq!(exported["otlp_grpc_span_exporter "], 0);
    server.behave(Behaviour::Accept);
}

// faults A16
#[test]
fn a_failed_export_says_its_cause() {
    let metrics_server = OtlpServer::start();
    let exported = |telemetry: &Telemetry| {
        points(
            &collect(telemetry, &metrics_server),
            "otel.sdk.exporter.span.exported",
        )
    };

    // A port that was free a moment ago.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let telemetry = with_spans_to(&format!("http://{address}"), &metrics_server);
    record(&telemetry, 2);
    telemetry.force_flush_blocking(PATIENCE).unwrap_err();
    assert_eq!(exported(&telemetry)["otlp_grpc_span_exporter connect"], 2);

    let server = OtlpServer::start();
    let telemetry = with_spans_to(&server.endpoint(), &metrics_server);
    server.behave(Behaviour::Reject(2, "too old"));
    record(&telemetry, 3);
    telemetry.force_flush_blocking(PATIENCE).unwrap_err();
    let exported = exported(&telemetry);
    assert_eq!(exported["otlp_grpc_span_exporter "], 1);
    assert_eq!(exported["otlp_grpc_span_exporter rejected"], 2);
}

// faults A16
#[test]
fn components_have_names_and_addresses_of_their_own() {
    let server = OtlpServer::start();
    let two = [(); 2].map(|()| {
        Telemetry::builder()
            .vars([("", ""); 0])
            .endpoint(server.endpoint())
            .metrics(true)
            .build()
            .unwrap()
    });
    let mut names = BTreeSet::new();
    let endpoint = server.endpoint();
    let (_, port) = endpoint.rsplit_once(':').unwrap();
    for telemetry in &two {
        let metrics = collect(telemetry, &server);
        let mut of_this = BTreeSet::new();
        for metric in metrics
            .iter()
            .filter(|metric| metric.name.starts_with("otel."))
        {
            assert_as_semconv_has_it(metric);
            let Some(Data::Sum(sum)) = &metric.data else {
                panic!("{metric:?}")
            };
            for point in &sum.data_points {
                let attributes = attributes(&point.attributes);
                if metric.name.contains(".exporter.") {
                    assert_eq!(attributes["server.address"], "127.0.0.1");
                    assert_eq!(attributes["server.port"], port);
                }
                of_this.insert(attributes["otel.component.name"].clone());
            }
        }
        assert_eq!(of_this.len(), 3, "{of_this:?}");
        assert!(names.is_disjoint(&of_this), "{names:?} {of_this:?}");
        names.extend(of_this);
    }
}

#[test]
fn spans_exported_and_dropped() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([("OTEL_BSP_MAX_QUEUE_SIZE", "100")])
            .endpoint(server.endpoint())
            .protocol(protocol)
            .metrics(true)
            .build()
            .unwrap();
        let tracer = telemetry.tracer_provider().tracer("test");
        for _ in 0..100 {
            drop(tracer.start("span"));
        }
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        telemetry.force_flush_blocking(PATIENCE).unwrap();

        let metrics = server.metrics();
        let exporter = format!("otlp_{protocol}_span_exporter ");
        let exported = points(&metrics, "otel.sdk.exporter.span.exported");
        assert_eq!(exported[&exporter], 100, "{exported:?}");
        assert_eq!(exported[&format!("{exporter}rejected")], 0);
        let processed = points(&metrics, "otel.sdk.processor.span.processed");
        assert_eq!(processed["batching_span_processor "], 100);
        assert_eq!(processed["batching_span_processor queue_full"], 0);
        assert_eq!(processed["batching_span_processor already_shutdown"], 0);
        let capacity = points(&metrics, "otel.sdk.processor.span.queue.capacity");
        assert_eq!(capacity["batching_span_processor "], 100);
        assert!(points(&metrics, "otel.sdk.processor.span.queue.size").len() == 1);
        assert!(points(&metrics, "otel.sdk.exporter.metric_data_point.exported").len() == 2);
    }
}

#[test]
fn what_waits_what_was_dropped_and_what_was_refused() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
                ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
            ])
            .endpoint(server.endpoint())
            .protocol(protocol)
            .timeout(Duration::from_secs(1))
            .metrics(true)
            .build()
            .unwrap();
        let record = |spans: u64| {
            let tracer = telemetry.tracer_provider().tracer("test");
            (0..spans).for_each(|_| drop(tracer.start("span")));
        };
        record(7);
        telemetry.meter_provider().force_flush().unwrap();
        server.wait_for_metric("otel.sdk.processor.span.queue.size");
        let size = points(&server.metrics(), "otel.sdk.processor.span.queue.size");
        assert_eq!(size["batching_span_processor "], 7);
        telemetry.force_flush_blocking(PATIENCE).unwrap();

        server.behave(Behaviour::Refuse {
            http: StatusCode::BAD_REQUEST,
            grpc: Code::InvalidArgument,
            message: "no",
            retry_after: None,
        });
        record(3);
        telemetry.force_flush_blocking(PATIENCE).unwrap_err();
        server.behave(Behaviour::Hang);
        record(15);
        server.behave(Behaviour::Accept);
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        telemetry.shutdown_blocking(PATIENCE).unwrap();

        let metrics = server.metrics();
        let exporter = format!("otlp_{protocol}_span_exporter ");
        let exported = points(&metrics, "otel.sdk.exporter.span.exported");
        assert_eq!(exported[&exporter], 17, "{exported:?}");
        let refused = match protocol {
            Protocol::Grpc => "INVALID_ARGUMENT",
            _ => "400",
        };
        assert_eq!(exported[&format!("{exporter}{refused}")], 3);
        let processed = points(&metrics, "otel.sdk.processor.span.processed");
        assert_eq!(processed["batching_span_processor "], 20);
        assert_eq!(processed["batching_span_processor queue_full"], 5);
        let size = points(&metrics, "otel.sdk.processor.span.queue.size");
        assert_eq!(size["batching_span_processor "], 0);
        let data_points = points(&metrics, "otel.sdk.exporter.metric_data_point.exported");
        let exporter = format!("otlp_{protocol}_metric_exporter ");
        assert!(data_points[&exporter] > 0);
        assert!(data_points[&format!("{exporter}{refused}")] > 0);
    }
}

#[cfg(feature = "logs")]
#[test]
fn log_records_exported_and_dropped() {
    use tracing_subscriber::layer::SubscriberExt;

    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "10"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "600000"),
        ])
        .endpoint(server.endpoint())
        .timeout(Duration::from_secs(1))
        .metrics(true)
        .logs(true)
        .build()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    server.behave(Behaviour::Hang);
    tracing::subscriber::with_default(subscriber, || {
        (0..15).for_each(|_| tracing::info!("a line"));
    });
    server.behave(Behaviour::Accept);
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    telemetry.shutdown_blocking(PATIENCE).unwrap();

    let metrics = server.metrics();
    let exported = points(&metrics, "otel.sdk.exporter.log.exported");
    assert_eq!(exported["otlp_grpc_log_exporter "], 10);
    assert_eq!(exported["otlp_grpc_log_exporter rejected"], 0);
    let processed = points(&metrics, "otel.sdk.processor.log.processed");
    assert_eq!(processed["batching_log_processor "], 10);
    assert_eq!(processed["batching_log_processor queue_full"], 5);
    for (name, expected) in [("size", 0), ("capacity", 10)] {
        let name = format!("otel.sdk.processor.log.queue.{name}");
        assert_eq!(points(&metrics, &name)["batching_log_processor "], expected);
        assert_eq!(points(&metrics, &name).len(), 1);
    }
    for metric in metrics
        .iter()
        .filter(|metric| metric.name.contains(".log."))
    {
        assert_as_semconv_has_it(metric);
    }
}

#[test]
fn in_the_scope_of_all_other_metrics() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .endpoint(server.endpoint())
        .metrics(true)
        .build()
        .unwrap();
    let _ = telemetry.in_progress_layer();
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    server.wait_for_metric("otel.sdk.exporter.span.exported");
    server.wait_for_metric("requests_in_progress");
    let scopes: BTreeSet<_> = server.metric_scopes().into_iter().collect();
    let [(name, schema)] = Vec::from_iter(scopes).try_into().unwrap();
    assert_eq!(name, "tower-image-trace");
    // faults A16
    let version = schema.strip_prefix("https://opentelemetry.io/schemas/");
    assert_eq!(version, Some(semconv::VERSION));
    assert_eq!(version, Some(&*Registry::semconv_version()));
}
