//! One sampling rule: which root spans it is for, and which of them are sampled.

use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SamplingDecision, ShouldSample};
use serde_json::Value as Json;

use super::{
    attributes::{RootSpan, Service},
    pattern::Pattern,
    reservoir::Reservoir,
};

/// A rule (`SamplingRule` of the API), what X-Ray has allotted to this process of it, and what became of it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) priority: i64,
    criteria: Criteria,
    terms: Terms,
    target: Target,
    reservoir: Reservoir,
    counts: Counts,
}

/// Which root spans a rule is for.
#[derive(Debug, PartialEq)]
struct Criteria {
    method: Pattern,
    host: Pattern,
    path: Pattern,
    arn: Pattern,
    attributes: Vec<(String, Pattern)>,
}

/// How many of them are sampled while X-Ray has said nothing else.
#[derive(Debug, PartialEq)]
struct Terms {
    fixed_rate: f64,
    has_reservoir: bool,
}

/// What X-Ray has allotted to this process (`SamplingTargetDocument` of the API). Times are those of the clock
/// of the rules.
#[derive(Debug, Default)]
struct Target {
    fixed_rate: Option<f64>,
    quota: u64,
    quota_until: Duration,
    /// How often statistics are to be reported.
    interval: Option<Duration>,
    /// When statistics are next to be reported.
    due: Duration,
}

/// Requests since the last report.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    sampled: AtomicU64,
    borrowed: AtomicU64,
}

/// The statistics of a rule (`SamplingStatisticsDocument` of the API).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) rule: String,
    pub(super) requests: u64,
    /// The borrowed ones included.
    pub(super) sampled: u64,
    pub(super) borrowed: u64,
}

impl Rule {
    /// `None` for a rule of another service, of another version than 1, or without a name.
    pub(super) fn read(rule: &Json, service: &Service) -> Option<Self> {
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let pattern = |key| Pattern::new(text(key));
        let is_known = rule["Version"].as_i64() == Some(1) && !text("RuleName").is_empty();
        let is_for_service = pattern("ServiceName").matches(&service.name)
            && pattern("ServiceType").matches(service.kind);
        if !is_known || !is_for_service {
            return None;
        }
        let attributes = rule["Attributes"].as_object();
        let attributes = attributes.into_iter().flatten().map(|(key, value)| {
            let pattern = Pattern::new(value.as_str().unwrap_or_default());
            (key.clone(), pattern)
        });
        Some(Self {
            name: text("RuleName").to_owned(),
            priority: rule["Priority"].as_i64().unwrap_or(i64::MAX),
            criteria: Criteria {
                method: pattern("HTTPMethod"),
                host: pattern("Host"),
                path: pattern("URLPath"),
                arn: pattern("ResourceARN"),
                attributes: attributes.collect(),
            },
            terms: Terms {
                fixed_rate: rule["FixedRate"].as_f64().unwrap_or(0.0),
                has_reservoir: rule["ReservoirSize"].as_f64().unwrap_or(0.0) > 0.0,
            },
            target: Target::default(),
            reservoir: Reservoir::default(),
            counts: Counts::default(),
        })
    }

    /// Goes on where the rule of the same name was. What X-Ray has allotted holds as long as the rule is the
    /// same.
    pub(super) fn continue_from(&mut self, old: &mut Self) {
        self.counts = mem::take(&mut old.counts);
        self.reservoir = mem::take(&mut old.reservoir);
        if self.criteria == old.criteria && self.terms == old.terms {
            self.target = mem::take(&mut old.target);
        }
    }

    pub(super) fn is_for(&self, span: &RootSpan<'_>) -> bool {
        let criteria = &self.criteria;
        let has = |(key, pattern): &(String, Pattern)| {
            let mut attributes = span.attributes.iter();
            attributes.any(|it| it.key.as_str() == key && pattern.matches(&it.value.as_str()))
        };
        criteria.method.matches(&span.method)
            && criteria.host.matches(&span.host)
            && criteria.is_for_url(span)
            && criteria.arn.matches(&span.arn)
            && criteria.attributes.iter().all(has)
    }

