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

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry_sdk::Resource;
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:xray:us-east-1:595986152929:my-service";

    /// A rule for everything, with these changes.
    fn rule(changes: Json) -> Json {
        let mut rule = json!({
            "RuleName": "r1", "Version": 1, "Priority": 1, "FixedRate": 0.0, "ReservoirSize": 0, "Attributes": {},
            "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*",
            "ResourceARN": "*",
        });
        for (key, value) in changes.as_object().unwrap() {
            rule[key] = value.clone();
        }
        rule
    }

    /// The attributes of an object, without those that are null.
    fn attributes(of: &Json) -> Vec<KeyValue> {
        let of = of.as_object().unwrap();
        let attribute = |(key, value): (&String, &Json)| match value {
            Json::Null => None,
            Json::Number(number) => Some(KeyValue::new(key.clone(), number.as_i64().unwrap())),
            value => Some(KeyValue::new(
                key.clone(),
                value.as_str().unwrap().to_owned(),
            )),
        };
        of.iter().filter_map(attribute).collect()
    }

    fn changed(base: &Json, changes: &Json) -> Json {
        let mut changed = base.clone();
        for (key, value) in changes.as_object().unwrap() {
            changed[key] = value.clone();
        }
        changed
    }

    fn is_for(rule: &Json, resource: &Json, span: &Json) -> bool {
        let resource = Resource::builder_empty().with_attributes(attributes(resource));
        let service = Service::of(&resource.build());
        let span = attributes(span);
        let rule = Rule::read(rule, &service);
        rule.is_some_and(|rule| rule.is_for(&RootSpan::of(&span, &service)))
    }

    /// The cases of the SDK for Java: a rule, a service and a span, and changes of service and span.
    #[test]
    fn rules_match_as_in_java() {
        let resource = json!({
            "service.name": "test-service-foo-bar", "cloud.platform": "aws_eks", "aws.ecs.container.arn": ARN,
        });
        let span = json!({
            "http.request.method": "GET", "server.address": "opentelemetry.io", "url.path": "/instrument-me",
            "animal": "cat", "speed": 10,
        });
        let exact = rule(json!({
            "ServiceName": "test-service-foo-bar", "ServiceType": "AWS::EKS::Container", "HTTPMethod": "GET",
            "Host": "opentelemetry.io", "URLPath": "/instrument-me", "ResourceARN": ARN,
            "Attributes": {"animal": "cat", "speed": "10"},
        }));
        let url = |url: &str| json!({"url.path": null, "url.full": url});
        let wildcards = rule(json!({
            "ServiceName": "test-service-foo-*", "HTTPMethod": "*GET*", "Host": "*.?pent*.io",
            "URLPath": "/instrument-me?foo=bar&cat=*", "ResourceARN": "arn:aws:*:*:my-service",
            "Attributes": {"animal": "cat*", "speed": "?0"},
        }));
        let with_query = changed(
            &span,
            &json!({
                "url.path": "/instrument-me?foo=bar&cat=meow", "server.address": "www.opentelemetry.io",
            }),
        );
        let lambda = json!({"cloud.platform": "aws_lambda", "cloud.resource_id": ARN});
        let of_lambda = rule(json!({
            "ServiceType": "AWS::Lambda::Function", "HTTPMethod": "GET", "Host": "opentelemetry.io",
            "URLPath": "/instrument-me", "ResourceARN": ARN, "Attributes": {"animal": "cat", "speed": "10"},
        }));
        #[rustfmt::skip]
        let cases = [
            (&exact, &resource, &span, vec![
                (json!({}), json!({}), true),
                (json!({}), url("scheme://host:port/instrument-me"), true),
                (json!({"service.name": "test-service-foo-baz"}), json!({}), false),
                (json!({"service.name": null}), json!({}), false),
                (json!({}), json!({"http.request.method": "POST"}), false),
                (json!({}), json!({"server.address": "opentelemetryfio"}), false),
                (json!({}), json!({"url.path": "/instrument-you"}), false),
                (json!({}), url("scheme://host:port/instrument-you"), false),
                (json!({}), url("scheme://host:port"), false),
                (json!({}), url("host:port/instrument-me"), false),
                (json!({}), json!({"animal": "dog"}), false),
                (json!({}), json!({"animal": null}), false),
                (json!({"cloud.platform": "aws_ec2"}), json!({}), false),
                (json!({"cloud.platform": null}), json!({}), false),
                (json!({"aws.ecs.container.arn": format!("{ARN}2")}), json!({}), false),
                // The names before semantic conventions 1.21.
                (json!({}), json!({
                    "http.request.method": null, "http.method": "GET", "server.address": null,
                    "net.host.name": "opentelemetry.io", "url.path": null, "http.target": "/instrument-me",
                }), true),
                (json!({}), json!({"server.address": null, "http.host": "OpenTelemetry.IO"}), true),
                (json!({}), json!({"url.path": null, "http.url": "https://host/instrument-me"}), true),
            ]),
            (&wildcards, &resource, &with_query, vec![
                (json!({}), json!({}), true),
                (json!({"service.name": "test-service-foo-baz"}), json!({}), true),
                (json!({"service.name": "test-service-foo-"}), json!({}), true),
                (json!({"service.name": "test-service-foo"}), json!({}), false),
                (json!({"service.name": "prod-service-foo-bar"}), json!({}), false),
                (json!({"service.name": null}), json!({}), false),
                (json!({}), json!({"http.request.method": "BADGETGOOD"}), true),
                (json!({}), json!({"http.request.method": "BADGET"}), true),
                (json!({}), json!({"http.request.method": "GETGET"}), true),
                (json!({}), json!({"http.request.method": "POST"}), false),
                (json!({}), json!({"http.request.method": null}), false),
                (json!({}), json!({
                    "http.request.method": "_OTHER", "http.request.method_original": "FORGET",
                }), true),
                (json!({}), json!({"server.address": "alpha.opentelemetry.io"}), true),
                (json!({}), json!({"server.address": "a.b.gpentglemrz.io"}), true),
                (json!({}), json!({"server.address": "opentelemetry.io"}), false),
                (json!({}), json!({"server.address": "alpha.opentelemetryfio"}), false),
                (json!({}), json!({"server.address": "alpha.oentelemetry.io"}), false),
                (json!({}), json!({"server.address": null}), false),
                (json!({}), json!({"url.path": "/instrument-me?foo=bar&cat="}), true),
                (json!({}), json!({"url.path": "/instrument-meafoo=bar&cat="}), true),
                (json!({}), json!({"url.path": "/instrument-mea?foo=bar&cat="}), false),
                (json!({}), json!({"url.path": "foo/instrument-meafoo=bar&cat="}), false),
                (json!({}), json!({"url.path": null}), false),
                (json!({}), json!({"animal": "catman"}), true),
                (json!({}), json!({"speed": 20}), true),
                (json!({}), json!({"animal": "dog"}), false),
                (json!({}), json!({"animal": "mancat"}), false),
                (json!({}), json!({"speed": 21}), false),
                (json!({}), json!({"animal": null}), false),
                (json!({"cloud.platform": "aws_ec2"}), json!({}), true),
                (json!({"cloud.platform": null}), json!({}), true),
                (json!({"aws.ecs.container.arn": "arn:aws:opentelemetry:us-east-3:52929:my-service"}), json!({}), true),
                (json!({"aws.ecs.container.arn": format!("{ARN}2")}), json!({}), false),
                (json!({"aws.ecs.container.arn": ARN.replace("arn", "frn")}), json!({}), false),
                (json!({"aws.ecs.container.arn": null}), json!({}), false),
            ]),
            (&of_lambda, &lambda, &span, vec![
                (json!({}), json!({}), true),
                (json!({"cloud.resource_id": null, "faas.id": ARN}), json!({}), true),
                (json!({"cloud.resource_id": null}), json!({"cloud.resource_id": ARN}), true),
                (json!({"cloud.resource_id": null}), json!({"faas.id": ARN}), true),
                (json!({"cloud.resource_id": null}), json!({}), false),
                (json!({"cloud.platform": "gcp_cloud_functions"}), json!({}), false),
                (json!({"cloud.platform": null}), json!({}), false),
            ]),
        ];
        for (rule, resource, span, changes) in cases {
            for (of_resource, of_span, expected) in changes {
                let matches = is_for(
                    rule,
                    &changed(resource, &of_resource),
                    &changed(span, &of_span),
                );
                assert_eq!(matches, expected, "{of_resource} {of_span} {rule}");
            }
        }
    }

    /// The cases of the SDK for Go.
    #[test]
    fn rules_match_as_in_go() {
        let ec2 = json!({"service.name": "test-service", "cloud.platform": "aws_ec2"});
        let http = json!({
            "http.host": "localhost", "http.method": "GET", "http.url": "http://127.0.0.1:2000",
        });
        let labels = json!({"labelA": "chocolate", "labelB": "raspberry"});
        let none = json!({});
        let of_service = |changes: Json| {
            let base = json!({"ServiceName": "test-service", "ServiceType": "AWS::EC2::Instance"});
            rule(changed(&base, &changes))
        };
        let all =
            json!({"Host": "localhost", "HTTPMethod": "GET", "URLPath": "http://127.0.0.1:2000"});
        let labelled = |labels: Json| rule(json!({ "Attributes": labels }));
        #[rustfmt::skip]
        let cases = [
            (of_service(all.clone()), &ec2, &http, true),
            (of_service(all), &ec2, &none, false),
            (of_service(json!({})), &ec2, &http, true),
            (of_service(json!({})), &ec2, &none, true),
            (of_service(json!({"HTTPMethod": "GET"})), &ec2, &none, false),
            (of_service(json!({"ServiceType": "AWS::ECS::Container"})), &ec2, &none, false),
            (labelled(json!({"labelA": "chocolate", "labelB": "raspberry"})), &none, &labels, true),
            (labelled(json!({"labelA": "chocolate", "labelC": "fudge"})), &none, &labels, false),
            (labelled(json!({"labelA": "fudge", "labelB": "raspberry"})), &none, &labels, false),
            (labelled(json!({"labelA": "choco*", "labelB": "rasp*"})), &none, &labels, true),
            (labelled(json!({})), &none, &labels, true),
            (labelled(json!(null)), &none, &labels, true),
            // What cannot be read is never for anything.
            (rule(json!({"Version": 5})), &none, &none, false),
            (rule(json!({"Version": null})), &none, &none, false),
            (rule(json!({"RuleName": null})), &none, &none, false),
            (rule(json!({"RuleName": ""})), &none, &none, false),
            (rule(json!({"ServiceName": null})), &ec2, &none, false),
        ];
        for (rule, resource, span, expected) in cases {
            assert_eq!(is_for(&rule, resource, span), expected, "{rule} {span}");
        }
    }

    fn anything(changes: Json) -> Rule {
        let service = Service::of(&Resource::builder_empty().build());
        Rule::read(&rule(changes), &service).unwrap()
    }

    /// How many of so many traces are sampled at that second. With a fixed rate of 0 only the reservoir samples.
    fn sampled(rule: &Rule, second: u64, traces: u64) -> usize {
        let now = Duration::from_secs(second);
        let ids = (0..traces).map(|n| TraceId::from(u128::from(n) << 32 | 1 << 64));
        ids.filter(|id| rule.samples(*id, now)).count()
    }

    fn report(rule: &Rule, second: u64) -> Option<(u64, u64, u64)> {
        let report = rule.report(Duration::from_secs(second));
        report.map(|it| (it.requests, it.sampled, it.borrowed))
    }

    #[test]
    fn the_fixed_rate_decides_without_a_reservoir() {
        let none = anything(json!({}));
        assert_eq!(sampled(&none, 1, 3), 0);
        assert_eq!(report(&none, 1), Some((3, 0, 0)));
        let mut all = anything(json!({"FixedRate": 1.0}));
        assert_eq!(report(&all, 1), None);
        assert_eq!(sampled(&all, 1, 1), 1);
        let first = all.report(Duration::from_secs(1)).unwrap();
        assert_eq!(sampled(&all, 1, 2), 2);
        // What came after the report is in the next one.
        all.reported(&first);
        assert_eq!(report(&all, 1), Some((2, 2, 0)));
        let some = anything(json!({"FixedRate": 0.25}));
        let ids =
            (0..4000_u64).map(|n| TraceId::from(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        let count = ids.filter(|id| some.samples(*id, Duration::ZERO)).count();
        assert!((900..1100).contains(&count), "{count}");
    }

    /// The case `ruleWithTarget` of the SDK for Java, until the quota expires: then Go's.
    #[test]
    fn a_rule_borrows_until_it_has_a_quota_and_after_that() {
        let mut rule = anything(json!({"ReservoirSize": 1000}));
        assert_eq!([sampled(&rule, 0, 3), sampled(&rule, 1, 3)], [1, 1]);
        assert_eq!(report(&rule, 1), Some((6, 2, 2)));
        let first = rule.report(Duration::from_secs(1)).unwrap();
        rule.reported(&first);
        let unix = 1_700_000_000.0;
        let target = json!({
            "RuleName": "r1", "FixedRate": 0.0, "Interval": 5, "ReservoirQuota": 2,
            "ReservoirQuotaTTL": unix + 10.0,
        });
        rule.allot(&target, Duration::from_secs(2), unix);
        assert_eq!([sampled(&rule, 2, 4), sampled(&rule, 4, 3)], [2, 2]);
        assert_eq!([report(&rule, 4), report(&rule, 6)], [None, None]);
        assert_eq!(report(&rule, 7), Some((7, 4, 0)));
        assert_eq!(
            [
                sampled(&rule, 11, 3),
                sampled(&rule, 12, 3),
                sampled(&rule, 13, 3)
            ],
            [2, 1, 1]
        );
        assert_eq!(report(&rule, 13), Some((16, 8, 2)));
    }

    #[test]
    fn a_target_without_a_quota_changes_the_rate_alone() {
        let mut rule = anything(json!({"ReservoirSize": 0, "FixedRate": 1.0}));
        rule.allot(
            &json!({"FixedRate": 0.0, "Interval": 5}),
            Duration::ZERO,
            0.0,
        );
        assert_eq!(sampled(&rule, 1, 3), 0);
        assert_eq!(
            [report(&rule, 4), report(&rule, 5)],
            [None, Some((3, 0, 0))]
        );
        // Nonsense is left out.
        let nonsense = json!({"ReservoirQuotaTTL": 1e300, "ReservoirQuota": -3, "Interval": 0});
        rule.allot(&nonsense, Duration::ZERO, 0.0);
        assert_eq!(sampled(&rule, 6, 3), 0);
        assert_eq!(rule.interval(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_rule_that_has_changed_goes_on_counting() {
        let old = || {
            let mut old = anything(json!({"ReservoirSize": 5}));
            let target = json!({"FixedRate": 1.0});
            old.allot(&target, Duration::ZERO, 0.0);
            assert_eq!(sampled(&old, 0, 2), 2);
            old
        };
        let mut same = anything(json!({"ReservoirSize": 7, "Priority": 3}));
        same.continue_from(&mut old());
        assert_eq!(sampled(&same, 0, 2), 2, "what was allotted still holds");
        let mut other = anything(json!({"ReservoirSize": 5, "Host": "a*"}));
        other.continue_from(&mut old());
        assert_eq!(
            sampled(&other, 0, 1),
            0,
            "the second's trace was borrowed before"
        );
        assert_eq!(report(&other, 0), Some((3, 2, 1)));
    }
}
