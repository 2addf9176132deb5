//! What lies in `dashboards/` can be read, and asks for metrics that exist.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use serde_norway::Value as Yaml;

use crate::support::registry::Registry;

/// What the dashboard shows besides the crate's own metrics: semconv's names, as Prometheus has them.
const SEMCONV: [&str; 3] = [
    "http_server_request_duration_seconds",
    "process_cpu_time_seconds_total",
    "process_memory_usage_bytes",
];

/// The name that Prometheus gives a metric that it receives over OTLP: with unit and type at its end.
fn prometheus_name(name: &str, unit: &str, instrument: &str) -> String {
    let mut name = name.replace('.', "_");
    let unit = match (unit, instrument) {
        ("By", _) => "bytes",
        ("s", _) => "seconds",
        ("%", _) => "percent",
        ("1", "gauge") => "ratio",
        _ => "",
    };
    if !unit.is_empty() && !name.ends_with(unit) {
        name = format!("{name}_{unit}");
    }
    if instrument == "counter" && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let registry = Registry::read();
    let mut known: BTreeSet<String> = SEMCONV.map(str::to_owned).into();
    for (name, metric) in &registry.metrics {
        known.insert(prometheus_name(name, &metric.unit, &metric.instrument));
    }

    let dashboard: Json = serde_json::from_str(include_str!("../dashboards/grafana.json")).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let metrics: Vec<&str> = words
                .map(|word| word.trim_end_matches("_bucket"))
                .map(|word| match known.contains(word) {
                    true => word,
                    false => word.trim_end_matches("_count"),
                })
                .filter(|word| known.contains(*word))
                .collect();
            assert_eq!(metrics.len(), 1, "{expression}");
            shown.insert(metrics[0].to_owned());
        }
    }
    for metric in [
        "http_server_request_duration_seconds",
        "request_span_duration_seconds",
        "requests_in_progress",
        "workers_utilization_percent",
        "errors_total",
        "process_memory_usage_bytes",
        "vips_memory_bytes",
    ] {
        assert!(shown.contains(metric), "no panel shows {metric}");
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