    /// Whether a trace is sampled: by the quota of this second, or else by the fixed rate.
    pub(super) fn samples(&self, trace_id: TraceId, now: Duration) -> bool {
        let (counts, target) = (&self.counts, &self.target);
        counts.requests.fetch_add(1, Relaxed);
        let borrows = now >= target.quota_until;
        let a_second = match borrows {
            true => u64::from(self.terms.has_reservoir),
            false => target.quota,
        };
        let taken = self.reservoir.take(now, a_second);
        if taken && borrows {
            counts.borrowed.fetch_add(1, Relaxed);
        }
        let fixed_rate = target.fixed_rate.unwrap_or(self.terms.fixed_rate);
        let sampled = taken || is_in_ratio(trace_id, fixed_rate);
        if sampled {
            counts.sampled.fetch_add(1, Relaxed);
        }
        sampled
    }

    /// The statistics, if they are to be reported and there are any.
    pub(super) fn report(&self, now: Duration) -> Option<Report> {
        let counts = &self.counts;
        let requests = counts.requests.load(Relaxed);
        (requests > 0 && now >= self.target.due).then(|| Report {
            rule: self.name.clone(),
            requests,
            sampled: counts.sampled.load(Relaxed),
            borrowed: counts.borrowed.load(Relaxed),
        })
    }

    /// X-Ray has taken the report.
    pub(super) fn reported(&mut self, report: &Report) {
        let counts = &mut self.counts;
        for (count, reported) in [
            (&mut counts.requests, report.requests),
            (&mut counts.sampled, report.sampled),
            (&mut counts.borrowed, report.borrowed),
        ] {
            let count = count.get_mut();
            *count = count.saturating_sub(reported);
        }
    }

    /// Takes what X-Ray has allotted at `unix`, in seconds since 1970. What is left out stays as it was.
    pub(super) fn allot(&mut self, target: &Json, now: Duration, unix: f64) {
        let mine = &mut self.target;
        if let Some(rate) = target["FixedRate"].as_f64() {
            mine.fixed_rate = Some(rate);
        }
        if let Some(quota) = target["ReservoirQuota"].as_f64() {
            mine.quota = quota as u64;
        }
        if let Some(until) = target["ReservoirQuotaTTL"].as_f64() {
            let left = Duration::try_from_secs_f64(until - unix).unwrap_or_default();
            mine.quota_until = now.saturating_add(left);
        }
        if let Some(seconds) = target["Interval"].as_u64() {
            mine.interval = Some(Duration::from_secs(seconds.clamp(1, LONGEST_INTERVAL)));
        }
        mine.due = now + mine.interval.unwrap_or_default();
    }

    /// How often X-Ray wants statistics of the rule, if it has said so.
    pub(super) const fn interval(&self) -> Option<Duration> {
        self.target.interval
    }
}

/// Seconds. An unreasonable interval must not end the reports.
const LONGEST_INTERVAL: u64 = 3600;

impl Criteria {
    /// The path decides. Where only the whole URL is known, a pattern may be for that too, as in the SDK for Go.
    fn is_for_url(&self, span: &RootSpan<'_>) -> bool {
        match (&span.path, &span.url) {
            (Some(path), _) => self.path.matches(path),
            (None, Some(url)) => {
                let in_url = path_and_query(url).is_some_and(|path| self.path.matches(path));
                in_url || self.path.matches(url)
            }
            (None, None) => self.path.matches(""),
        }
    }
}

/// `None` for what is no URL, because it has no scheme.
fn path_and_query(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    Some(rest.find('/').map_or("/", |start| &rest[start..]))
}

/// Whether the trace is among this share of all traces, as other services see it too.
pub(super) fn is_in_ratio(trace_id: TraceId, ratio: f64) -> bool {
    let sampler = SdkSampler::TraceIdRatioBased(ratio);
    let result = sampler.should_sample(None, trace_id, "", &SpanKind::Internal, &[], &[]);
    result.decision == SamplingDecision::RecordAndSample
}
