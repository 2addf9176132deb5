//! Keeps spans and measurements in memory, as the SDK would export them.

use std::{collections::BTreeMap, time::Duration};

use opentelemetry::{
    Value,
    trace::{SpanId, Status, TraceId},
};
use opentelemetry_sdk::{
    metrics::{
        InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
        data::{AggregatedMetrics, Histogram, Metric, MetricData},
    },
    trace::{InMemorySpanExporter, SdkTracerProvider, SpanData},
};
use tower_image_trace::{
    ImageTraceLayer, Propagators, metrics::Gauges, trace::ImageTraceLayerBuilder,
};

/// A tracer provider and a meter provider, and what was recorded with them.
pub struct Recorder {
    pub tracers: SdkTracerProvider,
    pub meters: SdkMeterProvider,
    gauges: Gauges,
    spans: InMemorySpanExporter,
    metrics: InMemoryMetricExporter,
}

/// One series of a metric. A histogram has a count and a sum. A sum or gauge has its value in both.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub attributes: BTreeMap<String, String>,
    pub count: u64,
    pub sum: f64,
}

impl Recorder {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(
        configure: impl FnOnce(
            opentelemetry_sdk::trace::TracerProviderBuilder,
        ) -> opentelemetry_sdk::trace::TracerProviderBuilder,
    ) -> Self {
        let spans = InMemorySpanExporter::default();
        let tracers = configure(SdkTracerProvider::builder())
            .with_simple_exporter(spans.clone())
            .build();
        let metrics = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(metrics.clone())
            .with_interval(Duration::from_secs(3600))
            .build();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        Self {
            tracers,
            gauges: Gauges::new(&meters),
            meters,
            spans,
            metrics,
        }
    }

    pub fn builder(&self) -> ImageTraceLayerBuilder {
        let layer = ImageTraceLayer::builder()
            .tracer_provider(self.tracers.clone())
            .gauges(&self.gauges)
            .propagators(Propagators::default());
        #[cfg(feature = "bound-instruments")]
        let layer = layer.bound_instruments(true);
        layer
    }

    pub fn layer(&self) -> ImageTraceLayer {
        self.builder().build()
    }

    pub fn spans(&self) -> Vec<Span> {
        let spans = self.spans.get_finished_spans().unwrap();
        spans.into_iter().map(Span).collect()
    }

    /// The only span with this name.
    pub fn span(&self, name: &str) -> Span {
        let all = self.spans();
        let mut named = all.iter().filter(|span| span.name() == name);
        let span = named
            .next()
            .unwrap_or_else(|| panic!("no span {name} in {all:#?}"));
        assert!(named.next().is_none(), "several spans {name} in {all:#?}");
        Span(span.0.clone())
    }

    /// The only root span.
    pub fn root(&self) -> Span {
        let mut roots = self.spans();
        roots.retain(|span| span.0.span_kind == opentelemetry::trace::SpanKind::Server);
        assert_eq!(roots.len(), 1, "{roots:#?}");
        roots.remove(0)
    }

    pub fn series(&self, metric: &str) -> Vec<Series> {
        self.map_metrics(metric, |found| series_of(found.data()))
            .into_iter()
            .flatten()
            .collect()
    }

    pub fn description(&self, metric: &str) -> String {
        let mut found = self.map_metrics(metric, |found| found.description().to_owned());
        assert_eq!(found.len(), 1, "{metric}: {found:#?}");
        found.remove(0)
    }

    /// The unit of a histogram, and the boundaries of its buckets.
    pub fn buckets(&self, metric: &str) -> (String, Vec<f64>) {
        let mut found = self.map_metrics(metric, |found| {
            let bounds = match found.data() {
                AggregatedMetrics::F64(MetricData::Histogram(data)) => bounds(data),
                AggregatedMetrics::U64(MetricData::Histogram(data)) => bounds(data),
                other => panic!("{metric} is no histogram: {other:?}"),
            };
            (found.unit().to_owned(), bounds)
        });
        assert_eq!(found.len(), 1, "{metric}: {found:#?}");
        found.remove(0)
    }

    /// The names of all metrics.
    pub fn metric_names(&self) -> Vec<String> {
        self.collect(|found| Some(found.name().to_owned()))
    }

    fn map_metrics<T>(&self, name: &str, map: impl Fn(&Metric) -> T) -> Vec<T> {
        self.collect(|found| (found.name() == name).then(|| map(found)))
    }

    fn collect<T>(&self, look: impl Fn(&Metric) -> Option<T>) -> Vec<T> {
        self.metrics.reset();
        self.meters.force_flush().unwrap();
        let exported = self.metrics.get_finished_metrics().unwrap();
        exported
            .iter()
            .flat_map(|resource| resource.scope_metrics())
            .flat_map(|scope| scope.metrics())
            .filter_map(look)
            .collect()
    }

