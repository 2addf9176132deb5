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

/// Rows that are answered otherwise than Go does: the clause of the format's specification that
/// says so, and what of the row's `want` changes.
const DEVIATIONS: &[(&[&str], &str, &str)] = &[
    (
        &["tracecontext/extract/045", "tracecontext/extract/047"],
        "Trace Context §3.2.2.5: a bit field, of which the bits that are not defined are sent as \
         zero; a flag that is reserved does not make a version 00 header invalid, or `random` \
         could not have been added",
        r#"{ "valid": true, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
             "span_id": "00f067aa0ba902b7", "flags": 0, "sampled": false,
             "reinjected": { "traceparent":
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00" } }"#,
    ),
    (
        &["tracecontext/extract/049"],
        "the same: §3.2.2.5 has `09` as its own example of a header with `sampled`",
        r#"{ "valid": true, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
             "span_id": "00f067aa0ba902b7", "flags": 1, "sampled": true,
             "reinjected": { "traceparent":
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" } }"#,
    ),
    (
        &["tracecontext/extract/053"],
        "the same",
        r#"{ "valid": true, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
             "span_id": "00f067aa0ba902b7", "flags": 3, "sampled": true,
             "reinjected": { "traceparent":
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03" } }"#,
    ),
    (
        &["tracecontext/extract/114", "tracecontext/extract/115"],
        "RFC 9110 §5.5: white space around a field value is not part of it, and the W3C test \
         `traceparent_ows_handling` wants the parent",
        r#"{ "valid": true, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
             "span_id": "00f067aa0ba902b7", "flags": 1, "sampled": true,
             "reinjected": { "traceparent":
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" } }"#,
    ),
    (
        &["tracecontext/extract/116"],
        "Trace Context §3.2.2.2: version 00 ends after the flags",
        r#"{ "valid": false, "trace_id": null, "span_id": null, "flags": null, "sampled": null,
             "reinjected": {} }"#,
    ),
    (
        &["tracecontext/extract/145"],
        "Trace Context §3.3.1: several tracestate lines are one list",
        r#"{ "tracestate": "a=1,b=2",
             "reinjected": { "tracestate": "a=1,b=2", "traceparent":
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" } }"#,
    ),
    (
        &["tracecontext/extract/146"],
        "Trace Context §3.2: traceparent is one value, and the W3C test `traceparent_duplicated` \
         wants a new trace; a carrier that knows only the first line gets what the row wants, below",
        r#"{ "valid": false, "trace_id": null, "span_id": null, "flags": null, "sampled": null,
             "reinjected": {} }"#,
    ),
    (
        &[
            "xray/extract/120",
            "xray/extract/121",
            "xray/extract/123",
            "xray/extract/124",
            "xray/extract/126",
        ],
        "faults B5: senders put spaces after the semicolons, and AWS's SDK for Java reads them so; a \
         part that is empty says nothing",
        r#"{ "valid": true, "trace_id": "8a3c60f7d188f8fa79d48a391a778fa6",
             "span_id": "53995c3f42cd8ad8", "flags": 1, "sampled": true,
             "reinjected": { "x-amzn-trace-id":
                "Root=1-8a3c60f7-d188f8fa79d48a391a778fa6;Parent=53995c3f42cd8ad8;Sampled=1" } }"#,
    ),
    (
        &["xray/extract/030"],
        "the same",
        r#"{ "flags": 1, "sampled": true, "reinjected": { "x-amzn-trace-id":
             "Root=1-8a3c60f7-d188f8fa79d48a391a778fa6;Parent=53995c3f42cd8ad8;Sampled=1" } }"#,
    ),
    (
        &["xray/extract/179", "xray/extract/181"],
        "AWS X-Ray, tracing header: the fields are named Root, Parent and Sampled; Go takes every \
         name that begins so",
        r#"{ "valid": false, "trace_id": null, "span_id": null, "flags": null, "sampled": null,
             "reinjected": {} }"#,
    ),
    (
        &["xray/extract/180"],
        "the same",
        r#"{ "flags": 0, "sampled": false, "reinjected": { "x-amzn-trace-id":
             "Root=1-8a3c60f7-d188f8fa79d48a391a778fa6;Parent=53995c3f42cd8ad8;Sampled=0" } }"#,
    ),
];

/// W3C Baggage §3.3.2 allows 64 members. Go keeps any 64 of 200, here it is the first ones.
const ANY_64_MEMBERS: &str = "ottrace/extract/143";

/// The row's `want`, with what [`DEVIATIONS`] says of it.
fn expected(row: &Value) -> Value {
    let mut want = row["want"].clone();
    want["reinjected"] = serde_json::json!(written(&want["reinjected"]).0);
    for (rows, _, changes) in DEVIATIONS {
        if rows.contains(&row["id"].as_str().unwrap()) {
            let changes: Value = serde_json::from_str(changes).unwrap();
            for (key, value) in changes.as_object().unwrap() {
                assert_ne!(want[key], *value, "{rows:?}: no deviation");
                want[key] = value.clone();
            }
        }
    }
    want
}

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
        self.0
            .insert(name.to_lowercase(), sorted_if_baggage(name, value));
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

