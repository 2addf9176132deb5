use std::{sync::Arc, time::Duration};

use http::StatusCode;
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, UpDownCounter},
};

#[cfg(feature = "bound-instruments")]
use super::bound::{BoundRequest, BoundRequests};
use super::{
    active::{ActiveRequests, ActiveSeries, active_requests},
    buckets::{DURATION_BUCKETS, SIZE_BUCKETS},
    imgproxy::ImgproxyMetrics,
    labels::Labels,
    series::{Measurement, RequestSeries, labelled},
};
use crate::instrument::ScopedMeter;

/// The HTTP server metrics of semconv http-metrics.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    duration: Histogram<f64>,
    /// Only if it is asked for.
    first_byte: Option<Histogram<f64>>,
    active: ActiveCounter,
    request_body: Histogram<u64>,
    response_body: Histogram<u64>,
    imgproxy: Option<ImgproxyMetrics>,
    #[cfg(feature = "bound-instruments")]
    bound_requests: Option<BoundRequests>,
}

/// What is measured only if it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    /// The same under imgproxy's names.
    pub(crate) imgproxy: bool,
    /// The time until the head of the response.
    pub(crate) first_byte: bool,
}

/// How `http.server.active_requests` is counted.
#[derive(Debug)]
enum ActiveCounter {
    /// By the SDK, which looks up the series when a request comes and when it is over.
    Measured(UpDownCounter<i64>),
    /// In counts of our own, which are added to the SDK's when metrics are collected.
    Counted(Arc<ActiveRequests>),
}

impl ActiveCounter {
    fn add(&self, number: i64, series: ActiveSeries) {
        match self {
            Self::Measured(counter) => counter.add(number, &series.attributes()),
            Self::Counted(counts) => counts.add(number, series),
        }
    }
}

impl HttpMetrics {
    /// `active`: the counts of `Gauges`.
    pub(crate) fn new(
        meter: &ScopedMeter,
        extra: Extra,
        active: Option<Arc<ActiveRequests>>,
    ) -> Self {
        Self {
            imgproxy: extra.imgproxy.then(|| ImgproxyMetrics::new(meter)),
            first_byte: extra.first_byte.then(|| {
                meter
                    .f64_histogram("image.request.time_to_first_byte")
                    .with_unit("s")
                    .with_description("Time until the head of the response.")
                    .with_boundaries(DURATION_BUCKETS.to_vec())
                    .build()
            }),
            duration: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Duration of HTTP server requests.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            active: match active {
                Some(counts) => ActiveCounter::Counted(counts),
                None => ActiveCounter::Measured(active_requests(meter)),
            },
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
            #[cfg(feature = "bound-instruments")]
            bound_requests: meter.can_bind.then(BoundRequests::new),
        }
    }

    pub(crate) fn started(&self, series: ActiveSeries) {
        self.active.add(1, series);
        if let Some(imgproxy) = &self.imgproxy {
            imgproxy.started();
        }
    }

    /// A request that was [`started`](Self::started) in this series is over. One without a status was
    /// never answered.
    pub(crate) fn ended(
        &self,
        series: ActiveSeries,
        duration: Duration,
        status: Option<StatusCode>,
    ) {
        self.active.add(-1, series);
        if let Some(imgproxy) = &self.imgproxy {
            imgproxy.finished(duration, status);
        }
    }

    pub(crate) fn measures_first_byte(&self) -> bool {
        self.first_byte.is_some()
    }

    /// `labels`: the attributes of the service's own.
    pub(crate) fn finished(
        &self,
        series: &RequestSeries<'_>,
        request: &Measurement,
        labels: &Labels,
    ) {
        #[cfg(feature = "bound-instruments")]
        if let Some(requests) = &self.bound_requests
            && let Some(bound) = requests.find(series, labels.as_slice())
        {
            return self.finished_bound(bound, series, request);
        }
        match labels.is_empty() {
            true => self.record(request, &series.attributes()),
            false => self.record(request, &labelled(series.attributes(), labels.as_slice())),
        }
    }

    fn record(&self, request: &Measurement, attributes: &[KeyValue]) {
        self.duration
            .record(request.duration.as_secs_f64(), attributes);
        if let (Some(histogram), Some(time)) = (&self.first_byte, request.first_byte) {
            histogram.record(time.as_secs_f64(), attributes);
        }
        if let Some(size) = request.request_body {
            self.request_body.record(size, attributes);
        }
        if let Some(size) = request.response_body {
            self.response_body.record(size, attributes);
        }
    }

    #[cfg(feature = "bound-instruments")]
    fn finished_bound(
        &self,
        bound: &BoundRequest,
        series: &RequestSeries<'_>,
        request: &Measurement,
    ) {
        let attributes = || labelled(series.attributes(), &bound.labels);
        let duration = request.duration.as_secs_f64();
        bound.duration.record(&self.duration, attributes, duration);
        if let (Some(histogram), Some(time)) = (&self.first_byte, request.first_byte) {
            let time = time.as_secs_f64();
            bound.first_byte.record(histogram, attributes, time);
        }
        if let Some(size) = request.request_body {
            let histogram = &self.request_body;
            bound.request_body.record(histogram, attributes, size);
        }
        if let Some(size) = request.response_body {
            let histogram = &self.response_body;
            bound.response_body.record(histogram, attributes, size);
        }
    }
}
