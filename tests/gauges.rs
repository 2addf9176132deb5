//! Gauges end with what registered them, and none can stop the others.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::Request;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use opentelemetry_sdk::metrics::{
    Aggregation, InMemoryMetricExporter, Instrument, PeriodicReader, SdkMeterProvider, Stream,
    data::{AggregatedMetrics, MetricData},
};
use tower::{Layer, Service, service_fn};
use tower_image_trace::{
    ImageTraceLayer, Protocol, RequestsInProgress, Telemetry,
    metrics::{Gauges, Metric},
};

use crate::support::{Recorder, otlp::OtlpServer};

#[test]
fn gauges_are_reported_until_they_are_dropped() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let counts = RequestsInProgress::default();
    gauges.in_progress(&counts);
    let image = counts.image();
    assert_eq!(recorder.only_series("requests_in_progress").sum, 0.0);
    assert_eq!(recorder.only_series("images_in_progress").sum, 1.0);
    drop(image);
    assert_eq!(recorder.only_series("images_in_progress").sum, 0.0);
    drop(gauges);
    assert_eq!(recorder.series("requests_in_progress"), []);
    assert_eq!(recorder.series("images_in_progress"), []);
}

/// A handler may hold its request for as long as it likes: calls that are never polled do.
#[test]
fn active_requests_of_all_layers_are_added_up_with_gauges_and_without() {
    let recorder = Recorder::new();
    let with_gauges = || recorder.layer();
    let without = Recorder::new();
    let meters = without.meters.clone();
    let without_gauges = || {
        let layer = ImageTraceLayer::builder().traces(false);
        layer.meter_provider(meters.clone()).build()
    };
    let ways: [(&Recorder, &dyn Fn() -> ImageTraceLayer); 2] =
        [(&recorder, &with_gauges), (&without, &without_gauges)];
    for (recorder, layer) in ways {
        let call = |layer: &ImageTraceLayer, method, uri| {
            let request = Request::builder().method(method).uri(uri).body(());
            let mut service = layer.layer(service_fn(|_| {
                std::future::pending::<Result<http::Response<String>, std::io::Error>>()
            }));
            service.call(request.unwrap())
        };
        let (first, second) = (layer(), layer());
        let mut calls = vec![
            call(&first, "GET", "/cat.jpg"),
            call(&second, "GET", "/cat.jpg"),
            call(&second, "GET", "https://images.test/cat.jpg"),
            call(&first, "POST", "/cat.jpg"),
            call(&second, "BREW", "/cat.jpg"),
            call(&second, "STEEP", "/cat.jpg"),
        ];
        let active = || -> Vec<_> {
            let series = recorder.series("http.server.active_requests");
            let mut series: Vec<_> = series
                .into_iter()
                .map(|series| {
                    let labels: Vec<_> = series.attributes.into_values().collect();
                    (labels.join(" "), series.sum)
                })
                .collect();
            series.sort_by(|one, other| one.0.cmp(&other.0));
            series
        };
        let expected = |counts: [f64; 4]| -> Vec<_> {
            let names = ["GET http", "GET https", "POST http", "_OTHER http"];
            names.map(String::from).into_iter().zip(counts).collect()
        };
        assert_eq!(active(), expected([2.0, 1.0, 1.0, 2.0]));
        assert_eq!(active(), expected([2.0, 1.0, 1.0, 2.0]), "collected again");
        calls.drain(1..3);
        assert_eq!(active(), expected([1.0, 0.0, 1.0, 2.0]));
        calls.clear();
        assert_eq!(active(), expected([0.0; 4]));
    }
}

#[test]
fn a_gauge_without_a_value_is_not_reported() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    gauges.gauge(metric("memory.allocated", "By", "Bytes."), || None);
    assert_eq!(recorder.series("memory.allocated"), []);
}

#[test]
fn the_last_one_of_a_name_is_reported() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let held = Arc::new(());
    let first = Arc::clone(&held);
    gauges.gauge(metric("memory.allocated", "By", "Bytes."), move || {
        let _held = &first;
        Some(1)
    });
    gauges.gauge(metric("memory.allocated", "By", "Bytes."), || Some(2));
    assert_eq!(Arc::strong_count(&held), 1, "the first closure is dropped");
    assert_eq!(recorder.only_series("memory.allocated").sum, 2.0);
}

