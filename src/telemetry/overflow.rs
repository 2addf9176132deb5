//! Metrics that have reached the limit of their series.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        Temporality,
        data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics},
        exporter::PushMetricExporter,
    },
};

use super::event::{Sink, TelemetryEvent};

/// The SDK counts what comes after the limit in one series with this attribute.
const OVERFLOW: &str = "otel.metric.overflow";

/// Looks for metrics that have reached the limit, and says so once for each.
#[derive(Debug)]
pub(super) struct Overflow {
    limit: usize,
    events: Sink,
    said: Mutex<HashSet<String>>,
}

impl Overflow {
    pub(super) fn new(limit: usize, events: &Sink) -> Self {
        Self {
            limit,
            events: events.clone(),
            said: Mutex::default(),
        }
    }

    pub(super) fn look(&self, metrics: &ResourceMetrics) {
        let all = metrics.scope_metrics().flat_map(|scope| scope.metrics());
        for metric in all.filter(|metric| has_overflowed(metric)) {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let metric = metric.name().to_owned();
            if said.insert(metric.clone()) {
                drop(said);
                let limit = self.limit;
                self.events
                    .emit(&TelemetryEvent::SeriesLimit { metric, limit });
            }
        }
    }
}

fn has_overflowed(metric: &Metric) -> bool {
    fn is_overflow<'a>(mut attributes: impl Iterator<Item = &'a KeyValue>) -> bool {
        let first = attributes.next();
        first.is_some_and(|first| first.key.as_str() == OVERFLOW) && attributes.next().is_none()
    }
    fn of<T>(data: &MetricData<T>) -> bool {
        match data {
            MetricData::Gauge(data) => data.data_points().any(|it| is_overflow(it.attributes())),
            MetricData::Sum(data) => data.data_points().any(|it| is_overflow(it.attributes())),
            MetricData::Histogram(data) => {
                data.data_points().any(|it| is_overflow(it.attributes()))
            }
            MetricData::ExponentialHistogram(data) => {
                data.data_points().any(|it| is_overflow(it.attributes()))
            }
        }
    }
    match metric.data() {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    }
}

/// An exporter whose metrics are looked at first.
pub(super) struct Watched<E> {
    pub(super) exporter: E,
    pub(super) overflow: Arc<Overflow>,
    pub(super) onlooker: Arc<Onlooker>,
    /// The last collection was exported.
    pub(super) is_shut_down: Arc<AtomicBool>,
}

/// Who wants to see the next collection of metrics before it is exported.
#[derive(Default)]
pub(super) struct Onlooker(Mutex<Option<Look>>);

pub(super) type Look = Box<dyn FnOnce(&ResourceMetrics) + Send>;

impl fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Onlooker")
    }
}

impl Onlooker {
    fn show(&self, metrics: &ResourceMetrics) {
        let look = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(look) = look {
            look(metrics);
        }
    }

    #[cfg(feature = "prometheus")]
    pub(super) fn wait(&self, look: Look) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.overflow.look(metrics);
        self.onlooker.show(metrics);
        self.exporter.export(metrics).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.is_shut_down.store(true, Relaxed);
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

impl<E: fmt::Debug> fmt::Debug for Watched<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}
