use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use prost::Message;

use super::item::Item;
use super::queue::Queue;
use super::report::SignalReport;

/// One collection of metrics, encoded.
#[derive(Debug)]
pub(super) struct MetricsRequest {
    body: Bytes,
    items: u64,
}

impl Item for MetricsRequest {
    fn count(&self) -> u64 {
        self.items
    }

    fn encode(batch: Vec<Self>, _: &ResourceAttributesWithSchema) -> Bytes {
        // protobuf messages can be joined: lists of the parts follow each other
        match <[Self; 1]>::try_from(batch) {
            Ok([request]) => request.body,
            Err(batch) => batch.into_iter().flat_map(|request| request.body).collect(),
        }
    }
}

/// Encodes what was collected and puts it into the queue.
///
/// It never waits for the collector, so the SDK's reader thread can always be flushed and ended at once.
#[derive(Debug)]
pub(super) struct QueueMetricExporter {
    queue: Arc<Queue<MetricsRequest>>,
    report: Arc<SignalReport>,
    temporality: Temporality,
}

impl QueueMetricExporter {
    pub(super) const fn new(
        queue: Arc<Queue<MetricsRequest>>,
        report: Arc<SignalReport>,
        temporality: Temporality,
    ) -> Self {
        Self {
            queue,
            report,
            temporality,
        }
    }
}

impl PushMetricExporter for QueueMetricExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let request = ExportMetricsServiceRequest::from(metrics);
        let items = count_points(&request);
        let body = Bytes::from(request.encode_to_vec());
        if items > 0 && !self.queue.push(MetricsRequest { body, items }) {
            self.report.dropped(items);
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

fn count_points(request: &ExportMetricsServiceRequest) -> u64 {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    let points = metrics.map(|metric| match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    });
    points.sum::<usize>() as u64
}