#[test]
fn a_gauge_that_panics_is_not_asked_again_and_stops_no_other() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let asked = Arc::new(AtomicU64::new(0));
    let panics = Arc::clone(&asked);
    gauges.gauge(metric("before", "1", "Before."), || Some(1));
    gauges.gauge(metric("panics", "1", "Panics."), move || {
        panics.fetch_add(1, Ordering::Relaxed);
        panic!("in a gauge");
    });
    gauges.gauge(metric("after", "1", "After."), || Some(3));
    for _ in 0..3 {
        assert_eq!(recorder.only_series("before").sum, 1.0);
        assert_eq!(recorder.series("panics"), []);
        assert_eq!(recorder.only_series("after").sum, 3.0);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_thousand_telemetries_leak_nothing_and_report_nothing_twice() {
    let server = OtlpServer::start();
    let held = Arc::new(());
    for number in 0..1_000 {
        let event = Arc::clone(&held);
        let telemetry = Telemetry::builder()
            .vars([("", ""); 0])
            .endpoint(server.endpoint())
            .protocol(Protocol::Http)
            .metrics(true)
            .on_event(move |_| {
                let _held = &event;
            })
            .build()
            .unwrap();
        let (_, counts) = telemetry.in_progress_layer();
        let held = Arc::clone(&held);
        let gauge = move || {
            let _held = &held;
            Some(number)
        };
        telemetry
            .gauges()
            .gauge(metric("number", "1", "Which one."), gauge);
        let image = counts.image();
        drop(telemetry);
        drop(image);
    }
    assert_eq!(Arc::strong_count(&held), 1, "all closures are dropped");

    let received = server.metrics();
    let values = |name: &str| -> Vec<i64> {
        let metrics = received.iter().filter(|metric| metric.name == name);
        metrics
            .flat_map(|metric| match metric.data.as_ref().unwrap() {
                Data::Gauge(gauge) => &gauge.data_points,
                Data::Sum(sum) => &sum.data_points,
                other => panic!("{name} has no value: {other:?}"),
            })
            .map(|point| match point.value.unwrap() {
                Value::AsInt(value) => value,
                Value::AsDouble(_) => panic!("{name} is an integer"),
            })
            .collect()
    };
    assert!(values("number").into_iter().eq(0..1_000));
    for (name, value) in [("requests_in_progress", 0), ("images_in_progress", 1)] {
        let values = values(name);
        assert_eq!(values.len(), 1_000, "{name}");
        assert!(values.iter().all(|found| *found == value), "{name}");
    }
    // Each with the attributes of those taken and of those refused.
    assert_eq!(values("otel.sdk.exporter.span.exported"), [0; 2_000]);
    assert_eq!(values("otel.sdk.processor.span.queue.size"), [0; 1_000]);

    // Other tests have threads of these names too, but nothing like a thousand.
    if let Ok(threads) = fs::read_dir("/proc/self/task") {
        let ours = threads
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("image-trace") || name.contains("PeriodicReader"))
            .count();
        assert!(ours < 500, "{ours} threads");
    }
}

fn metric(name: &'static str, unit: &'static str, description: &'static str) -> Metric {
    Metric {
        name,
        unit,
        description,
    }
}

// faults F12
#[test]
fn active_requests_are_added_up_however_many_gauges_there_are() {
    let recorder = Recorder::new();
    let gauges = [(); 2].map(|()| Gauges::new(&recorder.meters));
    let with = |gauges: &Gauges| {
        let layer = ImageTraceLayer::builder().traces(false);
        layer.gauges(gauges).build()
    };
    let without = ImageTraceLayer::builder().traces(false);
    let without = without.meter_provider(recorder.meters.clone()).build();
    let layers = [
        with(&gauges[0]),
        with(&gauges[1]),
        with(&gauges[1]),
        without,
    ];
    let mut calls: Vec<_> = layers
        .iter()
        .map(|layer| {
            let mut service = layer.layer(service_fn(|_| {
                std::future::pending::<Result<http::Response<String>, std::io::Error>>()
            }));
            service.call(Request::new(()))
        })
        .collect();
    let active = || recorder.only_series("http.server.active_requests").sum;
    assert_eq!(active(), 4.0);
    assert_eq!(active(), 4.0, "collected again");
    drop(calls.remove(1));
    assert_eq!(active(), 3.0);
    drop((layers, gauges));
    assert_eq!(active(), 3.0, "the requests go on");
    calls.clear();
    assert_eq!(active(), 0.0, "the last value");
}

/// The view has no idea of what tells the crate of collections.
#[test]
fn active_requests_are_counted_below_a_view_of_what_is_wanted() {
    const WANTED: &str = "http.server.active_requests";
    let exporter = InMemoryMetricExporter::default();
    let unwanted = |instrument: &Instrument| {
        let dropped = Stream::builder().with_aggregation(Aggregation::Drop);
        (instrument.name() != WANTED).then(|| dropped.build().unwrap())
    };
    let meters = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .with_view(unwanted)
        .build();
    let layer = ImageTraceLayer::builder().traces(false);
    let layer = layer.gauges(&Gauges::new(&meters)).build();
    let mut service = layer.layer(service_fn(|_: Request<()>| {
        std::future::pending::<Result<http::Response<String>, std::io::Error>>()
    }));
    let call = service.call(Request::new(()));
    let active = || {
        exporter.reset();
        meters.force_flush().unwrap();
        let exported = exporter.get_finished_metrics().unwrap();
        let metric = exported[0].scope_metrics().next().unwrap();
        let metric = metric.metrics().next().unwrap();
        assert_eq!(metric.name(), WANTED);
        match metric.data() {
            AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                sum.data_points().map(|point| point.value()).sum::<i64>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(active(), 1);
    drop(call);
    assert_eq!(active(), 0);
}

// faults F12
#[test]
fn a_request_between_two_collections_leaves_a_zero() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let layer = ImageTraceLayer::builder().traces(false);
    let layer = layer.gauges(&gauges).build();
    let mut service = layer.layer(service_fn(|_: Request<()>| {
        std::future::ready(Err::<http::Response<String>, _>("no"))
    }));
    drop(service.call(Request::new(())));
    drop((service, layer, gauges));
    assert_eq!(recorder.only_series("http.server.active_requests").sum, 0.0);
    let names = recorder.metric_names();
    let ours = names.iter().filter(|name| name.contains("active_requests"));
    assert_eq!(ours.collect::<Vec<_>>(), ["http.server.active_requests"]);
}
