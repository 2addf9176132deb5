use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

#[cfg(feature = "bound-instruments")]
use super::bound::BoundStages;
use super::http::DURATION_BUCKETS;
use crate::request::ErrorKind;

/// How long the stages took, and what failed in them: imgproxy's names.
#[derive(Debug)]
pub(crate) struct StageMetrics {
    duration: Histogram<f64>,
    #[cfg(feature = "bound-instruments")]
    bound: BoundStages,
    errors: Counter<u64>,
}

impl StageMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            duration: meter
                .f64_histogram("request_span_duration_seconds")
                .with_unit("s")
                .with_description("Duration of the stages of an image request.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            #[cfg(feature = "bound-instruments")]
            bound: BoundStages::new(),
            errors: meter
                .u64_counter("errors_total")
                .with_unit("1")
                .with_description("Number of errors, by type.")
                .build(),
        }
    }

    pub(crate) fn stage(&self, name: &'static str, elapsed: Duration) {
        #[cfg(feature = "bound-instruments")]
        if let Some(bound) = self.bound.find(name, &self.duration) {
            return bound.record(elapsed.as_secs_f64());
        }
        self.duration
            .record(elapsed.as_secs_f64(), &attributes(name));
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors.add(1, &[KeyValue::new("type", kind.as_str())]);
    }
}

pub(super) fn attributes(stage: &'static str) -> [KeyValue; 1] {
    [KeyValue::new("span", stage)]
}
