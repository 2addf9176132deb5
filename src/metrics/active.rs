use std::{
    iter::successors,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use opentelemetry::{KeyValue, StringValue};

use super::metric::Metric;
use crate::intern::same;

/// The attributes of `http.server.active_requests`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveSeries<'a> {
    pub(crate) method: &'a StringValue,
    pub(crate) scheme: &'static str,
}

/// The active requests of all layers with the same gauges: a list that only grows, with one count for
/// each known method and scheme.
#[derive(Debug, Default)]
pub(crate) struct ActiveRequests {
    first: OnceLock<Box<Count>>,
}

#[derive(Debug)]
struct Count {
    method: StringValue,
    scheme: &'static str,
    requests: AtomicI64,
    next: OnceLock<Box<Count>>,
}

impl ActiveSeries<'_> {
    pub(super) fn attributes(self) -> [KeyValue; 2] {
        [
            KeyValue::new("http.request.method", self.method.clone()),
            KeyValue::new("url.scheme", self.scheme),
        ]
    }
}

impl Count {
    fn is_of(&self, series: ActiveSeries<'_>) -> bool {
        same(self.scheme, series.scheme) && same(self.method.as_str(), series.method.as_str())
    }
}

impl ActiveRequests {
    pub(super) const METRIC: Metric = Metric {
        name: "http.server.active_requests",
        unit: "{request}",
        description: "Number of active HTTP server requests.",
    };

    pub(super) fn add(&self, number: i64, series: ActiveSeries<'_>) {
        let mut place = &self.first;
        loop {
            let count = place.get_or_init(|| {
                Box::new(Count {
                    method: series.method.clone(),
                    scheme: series.scheme,
                    requests: AtomicI64::new(0),
                    next: OnceLock::new(),
                })
            });
            if count.is_of(series) {
                count.requests.fetch_add(number, Ordering::Relaxed);
                return;
            }
            place = &count.next;
        }
    }

    /// The number of active requests of each series.
    pub(super) fn counts(&self) -> impl Iterator<Item = (i64, ActiveSeries<'_>)> {
        successors(self.first.get(), |count| count.next.get()).map(|count| {
            let series = ActiveSeries {
                method: &count.method,
                scheme: count.scheme,
            };
            (count.requests.load(Ordering::Relaxed), series)
        })
    }
}
