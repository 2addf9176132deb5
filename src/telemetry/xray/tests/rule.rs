//! The published cases of the SDKs for Go and Java, as tables, and what a rule decides over time.

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TraceId};
use opentelemetry_sdk::Resource;
use serde_json::{Value as Json, json};

use super::super::{
    attributes::{RootSpan, Service},
    rule::Rule,
};

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
    let all = json!({"Host": "localhost", "HTTPMethod": "GET", "URLPath": "http://127.0.0.1:2000"});
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
