#[cfg(any(feature = "_otlp", feature = "console"))]
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};

/// What a queue holds.
pub(super) trait Item: Sized + Send + 'static {
    /// Spans, data points or log records in it.
    fn count(&self) -> u64 {
        1
    }

    /// What makes the OTLP export requests of the signal.
    #[cfg(feature = "_otlp")]
    type Encoder: Send + Sync + 'static;

    /// The OTLP export request for a batch.
    #[cfg(feature = "_otlp")]
    fn encode(
        encoder: &Self::Encoder,
        batch: Vec<Self>,
    ) -> impl Future<Output = super::encode::Encoded> + Send;
}

/// The reason for the loss of what was neither sent nor refused before the end.
pub(super) const UNSENT: &str = "not sent before the timeout of the shutdown";

pub(super) fn count<T: Item>(batch: &[T]) -> u64 {
    batch.iter().map(Item::count).sum()
}

/// The data points of one collection.
#[cfg(any(feature = "_otlp", feature = "console"))]
pub(super) fn count_points(metrics: &ResourceMetrics) -> u64 {
    fn points<T>(data: &MetricData<T>) -> usize {
        match data {
            MetricData::Gauge(data) => data.data_points().count(),
            MetricData::Sum(data) => data.data_points().count(),
            MetricData::Histogram(data) => data.data_points().count(),
            MetricData::ExponentialHistogram(data) => data.data_points().count(),
        }
    }
    let metrics = metrics.scope_metrics().flat_map(|scope| scope.metrics());
    let points = metrics.map(|metric| match metric.data() {
        AggregatedMetrics::F64(data) => points(data),
        AggregatedMetrics::U64(data) => points(data),
        AggregatedMetrics::I64(data) => points(data),
    });
    points.sum::<usize>() as u64
}
