//! Metrics of all scopes, gathered into families of one name.

use std::collections::{BTreeMap, HashSet};

use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, Metric, MetricData, ResourceMetrics, ScopeMetrics,
};

use super::names::{FamilyName, Kind, Naming};

/// All metrics that Prometheus knows under one name.
pub(super) struct Family<'a> {
    pub(super) kind: Kind,
    pub(super) unit: Option<String>,
    pub(super) help: &'a str,
    pub(super) metrics: Vec<(&'a ScopeMetrics, &'a Metric)>,
}

/// A metric that is left out, because the samples of another one have its name already, and another type or the
/// same scope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collision {
    pub(super) metric: String,
    pub(super) name: String,
}

/// The families by name, and what is left out.
///
/// Each name has one type, and one metric in a scope: Prometheus refuses a page on which it has two.
pub(super) fn gather<'a>(
    metrics: &'a ResourceMetrics,
    naming: &Naming,
) -> (BTreeMap<String, Family<'a>>, Vec<Collision>) {
    let (mut families, mut collisions) = (BTreeMap::<String, Family<'a>>::new(), Vec::new());
    // The names of samples, among which the target is always.
    let mut taken = HashSet::from(["target".to_owned(), "target_info".to_owned()]);
    // The SDK returns scopes in no fixed order, and the first one decides.
    let mut scopes: Vec<_> = metrics.scope_metrics().collect();
    scopes.sort_by_key(|scope| (scope.scope().name(), scope.scope().version()));
    for (scope, metric) in scopes
        .iter()
        .flat_map(|scope| scope.metrics().map(move |metric| (*scope, metric)))
    {
        let kind = kind(metric.data());
        let FamilyName { name, unit } = naming.family(metric.name(), metric.unit(), kind);
        if let Some(family) = families.get_mut(&name)
            && family.kind == kind
            // Samples of one scope could not be told apart.
            && !family.metrics.iter().any(|(other, _)| std::ptr::eq(*other, scope))
        {
            family.metrics.push((scope, metric));
            continue;
        }
        let samples: Vec<_> = kind
            .suffixes()
            .iter()
            .map(|suffix| format!("{name}{suffix}"))
            .collect();
        if samples.iter().any(|sample| taken.contains(sample)) {
            let metric = metric.name().to_owned();
            collisions.push(Collision { metric, name });
            continue;
        }
        taken.extend(samples);
        let family = Family {
            kind,
            unit,
            help: metric.description(),
            metrics: vec![(scope, metric)],
        };
        families.insert(name, family);
    }
    (families, collisions)
}

fn kind(data: &AggregatedMetrics) -> Kind {
    fn of<T>(data: &MetricData<T>) -> Kind {
        match data {
            MetricData::Sum(sum) if sum.is_monotonic() => Kind::Counter,
            MetricData::Sum(_) | MetricData::Gauge(_) => Kind::Gauge,
            MetricData::Histogram(_) => Kind::Histogram,
            MetricData::ExponentialHistogram(_) => Kind::Summary,
        }
    }
    match data {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    }
}
