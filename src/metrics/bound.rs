//! Bound instruments (feature `bound-instruments`, after the SDK's experimental feature): the SDK
//! looks up a series once instead of at each measurement, and keeps it for ever.

use std::{hash::BuildHasher, sync::OnceLock};

use http::StatusCode;
use opentelemetry::{
    KeyValue, StringValue,
    metrics::{BoundCounter, BoundHistogram, Counter, Histogram},
};
use rustc_hash::FxBuildHasher;

use super::{active::ActiveSeries, series::RequestSeries};
use crate::intern::{Table, hash, same};

/// An instrument that is bound to its attributes once it has measured, because the SDK exports bound series even
/// when they were never measured.
#[derive(Debug)]
pub(super) struct Bound<T>(OnceLock<T>);

impl<T> Default for Bound<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Bound<T> {
    fn measure<A: AsRef<[KeyValue]>>(
        &self,
        attributes: impl FnOnce() -> A,
        bound: impl FnOnce(&T),
        unbound: impl FnOnce(&[KeyValue]),
        bind: impl FnOnce(&[KeyValue]) -> T,
    ) {
        if let Some(instrument) = self.0.get() {
            return bound(instrument);
        }
        let attributes = attributes();
        unbound(attributes.as_ref());
        self.0.get_or_init(|| bind(attributes.as_ref()));
    }
}

impl<T: Copy> Bound<BoundHistogram<T>> {
    pub(super) fn record<A: AsRef<[KeyValue]>>(
        &self,
        histogram: &Histogram<T>,
        attributes: impl FnOnce() -> A,
        value: T,
    ) {
        self.measure(
            attributes,
            |bound| bound.record(value),
            |attributes| histogram.record(value, attributes),
            |attributes| histogram.bind(attributes),
        );
    }
}

impl Bound<BoundCounter<u64>> {
    pub(super) fn add<A: AsRef<[KeyValue]>>(
        &self,
        counter: &Counter<u64>,
        attributes: impl FnOnce() -> A,
        value: u64,
    ) {
        self.measure(
            attributes,
            |bound| bound.add(value),
            |attributes| counter.add(value, attributes),
            |attributes| counter.bind(attributes),
        );
    }
}

/// The series of all requests with the same attributes. The table has room for more series than a service has;
/// when full, falls back to unbound recording.
#[derive(Debug)]
pub(super) struct BoundRequest {
    active: ActiveSeries,
    protocol_version: &'static str,
    status: Option<StatusCode>,
    route: Option<StringValue>,
    error_type: Option<StringValue>,
    /// The attributes of the service's own.
    pub(super) labels: Box<[KeyValue]>,
    pub(super) duration: Bound<BoundHistogram<f64>>,
    pub(super) first_byte: Bound<BoundHistogram<f64>>,
    pub(super) request_body: Bound<BoundHistogram<u64>>,
    pub(super) response_body: Bound<BoundHistogram<u64>>,
}

#[derive(Debug)]
pub(super) struct BoundRequests {
    plain: Box<Table<BoundRequest, 512>>,
    /// The series with labels, which clients may invent: these leave no other series without a place.
    labelled: OnceLock<Box<Table<BoundRequest, 512>>>,
}

impl BoundRequests {
    pub(super) fn new() -> Self {
        Self {
            plain: Box::default(),
            labelled: OnceLock::new(),
        }
    }

    pub(super) fn find(
        &self,
        series: &RequestSeries<'_>,
        labels: &[KeyValue],
    ) -> Option<&BoundRequest> {
        let (table, labels_hash) = match labels.is_empty() {
            true => (&self.plain, 0),
            false => (
                self.labelled.get_or_init(Box::default),
                FxBuildHasher.hash_one(labels) as usize,
            ),
        };
        let status = series.status.map_or(0, |status| status.as_u16());
        let route = series.route.map_or(0, |route| hash(route.as_str()));
        table.find(
            route
                .wrapping_add(usize::from(status))
                .wrapping_add(labels_hash),
            |bound| {
                bound.status == series.status
                    && bound.active.is(series.active)
                    && same(bound.protocol_version, series.protocol_version)
                    && same_if_any(bound.route.as_ref(), series.route)
                    && same_if_any(bound.error_type.as_ref(), series.error_type)
                    && *bound.labels == *labels
            },
            || BoundRequest {
                active: series.active,
                protocol_version: series.protocol_version,
                status: series.status,
                route: series.route.cloned(),
                error_type: series.error_type.cloned(),
                labels: labels.into(),
                duration: Bound::default(),
                first_byte: Bound::default(),
                request_body: Bound::default(),
                response_body: Bound::default(),
            },
        )
    }
}

/// Series that differ in one name: of a stage, or of a kind of error.
#[derive(Debug)]
pub(super) struct BoundByName<T>(Table<(&'static str, T), 64>);

impl<T> Default for BoundByName<T> {
    fn default() -> Self {
        Self(Table::default())
    }
}

impl<T> BoundByName<T> {
    pub(super) fn find(&self, name: &'static str, bind: impl Fn() -> T) -> Option<&T> {
        let is_it = |(bound, _): &(&str, T)| same(bound, name);
        let found = self.0.find(hash(name), is_it, || (name, bind()));
        found.map(|(_, bound)| bound)
    }
}

fn same_if_any(one: Option<&StringValue>, other: Option<&StringValue>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one.as_str(), other.as_str()),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ActiveSeries, *};

    /// So many that they meet in the table.
    #[test]
    fn series_do_not_mix() {
        let requests = BoundRequests::new();
        let methods = ["GET", "POST"];
        let routes: Vec<_> = (0..40)
            .map(|number| StringValue::from(format!("/{number}")))
            .collect();
        let labels = [KeyValue::new("preset", "avatar")];
        let mut found = 0;
        for (status, route) in (200..210).flat_map(|status| routes.iter().map(move |r| (status, r)))
        {
            for method in methods {
                let series = RequestSeries {
                    active: ActiveSeries {
                        method,
                        scheme: "http",
                    },
                    protocol_version: "1.1",
                    status: StatusCode::from_u16(status).ok(),
                    route: Some(route),
                    error_type: None,
                };
                for labels in [&[][..], &labels] {
                    if let Some(bound) = requests.find(&series, labels) {
                        assert_eq!((bound.status, bound.active.method), (series.status, method));
                        assert_eq!(bound.route.as_ref(), series.route);
                        assert_eq!(&*bound.labels, labels);
                        found += 1;
                    }
                }
            }
        }
        assert!(found > 600, "{found}");
    }

    #[test]
    fn names_do_not_mix() {
        let names: Vec<_> = (0..40)
            .map(|number| &*format!("stage {number}").leak())
            .collect();
        let table = BoundByName::default();
        let mut found: Vec<&String> = Vec::new();
        for name in names.iter().chain(&names) {
            let Some(bound) = table.find(name, || name.to_string()) else {
                continue;
            };
            assert_eq!(bound, name);
            if !found.iter().any(|other| std::ptr::eq(*other, bound)) {
                found.push(bound);
            }
        }
        let bound = names
            .iter()
            .filter(|name| table.find(name, || name.to_string()).is_some());
        assert_eq!(found.len(), bound.count());
        assert!(found.len() > 30, "{}", found.len());
    }
}
