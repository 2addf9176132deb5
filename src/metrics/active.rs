use std::{
    iter::successors,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use opentelemetry::{KeyValue, StringValue};

use super::Name;
use crate::intern::same;

/// What tells apart the series of `http.server.active_requests`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveSeries<'a> {
    pub(crate) method: &'a StringValue,
    pub(crate) scheme: &'static str,
}

/// The requests that all layers with the same gauges are working on: a list that only grows, by the
/// methods that the layers know.
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
    pub(super) const METRIC: Name = Name {
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

    /// How many there are now, by series.
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
