//! Reads what `telemetry-registry` declares.

use std::collections::{BTreeMap, BTreeSet};

use serde_norway::Value;

#[derive(Debug, PartialEq)]
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
}

impl Registry {
    pub fn read() -> Self {
        let mut registry = Self::default();
        for file in [
            include_str!("../../telemetry-registry/attributes.yaml"),
            include_str!("../../telemetry-registry/metrics.yaml"),
            include_str!("../../telemetry-registry/spans.yaml"),
        ] {
            let file: Value = serde_norway::from_str(file).unwrap();
            for group in file["groups"].as_sequence().unwrap() {
                registry.add(group);
            }
        }
        registry
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
                let name = id.strip_prefix("span.image.").unwrap().to_owned();
                let span = (text(group, "span_kind"), references(group));
                self.spans.insert(name, span).is_some()
            }
            other => panic!("{other} is no type of a group"),
        };
        assert!(!before, "{id} twice");
        text(group, "stability");
        for name in references(group) {
            assert!(self.attributes.contains_key(&name), "{id}: {name}");
        }
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
