use std::time::Duration;

use http::StatusCode;
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, UpDownCounter},
};

use super::ImgproxyMetrics;

/// Seconds; the boundaries that semconv http-metrics advises for `http.server.request.duration`.
pub(super) const DURATION_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Bytes; semconv advises none for body sizes. From an icon to a large photograph, by factors of four.
pub(super) const SIZE_BUCKETS: [f64; 10] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// The HTTP server metrics of semconv http-metrics.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
    request_body: Histogram<u64>,
    response_body: Histogram<u64>,
    imgproxy: Option<ImgproxyMetrics>,
}

/// What one finished request adds to the metrics.
pub(crate) struct Measurement<'a> {
    pub(crate) duration: Duration,
    pub(crate) request_body: Option<u64>,
    pub(crate) response_body: Option<u64>,
    pub(crate) attributes: &'a [KeyValue],
}

impl HttpMetrics {
    /// With or without the same again under imgproxy's names.
    pub(crate) fn new(meter: &Meter, imgproxy: bool) -> Self {
        Self {
            imgproxy: imgproxy.then(|| ImgproxyMetrics::new(meter)),
            duration: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Duration of HTTP server requests.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_unit("{request}")
                .with_description("Number of active HTTP server requests.")
                .build(),
            request_body: meter
                .u64_histogram("http.server.request.body.size")
                .with_unit("By")
                .with_description("Size of HTTP server request bodies.")
                .with_boundaries(SIZE_BUCKETS.to_vec())
                .build(),
            response_body: meter
                .u64_histogram("http.server.response.body.size")
                .with_unit("By")
                .with_description("Size of HTTP server response bodies.")
                .with_boundaries(SIZE_BUCKETS.to_vec())
                .build(),
        }
    }

    pub(crate) fn started(&self, attributes: &[KeyValue]) {
        self.active.add(1, attributes);
        if let Some(imgproxy) = &self.imgproxy {
            imgproxy.started();
        }
    }

    /// The request is over that was [`started`](Self::started) with these attributes. Without a
    /// status it was never answered.
    pub(crate) fn ended(
        &self,
        attributes: &[KeyValue],
        duration: Duration,
        status: Option<StatusCode>,
    ) {
        self.active.add(-1, attributes);
        if let Some(imgproxy) = &self.imgproxy {
            imgproxy.finished(duration, status);
        }
    }

    pub(crate) fn finished(&self, request: &Measurement<'_>) {
        self.duration
            .record(request.duration.as_secs_f64(), request.attributes);
        if let Some(size) = request.request_body {
            self.request_body.record(size, request.attributes);
        }
        if let Some(size) = request.response_body {
            self.response_body.record(size, request.attributes);
        }
    }
}
