//! Every format answers as the reference propagators do: `tests/vectors/propagation.json`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::KeyValue;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use serde_json::Value;
use tower_image_trace::propagation::{Propagator, Propagators};

/// Rows that are answered otherwise than Go does, with the clause of the format's specification
/// that says so, and the answer: what differs from the row's `want`.
const DEVIATIONS: &[(&[&str], &str, &str)] = &[];

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/propagation.json")).unwrap()
}

/// Header lines as they are, names compared without case.
struct Lines(Vec<(String, String)>);

impl Lines {
    fn of(row: &Value) -> Self {
        let line = |line: &Value| {
            let text = |index: usize| line[index].as_str().unwrap().to_owned();
            (text(0), text(1))
        };
        Self(
            row["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(line)
                .collect(),
        )
    }

    /// As HTTP carries them, `None` when it cannot.
    fn to_headers(&self) -> Option<HeaderMap> {
        let line = |(name, value): &(String, String)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
        };
        let lines: Option<Vec<_>> = self.0.iter().map(line).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in lines? {
            headers.append(name, value);
        }
        Some(headers)
    }
}

impl Extractor for Lines {
    fn get(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.iter();
        let line = lines.find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        Some(&line.1)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let lines = self
            .0
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(key));
        Some(lines.map(|(_, value)| value.as_str()).collect())
    }
}

/// Written headers, by name in lower case.
#[derive(Debug, Default, PartialEq)]
struct Written(BTreeMap<String, String>);

impl Injector for Written {
    fn set(&mut self, name: &str, value: String) {
        assert_eq!(name, name.to_lowercase(), "names are sent in lower case");
        self.0
            .insert(name.to_owned(), sorted_if_baggage(name, value));
    }
}

/// Go has no order in baggage.
fn sorted_if_baggage(name: &str, value: String) -> String {
    if name != "baggage" {
        return value;
    }
    let mut members: Vec<_> = value.split(',').collect();
    members.sort_unstable();
    members.join(",")
}

fn written(want: &Value) -> Written {
    let entry = |(name, value): (&String, &Value)| {
        let name = name.to_lowercase();
        let value = sorted_if_baggage(&name, value.as_str().unwrap().to_owned());
        (name, value)
    };
    Written(want.as_object().unwrap().iter().map(entry).collect())
}

/// The fields of a row's `want`, from a context.
fn describe(propagators: &Propagators, cx: &Context) -> Value {
    let span = cx.span();
    let span = span.span_context();
    let of_valid = |value: Value| if span.is_valid() { value } else { Value::Null };
    let baggage: BTreeMap<_, _> = cx
        .baggage()
        .iter()
        .map(|(key, (value, _))| (key.as_str(), value.as_str()))
        .collect();
    let mut reinjected = Written::default();
    propagators.inject_context(cx, &mut reinjected);
    serde_json::json!({
        "valid": span.is_valid(),
        "trace_id": of_valid(span.trace_id().to_string().into()),
        "span_id": of_valid(span.span_id().to_string().into()),
        "flags": of_valid(span.trace_flags().to_u8().into()),
        "sampled": of_valid(span.is_sampled().into()),
        "tracestate": span.trace_state().header(),
        "baggage": baggage,
        "reinjected": reinjected.0,
    })
}

fn propagators(row: &Value) -> Propagators {
    let format: Propagator = row["format"].as_str().unwrap().parse().unwrap();
    match row["encoding"].as_str() {
        Some("multi") => Propagators::new([Propagator::B3Multi]),
        Some("multi+single") => Propagators::new([Propagator::B3, Propagator::B3Multi]),
        _ => Propagators::new([format]),
    }
}

fn context(row: &Value) -> Context {
    let context = &row["context"];
    let text = |key: &str| context[key].as_str().unwrap_or_default();
    let baggage = context["baggage"].as_object().unwrap().iter();
    Context::new()
        .with_remote_span_context(SpanContext::new(
            TraceId::from_hex(text("trace_id")).unwrap(),
            SpanId::from_hex(text("span_id")).unwrap(),
            TraceFlags::new(context["flags"].as_u64().unwrap() as u8),
            false,
            text("tracestate").parse::<TraceState>().unwrap(),
        ))
        .with_baggage(
            baggage
                .map(|(key, value)| KeyValue::new(key.clone(), value.as_str().unwrap().to_owned())),
        )
}

#[test]
fn extraction_answers_as_go_or_as_the_specification() {
    let mut failed = Vec::new();
    for row in vectors()["vectors"].as_array().unwrap() {
        if row["direction"] != "extract" {
            continue;
        }
        let id = row["id"].as_str().unwrap();
        let propagators = propagators(row);
        let lines = Lines::of(row);
        let cx = propagators.extract(&lines);
        let mut want = row["want"].clone();
        want["reinjected"] = serde_json::json!(written(&want["reinjected"]).0);
        let got = describe(&propagators, &cx);
        if let Some(headers) = lines.to_headers() {
            let cx = propagators.extract_headers(&Context::new(), &headers);
            assert_eq!(
                describe(&propagators, &cx),
                got,
                "{id}: by either way the same"
            );
        }
        if got != want {
            failed.push(format!(
                "{id} {} {} {}\n   want {want}\n   got  {got}",
                row["tier"], row["note"], row["headers"]
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn injection_answers_as_go_or_as_the_specification() {
    let mut failed = Vec::new();
    for row in vectors()["vectors"].as_array().unwrap() {
        if row["direction"] != "inject" {
            continue;
        }
        let mut got = Written::default();
        propagators(row).inject_context(&context(row), &mut got);
        let want = written(&row["want"]["headers"]);
        if got != want {
            failed.push(format!(
                "{} {} {} \n   want {want:?}\n   got  {got:?}",
                row["id"], row["tier"], row["context"]
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
