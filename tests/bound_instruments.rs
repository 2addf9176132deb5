//! Bound instruments change what measurements cost, and not what is exported.

use std::{
    borrow::Cow,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use http_body_util::BodyExt;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    metrics::{
        Counter, Histogram, HistogramBuilder, InstrumentBuilder, InstrumentProvider, Meter,
        MeterProvider, SyncInstrument,
    },
};
use opentelemetry_proto::tonic::metrics::v1::metric;
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporterBuilder, Instrument, PeriodicReader, SdkMeterProvider, Stream,
    Temporality,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, RequestTrace, Telemetry, metrics::Gauges,
    trace::ImageTraceLayerBuilder,
};

use crate::support::{
    Recorder,
    otlp::{self, OtlpServer, PATIENCE},
};

/// The names of what was measured.
#[derive(Clone, Default)]
struct Foreign(Arc<Mutex<Vec<String>>>);

struct ForeignInstrument {
    name: String,
    provider: Foreign,
}

impl Foreign {
    fn instrument(&self, name: Cow<'static, str>) -> Arc<ForeignInstrument> {
        Arc::new(ForeignInstrument {
            name: name.into_owned(),
            provider: self.clone(),
        })
    }
}

impl<T> SyncInstrument<T> for ForeignInstrument {
    fn measure(&self, _: T, _: &[KeyValue]) {
        self.provider.0.lock().unwrap().push(self.name.clone());
    }
}

impl InstrumentProvider for Foreign {
    fn u64_counter(&self, builder: InstrumentBuilder<'_, Counter<u64>>) -> Counter<u64> {
        Counter::new(self.instrument(builder.name))
    }

    fn f64_histogram(&self, builder: HistogramBuilder<'_, Histogram<f64>>) -> Histogram<f64> {
        Histogram::new(self.instrument(builder.name))
    }

    fn u64_histogram(&self, builder: HistogramBuilder<'_, Histogram<u64>>) -> Histogram<u64> {
        Histogram::new(self.instrument(builder.name))
    }
}

impl MeterProvider for Foreign {
    fn meter_with_scope(&self, _: InstrumentationScope) -> Meter {
        Meter::new(Arc::new(self.clone()))
    }
}

#[tokio::test]
async fn a_provider_of_somebody_else_is_given_every_measurement() {
    type Choose = fn(ImageTraceLayerBuilder, &Foreign) -> ImageTraceLayerBuilder;
    let ways: [Choose; 3] = [
        |layer, foreign| layer.meter_provider(foreign.clone()),
        |layer, foreign| layer.gauges(&Gauges::new(foreign)),
        |layer, foreign| {
            let shared: Arc<dyn MeterProvider + Send + Sync> = Arc::new(foreign.clone());
            layer.gauges(&Gauges::new(&*shared))
        },
    ];
    for choose in ways {
        let foreign = Foreign::default();
        let layer = ImageTraceLayer::builder().traces(false);
        let layer = choose(layer, &foreign).bound_instruments(true).build();
        let service = layer.layer(service_fn(async |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            drop(trace.queue());
            trace.error(ErrorKind::Processing, &io::Error::other("a broken picture"));
            Ok::<_, Infallible>(Response::new(String::from("cat")))
        }));
        let request = Request::post("/").header("content-length", 3);
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap();
        let mut measured = std::mem::take(&mut *foreign.0.lock().unwrap());
        measured.sort_unstable();
        assert_eq!(
            measured,
            [
                "errors_total",
                "http.server.request.body.size",
                "http.server.request.duration",
                "http.server.response.body.size",
                "request_span_duration_seconds"
            ]
        );
    }
}

/// A request of a route and with a label.
async fn send(layer: &ImageTraceLayer, route: &str, label: &str) {
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        trace.set_route(route);
        trace.metric_attribute(KeyValue::new("preset", label.to_owned()));
        drop(trace.queue());
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    response.into_body().collect().await.unwrap();
}

/// With delta temporality the limit is one of each interval, and the SDK forgets series that are not measured any
/// more.
#[tokio::test]
async fn series_of_one_interval_take_no_place_in_the_next() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")])
        .endpoint(server.endpoint())
        .metrics(true)
        .series_limit(10)
        .build()
        .unwrap();
    let layer = telemetry.trace_layer();
    let exporter = InMemoryMetricExporterBuilder::new();
    let exporter = exporter.with_temporality(Temporality::Delta).build();
    let meters = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .with_view(|_: &Instrument| Stream::builder().with_cardinality_limit(10).build().ok())
        .build();
    let own = ImageTraceLayer::builder().meter_provider(meters.clone());
    let own = own.build();
    for interval in 0..4 {
        for number in 0..4 {
            let label = format!("{interval} {number}");
            send(&layer, "/a", &label).await;
            send(&own, "/a", &label).await;
        }
        telemetry.force_flush(PATIENCE).await.unwrap();
        meters.force_flush().unwrap();
    }
    let durations = server.metrics().into_iter();
    let durations = durations.filter(|metric| metric.name == "http.server.request.duration");
    let points = durations.flat_map(|metric| match metric.data {
        Some(metric::Data::Histogram(histogram)) => histogram.data_points,
        other => panic!("{other:?}"),
    });
    let points: Vec<_> = points
        .map(|point| otlp::attributes(&point.attributes))
        .collect();
    assert!(
        points.iter().all(|point| point.contains_key("preset")),
        "{points:#?}"
    );
    assert_eq!(points.len(), 16);
    let exported = format!("{:?}", exporter.get_finished_metrics().unwrap());
    assert!(exported.contains("3 3") && !exported.contains("otel.metric.overflow"));
}

/// The SDK exports what is bound, measured or not.
#[test]
fn a_series_that_was_never_measured_is_not_exported() {
    let recorder = Recorder::new();
    let layer = recorder.builder().bound_instruments(true).build();
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.unwrap();
            for number in 0..400 {
                runtime.block_on(send(&layer, &format!("/{number}"), "same"));
            }
        });
        while !requests.is_finished() {
            for name in [
                "http.server.request.duration",
                "http.server.response.body.size",
                "request_span_duration_seconds",
            ] {
                for series in recorder.series(name) {
                    assert!(series.count > 0, "{name} {series:?}");
                }
            }
        }
    });
}
