//! What becomes of measurements is a setting: the buckets of histograms, their form, and the readers.

use std::{collections::BTreeSet, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use opentelemetry::{KeyValue, metrics::MeterProvider};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, Instrument, PeriodicReader, Stream,
    data::{AggregatedMetrics, MetricData},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    Settings, Telemetry, TelemetryBuilder,
    telemetry::{HistogramAggregation, SettingError},
};

use crate::support::otlp::{OtlpServer, PATIENCE};

const AGGREGATION: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";

fn builder() -> TelemetryBuilder {
    Telemetry::builder().vars([] as [(&str, &str); 0])
}

async fn serve_one(telemetry: &Telemetry) {
    let answer = service_fn(async |_: Request<()>| {
        Ok::<_, std::io::Error>(http::Response::new(String::from("cat")))
    });
    let service = telemetry.trace_layer().layer(answer);
    let response = service.oneshot(Request::new(())).await.unwrap();
    response.into_body().collect().await.unwrap();
}

async fn page(telemetry: &Telemetry) -> String {
    let page = telemetry.prometheus().oneshot(Request::new(()));
    let page = page.await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(page.to_bytes().to_vec()).unwrap()
}

/// The boundaries that a page shows of a histogram.
fn boundaries(page: &str, name: &str) -> BTreeSet<String> {
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&format!("{name}_bucket{{")));
    lines
        .map(|line| {
            line.split("le=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn histograms_have_the_boundaries_that_code_gives_them() {
    let telemetry = builder()
        .prometheus(true)
        .histogram_buckets("http.server.request.duration", [1.0])
        .histogram_buckets("http.server.request.duration", [0.5, 20.0])
        .build()
        .unwrap();
    serve_one(&telemetry).await;
    let page = page(&telemetry).await;
    let expected = ["+Inf", "0.5", "20"].map(str::to_owned).into();
    assert_eq!(
        boundaries(&page, "http_server_request_duration_seconds"),
        expected
    );
    assert_eq!(
        boundaries(&page, "http_server_response_body_size_bytes").len(),
        11
    );
}

#[test]
fn boundaries_grow() {
    for boundaries in [
        [2.0, 1.0],
        [1.0, 1.0],
        [1.0, f64::INFINITY],
        [f64::NAN, 1.0],
    ] {
        let builder = builder().histogram_buckets("a.metric", boundaries);
        let in_code = builder.settings().unwrap_err().to_string();
        let mut settings = Settings::default();
        settings.histogram_buckets = vec![("a.metric".to_owned(), boundaries.to_vec())];
        let in_settings = Telemetry::from_settings(settings).unwrap_err().to_string();
        for error in [in_code, in_settings] {
            let expected = "is not accepted: expected finite numbers that grow";
            assert!(
                error.contains("histogram_buckets of a.metric") && error.contains(expected),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn histograms_can_be_exponential_pushed_and_pulled() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([(AGGREGATION, "BASE2_exponential_bucket_histogram")])
        .endpoint(server.endpoint())
        .metrics(true)
        .prometheus(true)
        .histogram_buckets("http.server.response.body.size", [10.0])
        .build()
        .unwrap();
    serve_one(&telemetry).await;
    let page = page(&telemetry).await;
    let name = "http_server_request_duration_seconds";
    assert!(page.contains(&format!("# TYPE {name} summary\n")), "{page}");
    let count = page
        .lines()
        .find(|line| line.starts_with(&format!("{name}_count{{")))
        .unwrap();
    assert!(count.ends_with("} 1"), "{count}");
    assert!(page.contains(&format!("{name}_sum{{")) && !page.contains(&format!("{name}_bucket")));
    assert_eq!(
        boundaries(&page, "http_server_response_body_size_bytes").len(),
        2
    );
    telemetry.shutdown(PATIENCE).await.unwrap();
    for metric in server.metrics() {
        match (&*metric.name, metric.data.unwrap()) {
            ("http.server.request.duration", Data::ExponentialHistogram(_)) => {}
            ("http.server.response.body.size", Data::Histogram(_)) => {}
            ("http.server.request.duration" | "http.server.response.body.size", other) => {
                panic!("{other:?}")
            }
            _ => {}
        }
    }

    let from = |value| Settings::from_vars([(AGGREGATION, value)]).unwrap();
    assert_eq!(
        from("explicit_bucket_histogram").histogram_aggregation,
        HistogramAggregation::ExplicitBuckets
    );
    let wrong = from("exponential");
    assert_eq!(wrong.histogram_aggregation, HistogramAggregation::default());
    assert!(matches!(
        &wrong.warnings[0].error,
        SettingError::Invalid { setting, .. } if setting == AGGREGATION
    ));
}

/// A view of the service's own has the last word on an instrument that the settings say nothing about.
#[tokio::test]
async fn boundaries_of_one_histogram_leave_other_instruments_alone() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let telemetry = builder()
        .histogram_buckets("http.server.request.duration", [0.1])
        .meter_provider_with(move |meters| {
            meters
                .with_reader(reader)
                .with_view(|instrument: &Instrument| {
                    let other = Stream::builder().with_name("other");
                    (instrument.name() == "renamed")
                        .then(|| other.build().ok())
                        .flatten()
                })
        })
        .build()
        .unwrap();
    let meter = telemetry.meter_provider().meter("test");
    meter.u64_counter("renamed").build().add(1, &[]);
    telemetry.force_flush(PATIENCE).await.unwrap();
    let collected = exporter.get_finished_metrics().unwrap();
    let scopes = collected[0].scope_metrics();
    let mut scopes = scopes.filter(|scope| scope.scope().name() == "test");
    let names = scopes.next().unwrap().metrics();
    assert_eq!(
        names.map(|metric| metric.name()).collect::<Vec<_>>(),
        ["other"]
    );
}

// faults G17
#[tokio::test]
async fn a_reader_and_a_view_of_ones_own_need_no_collector() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone())
        .with_interval(Duration::from_secs(3600))
        .build();
    let telemetry = builder()
        .series_limit(5)
        .meter_provider_with(move |meters| {
            meters
                .with_reader(reader)
                .with_view(|instrument: &Instrument| {
                    let wide = Stream::builder().with_cardinality_limit(20);
                    (instrument.name() == "wide")
                        .then(|| wide.build().ok())
                        .flatten()
                })
        })
        .build()
        .unwrap();
    serve_one(&telemetry).await;
    let meter = telemetry.meter_provider().meter("test");
    for name in ["wide", "narrow"] {
        let counter = meter.u64_counter(name).build();
        (0..10).for_each(|number| counter.add(1, &[KeyValue::new("number", number)]));
    }
    telemetry.force_flush(PATIENCE).await.unwrap();
    let collected = exporter.get_finished_metrics().unwrap();
    let series = |name: &str| {
        let metrics = collected[0]
            .scope_metrics()
            .flat_map(|scope| scope.metrics());
        let mut named = metrics.filter(|metric| metric.name() == name);
        let metric = named.next().unwrap_or_else(|| panic!("{name}"));
        assert!(named.next().is_none(), "{name} twice");
        match metric.data() {
            AggregatedMetrics::U64(MetricData::Sum(sum)) => sum.data_points().count(),
            AggregatedMetrics::F64(MetricData::Histogram(data)) => data.data_points().count(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(series("http.server.request.duration"), 1);
    assert_eq!((series("wide"), series("narrow")), (10, 6));
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert!(
        exporter.get_finished_metrics().unwrap().len() > 1,
        "the shutdown flushes"
    );
}
