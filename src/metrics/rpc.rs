use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use super::buckets::DURATION_BUCKETS;

/// The RPC server metric of semconv rpc-metrics.
#[derive(Debug)]
pub(crate) struct RpcMetrics {
    duration: Histogram<f64>,
}

impl RpcMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            duration: meter
                .f64_histogram("rpc.server.call.duration")
                .with_unit("s")
                .with_description("Duration of incoming remote procedure calls.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
        }
    }

    pub(crate) fn finished(&self, duration: Duration, attributes: &[KeyValue]) {
        self.duration.record(duration.as_secs_f64(), attributes);
    }
}
