//! All rules that are known.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TraceId};
use opentelemetry_sdk::Resource;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::{
    attributes::{RootSpan, Service},
    reservoir::Reservoir,
    rule::{Report, Rule, is_in_ratio},
};

/// How long rules hold at least that could not be asked for again.
const LIFE: Duration = Duration::from_secs(3600);
/// The share of traces beside one a second when no rule is known that applies.
const FALLBACK: f64 = 0.05;

/// The rules, and what decides without them.
///
/// Their clock is the time since their start. It is tokio's, so that tests can move it.
#[derive(Debug)]
pub(crate) struct Rules {
    started: Instant,
    service: Service,
    /// Locked for moments only, never while anything is asked.
    known: RwLock<Known>,
    fallback: Reservoir,
}

#[derive(Debug, Default)]
struct Known {
    /// By priority, then by name.
    rules: Vec<Rule>,
    until: Duration,
}

impl Rules {
    /// No rules yet, for the service that `resource` describes.
    pub(crate) fn new(resource: &Resource) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            service: Service::of(resource),
            known: RwLock::default(),
            fallback: Reservoir::default(),
        })
    }

    /// Whether a trace is sampled whose root span begins with these attributes.
    pub(super) fn sample(&self, trace_id: TraceId, attributes: &[KeyValue]) -> bool {
        let now = self.now();
        let span = RootSpan::of(attributes, &self.service);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut rules = known.rules.iter().filter(|_| now < known.until);
        match rules.find(|rule| rule.is_for(&span)) {
            Some(rule) => rule.samples(trace_id, now),
            None => self.fallback.take(now, 1) || is_in_ratio(trace_id, FALLBACK),
        }
    }

    /// Replaces the rules by those of `records` (`SamplingRuleRecords` of the API). They hold until the next
    /// ones should have come, `interval` later, and as long again for attempts that fail.
    pub(super) fn replace(&self, records: &[Json], interval: Duration) {
        let read = |record: &Json| Rule::read(&record["SamplingRule"], &self.service);
        let mut rules: Vec<_> = records.iter().filter_map(read).collect();
        rules.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        let mut known = self.write();
        for rule in &mut rules {
            if let Some(old) = known.rules.iter_mut().find(|old| old.name == rule.name) {
                rule.continue_from(old);
            }
        }
        known.rules = rules;
        let life = LIFE.max(interval.saturating_mul(2));
        known.until = self.now().saturating_add(life);
    }

    /// How many rules may apply to this service.
    pub(super) fn count(&self) -> usize {
        self.write().rules.len()
    }

    /// The statistics that are to be reported now.
    pub(super) fn reports(&self) -> Vec<Report> {
        let now = self.now();
        // Nothing is counted meanwhile, so that the numbers of a report fit each other.
        let known = self.write();
        known
            .rules
            .iter()
            .filter_map(|rule| rule.report(now))
            .collect()
    }

    /// X-Ray has taken these reports.
    pub(super) fn reported<'a>(&self, reports: impl IntoIterator<Item = &'a Report>) {
        let mut known = self.write();
        for report in reports {
            let mut rules = known.rules.iter_mut();
            if let Some(rule) = rules.find(|rule| rule.name == report.rule) {
                rule.reported(report);
            }
        }
    }

    /// Takes what X-Ray has allotted (`SamplingTargetDocuments` of the API) at `unix`, in seconds since 1970.
    pub(super) fn allot(&self, targets: &[Json], unix: f64) {
        let now = self.now();
        let mut known = self.write();
        for target in targets {
            let mut rules = known.rules.iter_mut();
            if let Some(rule) = rules.find(|rule| target["RuleName"] == *rule.name) {
                rule.allot(target, now, unix);
            }
        }
    }

    /// How often X-Ray wants statistics, if it has said so.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.write().rules.iter().filter_map(Rule::interval).min()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