    /// The only series of a metric.
    pub fn only_series(&self, metric: &str) -> Series {
        let mut series = self.series(metric);
        assert_eq!(series.len(), 1, "{metric}: {series:#?}");
        series.remove(0)
    }

    /// The only series of a metric with this attribute.
    pub fn only_series_of(&self, metric: &str, key: &str, value: &str) -> Series {
        let mut series = self.series(metric);
        series.retain(|series| {
            series
                .attributes
                .get(key)
                .is_some_and(|found| found == value)
        });
        assert_eq!(series.len(), 1, "{metric} {key}={value}: {series:#?}");
        series.remove(0)
    }

    /// Checks what must hold whenever no request is in progress.
    pub fn assert_nothing_active(&self) {
        for series in self.series("http.server.active_requests") {
            assert_eq!(series.sum, 0.0, "{series:?}");
        }
    }
}

fn series_of(data: &AggregatedMetrics) -> Vec<Series> {
    match data {
        AggregatedMetrics::F64(data) => points(data, |value| value),
        AggregatedMetrics::I64(data) => points(data, |value| value as f64),
        AggregatedMetrics::U64(data) => points(data, |value| value as f64),
    }
}

fn bounds<T>(histogram: &Histogram<T>) -> Vec<f64> {
    let point = histogram.data_points().next();
    point.map_or_else(Vec::new, |point| point.bounds().collect())
}

fn points<T: Copy>(data: &MetricData<T>, float: impl Fn(T) -> f64) -> Vec<Series> {
    fn labels<'a>(
        attributes: impl Iterator<Item = &'a opentelemetry::KeyValue>,
    ) -> BTreeMap<String, String> {
        attributes
            .map(|pair| (pair.key.to_string(), pair.value.to_string()))
            .collect()
    }
    match data {
        MetricData::Histogram(histogram) => histogram
            .data_points()
            .map(|point| Series {
                attributes: labels(point.attributes()),
                count: point.count(),
                sum: float(point.sum()),
            })
            .collect(),
        MetricData::Sum(sum) => sum
            .data_points()
            .map(|point| Series {
                attributes: labels(point.attributes()),
                count: float(point.value()) as u64,
                sum: float(point.value()),
            })
            .collect(),
        MetricData::Gauge(gauge) => gauge
            .data_points()
            .map(|point| Series {
                attributes: labels(point.attributes()),
                count: float(point.value()) as u64,
                sum: float(point.value()),
            })
            .collect(),
        MetricData::ExponentialHistogram(_) => panic!("the crate has no exponential histograms"),
    }
}

/// An exported span, with the checks that tests use.
#[derive(Debug)]
pub struct Span(pub SpanData);

impl Span {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn id(&self) -> SpanId {
        self.0.span_context.span_id()
    }

    pub fn trace_id(&self) -> TraceId {
        self.0.span_context.trace_id()
    }

    pub fn parent(&self) -> SpanId {
        self.0.parent_span_id
    }

    /// The value of an attribute as text; fails when a key was recorded twice.
    pub fn get(&self, key: &str) -> Option<String> {
        let mut values = self
            .0
            .attributes
            .iter()
            .filter(|pair| pair.key.as_str() == key);
        let value = values.next().map(|pair| pair.value.to_string());
        assert!(values.next().is_none(), "{key} twice in {self:#?}");
        value
    }

    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<_> = self
            .0
            .attributes
            .iter()
            .map(|pair| pair.key.as_str())
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Checks that the status is unset and nothing says "error".
    #[track_caller]
    pub fn assert_no_error(&self) {
        assert_eq!(self.0.status, Status::Unset, "{self:#?}");
        assert_eq!(self.get("error.type"), None);
        assert!(self.0.events.is_empty(), "{self:#?}");
    }

    /// Checks for status `Error` with this description, and for this `error.type`.
    #[track_caller]
    pub fn assert_error(&self, error_type: &str, description: &str) {
        assert_eq!(
            self.0.status,
            Status::error(description.to_owned()),
            "{self:#?}"
        );
        assert_eq!(
            self.get("error.type").as_deref(),
            Some(error_type),
            "{self:#?}"
        );
    }

    /// The messages of the `exception` events.
    pub fn exceptions(&self) -> Vec<String> {
        self.0
            .events
            .iter()
            .filter(|event| event.name == "exception")
            .flat_map(|event| &event.attributes)
            .filter(|pair| pair.key.as_str() == "exception.message")
            .map(|pair| match &pair.value {
                Value::String(text) => text.to_string(),
                other => panic!("{other:?} is no message"),
            })
            .collect()
    }
}
