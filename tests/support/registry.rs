//! Reads what `telemetry-registry` declares.

use std::collections::{BTreeMap, BTreeSet};

use serde_norway::Value;

use super::semconv::{self, Group};

/// What calls say of HTTP beside semconv's attributes of RPC.
const HTTP_OF_CALLS: [&str; 3] = [
    "http.response.body.size",
    "http.response.status_code",
    "user_agent.original",
];

#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub instrument: String,
    pub unit: String,
    pub brief: String,
    pub attributes: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub struct Registry {
    /// Attribute names and types.
    pub attributes: BTreeMap<String, String>,
    pub metrics: BTreeMap<String, Metric>,
    /// Span kinds and attributes by the last part of the group's id.
    pub spans: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Names of log records that are events, and their attributes.
    pub events: BTreeMap<String, BTreeSet<String>>,
    /// Metrics, entities and events of semconv.
    pub imports: BTreeSet<String>,
}

impl Registry {
    pub fn read() -> Self {
        let mut registry = Self::default();
        for file in [
            include_str!("../../telemetry-registry/attributes.yaml"),
            include_str!("../../telemetry-registry/events.yaml"),
            include_str!("../../telemetry-registry/metrics.yaml"),
            include_str!("../../telemetry-registry/resource.yaml"),
            include_str!("../../telemetry-registry/spans.yaml"),
        ] {
            let file: Value = serde_norway::from_str(file).unwrap();
            for group in file["groups"].as_sequence().unwrap() {
                registry.add(group);
            }
            for kind in ["metrics", "entities", "events"] {
                let names = file.get("imports").and_then(|imports| imports.get(kind));
                for name in names.and_then(Value::as_sequence).into_iter().flatten() {
                    let name = name.as_str().unwrap().to_owned();
                    assert!(registry.imports.insert(name.clone()), "{name} twice");
                }
            }
        }
        registry
    }

    /// The version of semconv that the registry imports from.
    pub fn semconv_version() -> String {
        let manifest = include_str!("../../telemetry-registry/registry_manifest.yaml");
        let manifest: Value = serde_norway::from_str(manifest).unwrap();
        let path = text(&manifest["dependencies"][0], "registry_path");
        let (_, version) = path.split_once("/tags/v").unwrap();
        version.strip_suffix(".zip[model]").unwrap().to_owned()
    }

    /// Fails when a span of this group has an undeclared attribute, or lacks a required one of semconv.
    pub fn check_span<'a>(&self, group: &str, keys: impl IntoIterator<Item = &'a str> + Clone) {
        let (_, declared) = &self.spans[group];
        for key in keys.clone() {
            assert!(declared.contains(key), "{key} of {group} is undeclared");
        }
        if let Some(semconv) = semconv_group(group) {
            let of_semconv = keys.into_iter().filter(|key| semconv.knows(key));
            semconv.check_attributes(group, of_semconv);
        }
    }

    fn add(&mut self, group: &Value) {
        let id = text(group, "id");
        let before = match text(group, "type").as_str() {
            "attribute_group" => {
                for attribute in group["attributes"].as_sequence().unwrap() {
                    text(attribute, "brief");
                    text(attribute, "stability");
                    let name = text(attribute, "id");
                    let before = self.attributes.insert(name, text(attribute, "type"));
                    assert_eq!(before, None, "{attribute:?}");
                }
                return;
            }
            "metric" => {
                let name = text(group, "metric_name");
                assert_eq!(id, format!("metric.{name}"));
                let metric = Metric {
                    instrument: text(group, "instrument"),
                    unit: text(group, "unit"),
                    brief: text(group, "brief"),
                    attributes: references(group),
                };
                self.metrics.insert(name, metric).is_some()
            }
            "span" => {
                let kind = text(group, "span_kind");
                let name = span_name(&id).unwrap().to_owned();
                assert!(id.ends_with(&format!(".{kind}")), "{id}");
                self.spans.insert(name, (kind, references(group))).is_some()
            }
            "event" => {
                let name = text(group, "name");
                assert_eq!(id, format!("event.{name}"));
                text(group, "stability");
                let before = self.events.insert(name, references(group));
                assert_eq!(before, None, "{id} twice");
                return;
            }
            other => panic!("{other} is no type of a group"),
        };
        assert!(!before, "{id} twice");
        text(group, "stability");
        let semconv = span_name(&id).and_then(semconv_group);
        for name in references(group) {
            let of_semconv = match semconv {
                Some(semconv) => semconv.knows(&name),
                None => semconv::HTTP_SERVER.knows(&name),
            };
            let is_known = of_semconv
                || self.attributes.contains_key(&name)
                || span_name(&id) == Some("call") && HTTP_OF_CALLS.contains(&&*name);
            assert!(is_known, "{id}: {name}");
        }
    }
}

/// `queue` of `span.image.queue.internal`.
fn span_name(id: &str) -> Option<&str> {
    let (name, _) = id.strip_prefix("span.image.")?.rsplit_once('.')?;
    Some(name)
}

/// The span of semconv that a group extends.
fn semconv_group(group: &str) -> Option<&'static Group> {
    match group {
        "request" => Some(&semconv::HTTP_SERVER),
        "call" => Some(&semconv::GRPC_SERVER),
        "attempt" => Some(&semconv::HTTP_CLIENT),
        _ => None,
    }
}

fn references(group: &Value) -> BTreeSet<String> {
    let attributes = group.get("attributes").and_then(Value::as_sequence);
    attributes
        .into_iter()
        .flatten()
        .map(|attribute| text(attribute, "ref"))
        .collect()
}

fn text(value: &Value, key: &str) -> String {
    let text = value[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {value:?}"))
        .to_owned()
}
