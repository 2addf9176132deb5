use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use super::http::DURATION_BUCKETS;
use crate::request::ErrorKind;

/// How long the stages took, and what failed in them: imgproxy's names.
#[derive(Debug)]
pub(crate) struct StageMetrics {
    duration: Histogram<f64>,
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
            errors: meter
                .u64_counter("errors_total")
                .with_unit("1")
                .with_description("Number of errors, by type.")
                .build(),
        }
    }

    pub(crate) fn stage(&self, name: &'static str, elapsed: Duration) {
        self.duration
            .record(elapsed.as_secs_f64(), &[KeyValue::new("span", name)]);
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors.add(1, &[KeyValue::new("type", kind.as_str())]);
    }
}
