use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use http::StatusCode;
use opentelemetry::{
    KeyValue, StringValue,
    metrics::{Histogram, Meter, UpDownCounter},
};

#[cfg(feature = "bound-instruments")]
use super::bound::{BoundRequest, BoundRequests};
use super::{ActiveRequests, ActiveSeries, ImgproxyMetrics};
use crate::attribute::ERROR_TYPE;

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
    active: ActiveCounter,
    request_body: Histogram<u64>,
    response_body: Histogram<u64>,
    imgproxy: Option<ImgproxyMetrics>,
    #[cfg(feature = "bound-instruments")]
    bound_requests: BoundRequests,
}

/// How `http.server.active_requests` is counted.
#[derive(Debug)]
enum ActiveCounter {
    /// The SDK looks for the series when a request comes and when it is over.
    Measured(UpDownCounter<i64>),
    /// In counts that are looked at when metrics are collected.
    Counted(Arc<ActiveRequests>),
}

/// What tells apart the series of finished requests. Nothing a client could invent is among it: no
/// path, host, or unknown method.
#[derive(Debug)]
pub(crate) struct RequestSeries<'a> {
    pub(crate) active: ActiveSeries<'a>,
    pub(crate) protocol_version: &'static str,
    /// None: it was never answered.
    pub(crate) status: Option<StatusCode>,
    pub(crate) route: Option<&'a StringValue>,
    pub(crate) error_type: Option<&'a StringValue>,
}

/// What one finished request adds to the metrics.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) duration: Duration,
    pub(crate) request_body: Option<u64>,
    pub(crate) response_body: Option<u64>,
}

impl RequestSeries<'_> {
    /// In one fixed order, which makes the SDK's lookup cheap.
    fn attributes(&self) -> ArrayVec<KeyValue, 6> {
        let status = self.status.map(|status| i64::from(status.as_u16()));
        let mut attributes: ArrayVec<_, 6> = self.active.attributes().into_iter().collect();
        attributes.push(KeyValue::new(
            "network.protocol.version",
            self.protocol_version,
        ));
        attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
        attributes.extend(
            self.route
                .map(|route| KeyValue::new("http.route", route.clone())),
        );
        attributes.extend(
            self.error_type
                .map(|kind| KeyValue::new(ERROR_TYPE, kind.clone())),
        );
        attributes
    }
}

impl ActiveCounter {
    fn measured(meter: &Meter) -> Self {
        let counter = meter
            .i64_up_down_counter(ActiveRequests::METRIC.name)
            .with_unit(ActiveRequests::METRIC.unit)
            .with_description(ActiveRequests::METRIC.description);
        Self::Measured(counter.build())
    }

    fn add(&self, number: i64, series: ActiveSeries<'_>) {
        match self {
            Self::Measured(counter) => counter.add(number, &series.attributes()),
            Self::Counted(counts) => counts.add(number, series),
        }
    }
}

impl HttpMetrics {
    /// With or without the same again under imgproxy's names. Somebody may see to the metric of the
    /// active requests already.
    pub(crate) fn new(meter: &Meter, imgproxy: bool, active: Option<Arc<ActiveRequests>>) -> Self {
        Self {
            imgproxy: imgproxy.then(|| ImgproxyMetrics::new(meter)),
            duration: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Duration of HTTP server requests.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            active: active.map_or_else(|| ActiveCounter::measured(meter), ActiveCounter::Counted),
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
            bound_requests: BoundRequests::new(),
        }
    }

    pub(crate) fn started(&self, series: ActiveSeries<'_>) {
        self.active.add(1, series);
        if let Some(imgproxy) = &self.imgproxy {
            imgproxy.started();
        }
    }

    /// The request is over that was [`started`](Self::started) in this series. Without a status it
    /// was never answered.
    pub(crate) fn ended(
        &self,
        series: ActiveSeries<'_>,
        duration: Duration,
        status: Option<StatusCode>,
    ) {
        self.active.add(-1, series);
        if let Some(imgproxy) = &self.imgproxy {
            imgproxy.finished(duration, status);
        }
    }

    pub(crate) fn finished(&self, series: &RequestSeries<'_>, request: &Measurement) {
        #[cfg(feature = "bound-instruments")]
        if let Some(bound) = self.bound_requests.find(series) {
            return self.finished_bound(bound, series, request);
        }
        let attributes = series.attributes();
        self.duration
            .record(request.duration.as_secs_f64(), &attributes);
        if let Some(size) = request.request_body {
            self.request_body.record(size, &attributes);
        }
        if let Some(size) = request.response_body {
            self.response_body.record(size, &attributes);
        }
    }

    #[cfg(feature = "bound-instruments")]
    fn finished_bound(
        &self,
        bound: &BoundRequest,
        series: &RequestSeries<'_>,
        request: &Measurement,
    ) {
        bound
            .duration
            .get_or_init(|| self.duration.bind(&series.attributes()))
            .record(request.duration.as_secs_f64());
        if let Some(size) = request.request_body {
            bound
                .request_body
                .get_or_init(|| self.request_body.bind(&series.attributes()))
                .record(size);
        }
        if let Some(size) = request.response_body {
            bound
                .response_body
                .get_or_init(|| self.response_body.bind(&series.attributes()))
                .record(size);
        }
    }
}
