use std::{
    iter::successors,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use opentelemetry::{
    KeyValue,
    metrics::{Meter, UpDownCounter},
};

use crate::intern::same;

/// The attributes of `http.server.active_requests`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveSeries {
    pub(crate) method: &'static str,
    pub(crate) scheme: &'static str,
}

/// `http.server.active_requests`.
pub(super) fn active_requests(meter: &Meter) -> UpDownCounter<i64> {
    meter
        .i64_up_down_counter("http.server.active_requests")
        .with_unit("{request}")
        .with_description("Number of active HTTP server requests.")
        .build()
}

/// Counts active requests outside the SDK, which saves its lookups. The changes are added to the SDK's
/// counter when metrics are collected. Until the first collection has shown that they are, the SDK counts: a view
/// of the service's may drop what tells of collections.
///
/// The SDK sums the changes of all sources. With an observable counter it would keep the value of the
/// last source only.
///
/// The counts are a list that only grows, with one for each known method and scheme.
#[derive(Debug)]
pub(crate) struct ActiveRequests {
    counter: UpDownCounter<i64>,
    is_collected: AtomicBool,
    first: OnceLock<Box<Count>>,
}

#[derive(Debug)]
struct Count {
    series: ActiveSeries,
    /// The change since the last collection.
    change: AtomicI64,
    next: OnceLock<Box<Count>>,
}

impl ActiveSeries {
    pub(super) fn attributes(self) -> [KeyValue; 2] {
        [
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("url.scheme", self.scheme),
        ]
    }

    pub(super) fn is(self, other: Self) -> bool {
        same(self.scheme, other.scheme) && same(self.method, other.method)
    }
}

impl ActiveRequests {
    pub(super) fn new(meter: &Meter) -> Arc<Self> {
        let counts = Arc::new(Self {
            counter: active_requests(meter),
            is_collected: AtomicBool::new(false),
            first: OnceLock::new(),
        });
        let weak = Arc::downgrade(&counts);
        // This gauge never has a value and is never exported. Its callback runs at each collection, before
        // the counters are read.
        meter
            .i64_observable_gauge("http.server.active_requests.collected")
            .with_callback(move |_| {
                if let Some(counts) = weak.upgrade() {
                    counts.is_collected.store(true, Ordering::Relaxed);
                    counts.flush();
                }
            })
            .build();
        counts
    }

    pub(super) fn add(&self, number: i64, series: ActiveSeries) {
        if !self.is_collected.load(Ordering::Relaxed) {
            return self.counter.add(number, &series.attributes());
        }
        let mut place = &self.first;
        loop {
            let count = place.get_or_init(|| {
                Box::new(Count {
                    series,
                    change: AtomicI64::new(0),
                    next: OnceLock::new(),
                })
            });
            if count.series.is(series) {
                count.change.fetch_add(number, Ordering::Relaxed);
                return;
            }
            place = &count.next;
        }
    }

    /// Adds the changes to the SDK's counter. A change of 0 is added too, because it makes a new series
    /// known.
    fn flush(&self) {
        for count in successors(self.first.get(), |count| count.next.get()) {
            let change = count.change.swap(0, Ordering::Relaxed);
            self.counter.add(change, &count.series.attributes());
        }
    }
}

impl Drop for ActiveRequests {
    /// All layers and requests are gone, and no later collection can flush.
    fn drop(&mut self) {
        self.flush();
    }
}
