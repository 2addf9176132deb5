use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use super::buckets::DURATION_BUCKETS;

/// The HTTP client metrics of semconv http-metrics.
#[derive(Debug)]
pub(crate) struct ClientMetrics {
    duration: Histogram<f64>,
}

impl ClientMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            duration: meter
                .f64_histogram("http.client.request.duration")
                .with_unit("s")
                .with_description("Duration of HTTP client requests.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
        }
    }

    pub(crate) fn finished(&self, elapsed: Duration, attributes: &[KeyValue]) {
        self.duration.record(elapsed.as_secs_f64(), attributes);
    }
}
