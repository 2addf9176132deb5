use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

#[cfg(feature = "bound-instruments")]
use opentelemetry::metrics::{BoundCounter, BoundHistogram};

#[cfg(feature = "bound-instruments")]
use super::bound::{Bound, BoundByName};
use super::{buckets::DURATION_BUCKETS, series::labelled};
use crate::instrument::ScopedMeter;

/// The durations of stages and the errors in them, under imgproxy's names.
#[derive(Debug)]
pub(crate) struct StageMetrics {
    duration: Histogram<f64>,
    /// CPU time of blocking work.
    #[cfg(feature = "tokio")]
    cpu_time: Histogram<f64>,
    errors: Counter<u64>,
    #[cfg(feature = "bound-instruments")]
    bound: Option<BoundStages>,
}

#[cfg(feature = "bound-instruments")]
#[derive(Debug, Default)]
struct BoundStages {
    durations: BoundByName<Bound<BoundHistogram<f64>>>,
    errors: BoundByName<Bound<BoundCounter<u64>>>,
}

impl StageMetrics {
    pub(crate) fn new(meter: &ScopedMeter) -> Self {
        Self {
            duration: meter
                .f64_histogram("request_span_duration_seconds")
                .with_unit("s")
                .with_description("Duration of the stages of an image request.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            #[cfg(feature = "tokio")]
            cpu_time: meter
                .f64_histogram("image.stage.cpu_time")
                .with_unit("s")
                .with_description("CPU time of the blocking work of a stage.")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            errors: meter
                .u64_counter("errors_total")
                .with_unit("{error}")
                .with_description("Number of errors, by type.")
                .build(),
            #[cfg(feature = "bound-instruments")]
            bound: meter.can_bind.then(BoundStages::default),
        }
    }

    /// `labels`: the attributes of the service's own.
    pub(crate) fn labelled_stage<'a>(
        &self,
        name: &'static str,
        elapsed: Duration,
        labels: impl IntoIterator<Item = &'a KeyValue>,
    ) {
        let mut labels = labels.into_iter().peekable();
        if labels.peek().is_none() {
            return self.stage(name, elapsed);
        }
        let attributes = labelled([KeyValue::new("span", name)], labels);
        self.duration.record(elapsed.as_secs_f64(), &attributes);
    }

    pub(crate) fn stage(&self, name: &'static str, elapsed: Duration) {
        let span = || [KeyValue::new("span", name)];
        #[cfg(feature = "bound-instruments")]
        if let Some(bound) = &self.bound
            && let Some(bound) = bound.durations.find(name, Bound::default)
        {
            return bound.record(&self.duration, span, elapsed.as_secs_f64());
        }
        self.duration.record(elapsed.as_secs_f64(), &span());
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn cpu_time<'a>(
        &self,
        name: &'static str,
        time: Duration,
        labels: impl IntoIterator<Item = &'a KeyValue>,
    ) {
        let attributes = labelled([KeyValue::new("span", name)], labels);
        self.cpu_time.record(time.as_secs_f64(), &attributes);
    }

    pub(crate) fn error(&self, kind: &'static str) {
        let kind_attribute = || [KeyValue::new("type", kind)];
        #[cfg(feature = "bound-instruments")]
        if let Some(bound) = &self.bound
            && let Some(bound) = bound.errors.find(kind, Bound::default)
        {
            return bound.add(&self.errors, kind_attribute, 1);
        }
        self.errors.add(1, &kind_attribute());
    }
}
