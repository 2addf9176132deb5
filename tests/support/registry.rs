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
    /// Span kinds and attributes by `queue` of the type `image.queue.internal`.
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
            assert_eq!(text(&file, "file_format"), "definition/2");
            for attribute in items(&file, "attributes") {
                registry.add_attribute(attribute);
            }
            for metric in items(&file, "metrics") {
                registry.add_metric(metric);
            }
            for span in items(&file, "spans") {
                registry.add_span(span);
            }
            for event in items(&file, "events") {
                registry.add_event(event);
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
        let manifest = include_str!("../../telemetry-registry/manifest.yaml");
        let manifest: Value = serde_norway::from_str(manifest).unwrap();
        let path = text(&manifest["dependencies"][0], "registry_path");
        let (_, version) = path.split_once("/tags/v").unwrap();
        let version = version.strip_suffix(".zip[model]").unwrap();
        // Weaver takes `error.type` for ambiguous when the imported registry has another URL than its own.
        let schema_url = text(&manifest["dependencies"][0], "schema_url");
        assert_eq!(
            schema_url,
            format!("https://opentelemetry.io/schemas/{version}")
        );
        version.to_owned()
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

    fn add_attribute(&mut self, attribute: &Value) {
        text(attribute, "brief");
        text(attribute, "stability");
        let name = text(attribute, "key");
        let excepted = attribute
            .get("annotations")
            .and_then(|annotations| annotations.get("naming_conventions"))
            .is_some();
        assert_ne!(name.contains('.'), excepted, "the namespace of {name}");
        let before = self.attributes.insert(name, text(attribute, "type"));
        assert_eq!(before, None, "{attribute:?}");
    }

    fn add_metric(&mut self, metric: &Value) {
        let name = text(metric, "name");
        text(metric, "stability");
        let brief = text(metric, "brief");
        assert!(brief.ends_with('.'), "{name}: {brief}");
        let attributes = references(metric);
        for attribute in &attributes {
            let is_known = semconv::HTTP_SERVER.knows(attribute);
            let is_known = is_known || self.attributes.contains_key(attribute);
            assert!(is_known, "{name}: {attribute}");
        }
        let metric = Metric {
            instrument: text(metric, "instrument"),
            unit: text(metric, "unit"),
            brief,
            attributes,
        };
        let before = self.metrics.insert(name, metric);
        assert_eq!(before, None);
    }

    fn add_event(&mut self, event: &Value) {
        text(event, "stability");
        text(event, "brief");
        let before = self.events.insert(text(event, "name"), references(event));
        assert_eq!(before, None, "{event:?}");
    }

    fn add_span(&mut self, span: &Value) {
        let (of_type, kind) = (text(span, "type"), text(span, "kind"));
        text(span, "stability");
        text(span, "brief");
        text(&span["name"], "note");
        let name = of_type.strip_prefix("image.").unwrap();
        let name = name.strip_suffix(&format!(".{kind}"));
        let name = name.unwrap_or_else(|| panic!("{of_type} does not end in {kind}"));
        let semconv = semconv_group(name);
        let attributes = references(span);
        for attribute in &attributes {
            let of_semconv = match semconv {
                Some(semconv) => semconv.knows(attribute),
                None => semconv::HTTP_SERVER.knows(attribute),
            };
            let is_known = of_semconv
                || self.attributes.contains_key(attribute)
                || name == "call" && HTTP_OF_CALLS.contains(&&**attribute);
            assert!(is_known, "{of_type}: {attribute}");
        }
        let before = self.spans.insert(name.to_owned(), (kind, attributes));
        assert_eq!(before, None);
    }
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

fn items<'a>(file: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    let items = file.get(kind).and_then(Value::as_sequence);
    items.into_iter().flatten()
}

fn references(signal: &Value) -> BTreeSet<String> {
    items(signal, "attributes")
        .map(|attribute| text(attribute, "ref"))
        .collect()
}

fn text(value: &Value, key: &str) -> String {
    let text = value[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {value:?}"))
        .to_owned()
}
