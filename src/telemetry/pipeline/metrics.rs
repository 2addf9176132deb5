//! The way of metrics from the SDK's reader into the queue.

use std::{sync::Arc, time::Duration};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};

use super::queue::{LARGEST_BATCH, Queue};
use crate::telemetry::otlp::{Batch, MetricEncoder, metrics};

/// Encodes what was collected and puts it into the queue.
///
/// It never waits for the collector, so the SDK's reader thread can be flushed and ended at once.
#[derive(Debug)]
pub(crate) struct QueueMetricExporter {
    encoder: MetricEncoder,
    queue: Arc<Queue<Batch>>,
    temporality: Temporality,
}

impl QueueMetricExporter {
    pub(crate) const fn new(
        encoder: MetricEncoder,
        queue: Arc<Queue<Batch>>,
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
    async fn export(&self, collected: &ResourceMetrics) -> OTelSdkResult {
        let request = self.encoder.encode(collected).await?;
        let metrics = metrics(&request, LARGEST_BATCH);
        for metric in metrics.filter(|metric| metric.points() > 0) {
            let add = |batch: &mut Batch| batch.push_metric(&metric);
            self.queue.push(metric.points(), metric.size(), add);
        }
        // A collection is sent at once.
        self.queue.cut();
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
