//! Prints metrics: one line per series.

use std::{io::Write, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        Temporality,
        data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics},
        exporter::PushMetricExporter,
    },
};

use super::{
    output::Lines,
    text::{bytes, duration, pair, printable},
};

/// The longest attribute value, in terminal columns.
const VALUE: usize = 60;

/// Prints one line per series at each collection.
///
/// ```text
/// http.server.request.duration{http.request.method=GET} count=3 sum=1.20 s mean=400 ms
/// images_in_progress 2 image
/// ```
#[derive(Debug)]
pub struct ConsoleMetricExporter(Lines);

impl ConsoleMetricExporter {
    /// Prints to standard output.
    pub fn stdout() -> Self {
        Self(Lines::stdout())
    }

    /// Prints to `writer`. Each collection is one `write_all` and one `flush`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Lines::new(writer))
    }
}

impl PushMetricExporter for ConsoleMetricExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let metrics = metrics.scope_metrics().flat_map(|scope| scope.metrics());
        let mut lines: Vec<_> = metrics.flat_map(describe).collect();
        // The SDK returns series in no fixed order.
        lines.sort_unstable();
        self.0.print(&lines)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn describe(metric: &Metric) -> Vec<String> {
    match metric.data() {
        AggregatedMetrics::F64(data) => series(metric, data, |value| value),
        AggregatedMetrics::U64(data) => series(metric, data, |value| value as f64),
        AggregatedMetrics::I64(data) => series(metric, data, |value| value as f64),
    }
}

fn series<T: Copy>(metric: &Metric, data: &MetricData<T>, number: fn(T) -> f64) -> Vec<String> {
    let unit = metric.unit();
    let single = |value| quantity(number(value), unit);
    let summary = |count: u64, sum| {
        let sum = number(sum);
        let mean = sum / count.max(1) as f64;
        let (sum, mean) = (quantity(sum, unit), quantity(mean, unit));
        format!("count={count} sum={sum} mean={mean}")
    };
    macro_rules! lines {
        ($data:ident, $point:ident => $text:expr) => {
            $data
                .data_points()
                .map(|$point| {
                    let attributes = attributes($point.attributes());
                    format!("{}{attributes} {}", printable(metric.name()), $text)
                })
                .collect()
        };
    }
    match data {
        MetricData::Gauge(data) => lines!(data, point => single(point.value())),
        MetricData::Sum(data) => lines!(data, point => single(point.value())),
        MetricData::Histogram(data) => {
            lines!(data, point => summary(point.count(), point.sum()))
        }
        MetricData::ExponentialHistogram(data) => {
            lines!(data, point => summary(point.count() as u64, point.sum()))
        }
    }
}

/// `{key=value, key=value}` sorted by key, or an empty string without attributes.
fn attributes<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut pairs: Vec<_> = attributes
        .map(|KeyValue { key, value, .. }| pair(key.as_str(), &value.as_str(), VALUE))
        .collect();
    pairs.sort_unstable();
    match pairs.as_slice() {
        [] => String::new(),
        pairs => format!("{{{}}}", pairs.join(", ")),
    }
}

fn quantity(value: f64, unit: &str) -> String {
    let number = match value.fract() {
        0.0 => value.to_string(),
        _ => format!("{value:.3}"),
    };
    match (unit, Duration::try_from_secs_f64(value)) {
        ("s", Ok(time)) => duration(time),
        ("By", _) => bytes(value as i64),
        ("" | "1", _) => number,
        _ => format!("{number} {}", printable(unit.trim_matches(['{', '}']))),
    }
}
