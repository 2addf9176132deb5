//! What lies in `dashboards/` can be read, and asks for metrics that exist.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use serde_norway::Value as Yaml;

use crate::support::{registry::Registry, semconv};

/// The name that Prometheus gives a metric, whether it is pulled or pushed: with unit and type at its end.
fn prometheus_name(name: &str, unit: &str, instrument: &str) -> String {
    let mut name = name.replace('.', "_");
    let unit = match (unit, instrument) {
        ("By", _) => "bytes",
        ("s", _) => "seconds",
        ("%", _) => "percent",
        ("1", "gauge") => "ratio",
        _ => "",
    };
    if !unit.is_empty() && !name.split('_').any(|word| word == unit) {
        name = format!("{name}_{unit}");
    }
    if instrument == "counter" && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

/// The crate's own metrics and those of semconv, as Prometheus has them.
fn known_metrics() -> BTreeSet<String> {
    let registry = Registry::read();
    let own = registry.metrics.iter();
    let own = own.map(|(name, metric)| prometheus_name(name, &metric.unit, &metric.instrument));
    let semconv = semconv::METRICS.iter();
    own.chain(semconv.map(|metric| prometheus_name(metric.name, metric.unit, metric.instrument)))
        .collect()
}

/// The metrics that an expression asks for.
fn metrics_in<'a>(expression: &'a str, known: &BTreeSet<String>) -> BTreeSet<&'a str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter_map(|word| {
            let suffixes = ["", "_bucket", "_sum", "_count"];
            let mut names = suffixes
                .iter()
                .filter_map(|suffix| word.strip_suffix(suffix));
            names.find(|name| known.contains(*name))
        })
        .collect()
}

#[test]
fn the_dashboards_ask_for_metrics_that_exist_and_show_all_of_them() {
    let known = known_metrics();
    let mut shown = BTreeSet::new();
    for file in [
        include_str!("../dashboards/grafana.json"),
        include_str!("../dashboards/grafana-libvips.json"),
    ] {
        let dashboard: Json = serde_json::from_str(file).unwrap();
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let variables: Vec<_> = variables
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(variables, ["datasource", "job", "instance"]);
        for panel in dashboard["panels"].as_array().unwrap() {
            assert_eq!(panel["options"]["legend"]["showLegend"], true, "{panel}");
            assert_eq!(panel["options"]["tooltip"]["mode"], "multi", "{panel}");
            assert!(panel["description"].as_str().is_some(), "{panel}");
            for target in panel["targets"].as_array().unwrap() {
                let expression = target["expr"].as_str().unwrap();
                assert!(
                    expression.contains(r#"{job=~"$job",instance=~"$instance"}"#),
                    "{expression}"
                );
                let metrics = metrics_in(expression, &known);
                assert_eq!(metrics.len(), 1, "{expression}");
                shown.extend(metrics.into_iter().map(str::to_owned));
            }
        }
    }
    let is_elsewhere = |name: &str| {
        let of_imgproxy = [
            "requests_total",
            "status_codes_total",
            "request_duration_seconds",
        ];
        let rarely_asked = [
            "http_server_request_body_size_bytes",
            "rpc_server_call_duration_seconds",
            "otel_sdk_processor_span_processed_total",
            "otel_sdk_processor_span_queue_capacity",
        ];
        of_imgproxy.contains(&name) || rarely_asked.contains(&name) || name.contains("_log_")
    };
    let unseen: Vec<_> = known
        .difference(&shown)
        .filter(|name| !is_elsewhere(name))
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}

#[test]
fn the_alerts_ask_for_metrics_that_exist() {
    let known = known_metrics();
    let rules: Yaml = serde_norway::from_str(include_str!("../dashboards/rules.yaml")).unwrap();
    for rule in rules["groups"][0]["rules"].as_sequence().unwrap() {
        let expression = rule["expr"].as_str().unwrap();
        let is_of_all = expression.contains("__name__");
        assert!(
            is_of_all || !metrics_in(expression, &known).is_empty(),
            "{expression}"
        );
    }
}

#[test]
fn the_collector_sends_what_it_receives_to_services_that_run() {
    let collector: Yaml =
        serde_norway::from_str(include_str!("../dashboards/otel-collector.yaml")).unwrap();
    let compose: Yaml = serde_norway::from_str(include_str!("../dashboards/compose.yaml")).unwrap();
    let services = compose["services"].as_mapping().unwrap();

    for signal in ["traces", "metrics"] {
        let pipeline = &collector["service"]["pipelines"][signal];
        for part in ["receivers", "processors", "exporters"] {
            for name in pipeline[part].as_sequence().unwrap() {
                assert!(collector[part].get(name).is_some(), "{signal}: {name:?}");
            }
        }
    }
    for (name, exporter) in collector["exporters"].as_mapping().unwrap() {
        let endpoint = exporter["endpoint"].as_str().unwrap();
        let host = endpoint.trim_start_matches("http://");
        let (host, _) = host.split_once(':').unwrap();
        assert!(services.contains_key(host), "{name:?} sends to {host}");
    }
    for (name, service) in services {
        let (_, version) = service["image"].as_str().unwrap().rsplit_once(':').unwrap();
        let pinned = version.trim_start_matches('v').split('.');
        assert!(pinned.clone().count() == 3, "{name:?}: {version}");
        assert!(pinned.into_iter().all(|part| part.parse::<u32>().is_ok()));
        for file in service
            .get("volumes")
            .and_then(Yaml::as_sequence)
            .into_iter()
            .flatten()
        {
            let file = file.as_str().unwrap().trim_start_matches("./");
            let (file, _) = file.split_once(':').unwrap();
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/");
            assert!(
                std::fs::exists(format!("{folder}{file}")).unwrap(),
                "{file}"
            );
        }
    }
}
