//! The way of metrics from the SDK's reader into the queue.

use std::{sync::Arc, time::Duration};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};

use super::{
    deliver::Encode,
    points::count_points,
    queue::{Item, Queue},
};
use crate::telemetry::otlp::{Encoded, MetricEncoder};

/// One collection of metrics, encoded.
#[derive(Debug)]
pub(crate) struct MetricsRequest {
    encoded: Encoded,
    items: u64,
}

impl Item for MetricsRequest {
    fn count(&self) -> u64 {
        self.items
    }
}

/// The encoder of what was encoded when it was collected.
#[derive(Debug)]
pub(crate) struct AlreadyEncoded;

impl Encode<MetricsRequest> for AlreadyEncoded {
    async fn encode(&self, mut batch: Vec<MetricsRequest>) -> Encoded {
        // The queue is made for batches of one.
        batch
            .pop()
            .map_or_else(Encoded::default, |request| request.encoded)
    }
}

/// Encodes what was collected and puts it into the queue.
///
/// It never waits for the collector, so the SDK's reader thread can be flushed and ended at once.
#[derive(Debug)]
pub(crate) struct QueueMetricExporter {
    encoder: MetricEncoder,
    queue: Arc<Queue<MetricsRequest>>,
    temporality: Temporality,
}

impl QueueMetricExporter {
    pub(crate) const fn new(
        encoder: MetricEncoder,
        queue: Arc<Queue<MetricsRequest>>,
        temporality: Temporality,
    ) -> Self {
        Self {
            encoder,
            queue,
            temporality,
        }
    }
}

impl PushMetricExporter for QueueMetricExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let items = count_points(metrics);
        if items > 0 {
            let encoded = self.encoder.encode(metrics).await?;
            self.queue.push(MetricsRequest { encoded, items });
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
