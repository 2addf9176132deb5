//! The way of metrics from the SDK's reader into the queue.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, MetricExporter};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

use super::encode::{Encoded, Outbox};
use super::item::{Item, count_points};
use super::queue::Queue;
use super::report::SignalReport;
use super::settings::OtlpExporter;

/// One collection of metrics, encoded.
#[derive(Debug)]
pub(super) struct MetricsRequest {
    encoded: Encoded,
    items: u64,
}

impl Item for MetricsRequest {
    type Encoder = ();

    fn count(&self) -> u64 {
        self.items
    }

    async fn encode((): &(), mut batch: Vec<Self>) -> Encoded {
        // the queue is made for batches of one
        batch
            .pop()
            .map_or_else(Encoded::default, |request| request.encoded)
    }
}

/// Encodes what was collected and puts it into the queue.
///
/// It never waits for the collector, so the SDK's reader thread can always be flushed and ended at once.
#[derive(Debug)]
pub(super) struct QueueMetricExporter {
    encoder: MetricExporter,
    outbox: Outbox,
    queue: Arc<Queue<MetricsRequest>>,
    report: Arc<SignalReport>,
    temporality: Temporality,
}

impl QueueMetricExporter {
    pub(super) fn new(
        settings: &OtlpExporter,
        queue: Arc<Queue<MetricsRequest>>,
        report: Arc<SignalReport>,
        temporality: Temporality,
    ) -> Result<Self, ExporterBuildError> {
        let outbox = Outbox::default();
        let encoder = outbox
            .connect(MetricExporter::builder().with_http(), settings)
            .build()?;
        Ok(Self {
            encoder,
            outbox,
            queue,
            report,
            temporality,
        })
    }
}

impl PushMetricExporter for QueueMetricExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let items = count_points(metrics);
        if items > 0 {
            self.encoder.export(metrics).await?;
            let encoded = self.outbox.take();
            if !self.queue.push(MetricsRequest { encoded, items }) {
                self.report.dropped(items);
            }
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