fn rows(list: &str, direction: &str) -> Vec<Value> {
    let mut vectors = vectors();
    let rows = std::mem::take(vectors[list].as_array_mut().unwrap());
    let chosen: Vec<_> = rows
        .into_iter()
        .filter(|row| row["direction"] == direction)
        .collect();
    assert!(!chosen.is_empty());
    chosen
}

#[test]
fn extraction_answers_as_go_or_as_the_specification() {
    for row in rows("vectors", "extract") {
        let propagators = propagators(&row);
        let lines = Lines::of(&row);
        let got = describe(&propagators, &propagators.extract(&lines));
        if row["id"] == ANY_64_MEMBERS {
            assert_eq!(got["baggage"].as_object().unwrap().len(), 64);
            continue;
        }
        assert_eq!(got, expected(&row), "{row:#}");
        if let Some(headers) = lines.to_headers() {
            let cx = propagators.extract_headers(&Context::new(), &headers);
            assert_eq!(describe(&propagators, &cx), got, "{row:#}");
        }
    }
}

#[test]
fn a_carrier_that_knows_only_the_first_line_gets_the_first_parent() {
    /// Without `get_all`, like the carriers of other protocols.
    struct FirstLine(Lines);

    impl Extractor for FirstLine {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys()
        }
    }

    for row in rows("vectors", "extract") {
        if row["wire"] == "duplicate" && row["tier"] == "must" {
            let propagators = propagators(&row);
            let cx = propagators.extract(&FirstLine(Lines::of(&row)));
            let mut want = row["want"].clone();
            want["reinjected"] = serde_json::json!(written(&want["reinjected"]).0);
            assert_eq!(describe(&propagators, &cx), want, "{row:#}");
        }
    }
}

#[test]
fn injection_answers_as_go() {
    for row in rows("vectors", "inject") {
        let propagators = propagators(&row);
        let cx = context(&row);
        let mut got = Written::default();
        propagators.inject_context(&cx, &mut got);
        assert_eq!(got, written(&row["want"]["headers"]), "{row:#}");

        let mut headers = HeaderMap::new();
        propagators.inject_headers(&cx, &mut headers);
        for (name, value) in &got.0 {
            // A line break is what HTTP cannot carry.
            let want = (!value.contains('\n')).then_some(value.clone());
            let got = headers.get(name).map(|value| value.as_bytes().to_vec());
            let got = got.map(|value| sorted_if_baggage(name, String::from_utf8(value).unwrap()));
            assert_eq!(got, want, "{row:#}");
        }
    }
}

#[test]
fn extraction_answers_as_gos_own_tables() {
    for row in rows("reference_tables", "extract") {
        let propagators = propagators(&row);
        let cx = propagators.extract(&Lines::of(&row));
        let got = describe(&propagators, &cx);
        let want = &row["want"];
        for key in ["valid", "trace_id", "span_id", "sampled", "baggage"] {
            assert_eq!(got[key], want[key], "{key} of {row:#}");
        }
        let mut written = Written::default();
        match row["format"].as_str().unwrap() {
            "b3" | "b3multi" => {
                Propagator::B3Multi.inject_context(&cx, &mut written);
                let debug = written.0.contains_key("x-b3-flags");
                let deferred = !debug && !written.0.contains_key("x-b3-sampled");
                assert_eq!(want["debug"], debug, "{row:#}");
                assert_eq!(want["deferred"], deferred, "{row:#}");
            }
            "jaeger" => {
                Propagator::Jaeger.inject_context(&cx, &mut written);
                let debug = written.0.values().any(|value| value.ends_with(":3"));
                assert_eq!(want["debug"], debug, "{row:#}");
            }
            _ => assert!(want["debug"].is_null(), "{row:#}"),
        }
    }
}

/// The `absent` lists are left aside: they name headers that the same row wants. Go's test looks
/// them up by a name that is never in its map.
#[test]
fn injection_answers_as_gos_own_tables() {
    for row in rows("reference_tables", "inject") {
        let ids = &row["context"];
        let ids_text = format!("{}-{}", ids["trace_id"], ids["span_id"]).replace('"', "");
        let b3 = |text| Lines(vec![("b3".to_owned(), text)]);
        // Nothing but a header sets these two.
        let cx = match (ids["debug"] == true, ids["deferred"] == true) {
            (true, _) => Propagator::B3.extract(&b3(ids_text + "-d")),
            (_, true) => Propagator::B3.extract(&b3(ids_text)),
            _ => context(&row),
        };
        let mut got = Written::default();
        propagators(&row).inject_context(&cx, &mut got);
        for (name, value) in written(&row["want"]["headers"]).0 {
            assert_eq!(got.0.get(&name), Some(&value), "{row:#}");
        }
    }
}
