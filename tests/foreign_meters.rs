//! Measurements go to a provider that is not the SDK's, which knows no bound instruments.

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
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, RequestTrace, metrics::Gauges, trace::ImageTraceLayerBuilder,
};

/// The names of what was measured.
#[derive(Clone, Default)]
struct Foreign(Arc<Mutex<Vec<String>>>);

struct Instrument {
    name: String,
    provider: Foreign,
}

impl Foreign {
    fn instrument(&self, name: Cow<'static, str>) -> Arc<Instrument> {
        Arc::new(Instrument {
            name: name.into_owned(),
            provider: self.clone(),
        })
    }
}

impl<T> SyncInstrument<T> for Instrument {
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
        let layer = choose(ImageTraceLayer::builder().traces(false), &foreign).build();
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
