use std::time::Duration;

use http::StatusCode;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use super::buckets::DURATION_BUCKETS;

/// The HTTP metrics once more, for dashboards that were made for imgproxy.
#[derive(Debug)]
pub(super) struct ImgproxyMetrics {
    requests: Counter<u64>,
    status_codes: Counter<u64>,
    duration: Histogram<f64>,
}

impl ImgproxyMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            requests: meter
                .u64_counter("requests_total")
                .with_unit("{request}")
                .with_description("The number of requests.")
                .build(),
            status_codes: meter
                .u64_counter("status_codes_total")
                .with_unit("{response}")
                .with_description("The number of responses, by status code.")
                .build(),
            duration: meter
                .f64_histogram("request_duration_seconds")
                .with_unit("s")
                .with_description("Duration of requests.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
        }
    }

    pub(super) fn started(&self) {
        self.requests.add(1, &[]);
    }

    pub(super) fn finished(&self, duration: Duration, status: Option<StatusCode>) {
        self.duration.record(duration.as_secs_f64(), &[]);
        if let Some(status) = status {
            let status = status.as_str().to_owned();
            self.status_codes.add(1, &[KeyValue::new("status", status)]);
        }
    }
}
