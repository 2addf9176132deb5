//! Traces as the browser gets them.

use std::collections::{HashMap, HashSet};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde_json::{Value, json};

use super::{
    Page, millis,
    query::{Query, outcome_name},
    store::Sample,
};
use crate::{
    attribute::ERROR_TYPE,
    telemetry::{Batch, message},
};

/// The parts of a row's small waterfall.
const MOST_PARTS: usize = 24;

/// A sample that is decoded: its spans below each other, each after its parent and by their start.
pub(super) struct Decoded<'a> {
    sample: &'a Sample,
    spans: Vec<Placed>,
}

struct Placed {
    span: Span,
    depth: usize,
    scope: String,
}

impl<'a> Decoded<'a> {
    pub(super) fn of(page: &Page, sample: &'a Sample) -> Self {
        let spans = sample.trace.spans();
        let spans = spans.filter_map(|(part, entry)| {
            let span = Span::decode(message(entry)).ok()?;
            let scope = page.gathered.scope(part);
            Some((span, scope.map_or("", |scope| scope.name()).to_owned()))
        });
        Self {
            sample,
            spans: in_order(spans.collect()),
        }
    }

    pub(super) fn root(&self) -> Option<&Span> {
        let id = self.sample.root.to_bytes();
        let mut spans = self.spans.iter().map(|placed| &placed.span);
        spans.find(|span| span.span_id == id)
    }

    /// Since the start of the request, in milliseconds.
    fn at(&self, nanos: u64) -> f64 {
        let start = self.root().map_or(0, |root| root.start_time_unix_nano);
        (i128::from(nanos) - i128::from(start)) as f64 / 1e6
    }

    /// The message of the first error: of the root, or else of the span that began first.
    fn message(&self) -> Option<&str> {
        let root = self.root().into_iter();
        let spans = root.chain(self.spans.iter().map(|placed| &placed.span));
        spans
            .filter(|span| is_failed(span))
            .filter_map(|span| span.status.as_ref())
            .map(|status| status.message.as_str())
            .find(|message| !message.is_empty())
    }

    /// What a list says of the trace, and what the trace says of itself first.
    pub(super) fn row(&self, page: &Page) -> Value {
        let sample = self.sample;
        let attributes = self.root().map_or(&[][..], |root| &root.attributes);
        let find = |key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key == key);
            found.map_or(Value::Null, |found| value(found.value.as_ref()))
        };
        let parts = self.spans.iter().filter(|placed| placed.depth > 0);
        let parts: Vec<_> = parts
            .take(MOST_PARTS)
            .map(|Placed { span, depth, .. }| {
                json!({
                    "name": span.name,
                    "start_ms": self.at(span.start_time_unix_nano),
                    "duration_ms": duration(span),
                    "failed": is_failed(span),
                    "depth": depth,
                })
            })
            .collect();
        let status = match find("http.response.status_code") {
            Value::Null => find("rpc.response.status_code"),
            status => status,
        };
        json!({
            "trace_id": sample.trace_id.to_string(),
            "name": self.root().map_or(&*sample.route.name, |root| &root.name),
            "method": find("http.request.method"),
            "path": find("url.path"),
            "route": find("http.route"),
            "status": status,
            "outcome": outcome_name(sample.outcome),
            "error_type": find(ERROR_TYPE),
            "message": self.message(),
            "started_at": millis(sample.started_at),
            "duration_ms": sample.duration.as_secs_f64() * 1e3,
            "band": sample.band(),
            "exported": sample.is_kept && page.is_exporting,
            "kept": sample.reason,
            "spans": parts,
        })
    }

    /// Everything that is held of the trace.
    pub(super) fn whole(&self, page: &Page) -> Value {
        let mut whole = self.row(page);
        whole["spans"] = self.spans.iter().map(|placed| self.span(placed)).collect();
        whole["logs"] = self.lines();
        whole["left_out"] = self.sample.left_out.into();
        let running = page.running.now();
        let mut running = running.iter();
        whole["running"] = running
            .any(|request| request.trace_id() == self.sample.trace_id)
            .into();
        whole
    }

    fn span(&self, Placed { span, depth, scope }: &Placed) -> Value {
        let events = span.events.iter().map(|event| {
            json!({
                "name": event.name,
                "at_ms": self.at(event.time_unix_nano),
                "attributes": pairs(&event.attributes),
            })
        });
        let links = span
            .links
            .iter()
            .map(|link| json!({ "trace_id": hex(&link.trace_id), "span_id": hex(&link.span_id) }));
        let status = span.status.as_ref();
        json!({
            "span_id": hex(&span.span_id),
            "parent_id": (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
            "name": span.name,
            "kind": kind(span),
            "start_ms": self.at(span.start_time_unix_nano),
            "duration_ms": duration(span),
            "depth": depth,
            "status": match status.map(|status| status.code()) {
                Some(StatusCode::Ok) => "ok",
                Some(StatusCode::Error) => "error",
                _ => "unset",
            },
            "message": status.map(|status| &status.message).filter(|text| !text.is_empty()),
            "attributes": pairs(&span.attributes),
            "events": events.collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
            "scope": scope,
        })
    }

    #[cfg(feature = "logs")]
    fn lines(&self) -> Value {
        use opentelemetry_proto::tonic::logs::v1::LogRecord;

        let lines = self.sample.trace.lines().iter().filter_map(|line| {
            let record = LogRecord::decode(message(&line.entry)).ok()?;
            let time = match record.time_unix_nano {
                0 => record.observed_time_unix_nano,
                time => time,
            };
            Some(json!({
                "at_ms": self.at(time),
                "severity": record.severity_text,
                "target": line.target,
                "body": value(record.body.as_ref()),
                "attributes": pairs(&record.attributes),
                "span_id": (!record.span_id.is_empty()).then(|| hex(&record.span_id)),
            }))
        });
        lines.collect()
    }

    #[cfg(not(feature = "logs"))]
    fn lines(&self) -> Value {
        json!([])
    }

    /// Whether all words are in the trace.
    fn has(&self, words: &[String]) -> bool {
        let mut text = self.sample.trace_id.to_string();
        let mut add = |part: &str| {
            text.push('\n');
            text.push_str(&part.to_lowercase());
        };
        for Placed { span, .. } in &self.spans {
            add(&span.name);
            if let Some(status) = &span.status {
                add(&status.message);
            }
            let of_events = span.events.iter().flat_map(|event| &event.attributes);
            for attribute in span.attributes.iter().chain(of_events) {
                match value(attribute.value.as_ref()) {
                    Value::String(value) => add(&value),
                    other => add(&other.to_string()),
                }
            }
        }
        words.iter().all(|word| text.contains(word))
    }
}

/// `GET api/traces`
pub(super) fn list(page: &Page, query: &Query) -> Value {
    let (mut rows, mut matched) = (Vec::new(), 0);
    for sample in page.store.newest_first() {
        if !query.matches(&sample) || rows.len() == query.limit && query.words.is_empty() {
            matched += usize::from(query.matches(&sample));
            continue;
        }
        let trace = Decoded::of(page, &sample);
        if !trace.has(&query.words) {
            continue;
        }
        matched += 1;
        if rows.len() < query.limit {
            rows.push(trace.row(page));
        }
    }
    json!({ "traces": rows, "matched": matched })
}

/// The trace as OTLP JSON, the body of an export request.
pub(super) fn otlp(page: &Page, sample: &Sample) -> Option<Vec<u8>> {
    let mut batch = Batch::default();
    let unknown = opentelemetry::InstrumentationScope::default();
    for (part, entry) in sample.trace.spans() {
        let scope = page.gathered.scope(part).unwrap_or(&unknown);
        batch.push(scope, None, entry);
    }
    let request = batch.request(&page.resource, 0);
    let request = ExportTraceServiceRequest::decode(request.as_slice()).ok()?;
    serde_json::to_vec(&request).ok()
}

/// Each span after its parent, with its depth; those on one level by their start.
fn in_order(mut spans: Vec<(Span, String)>) -> Vec<Placed> {
    spans.sort_by_key(|(span, _)| {
        (
            span.start_time_unix_nano,
            std::cmp::Reverse(span.end_time_unix_nano),
        )
    });
    let ids: HashSet<Vec<u8>> = spans.iter().map(|(span, _)| span.span_id.clone()).collect();
    let mut children: HashMap<Vec<u8>, Vec<(Span, String)>> = HashMap::new();
    let mut open = Vec::new();
    for (span, scope) in spans {
        match ids.contains(&span.parent_span_id) && span.parent_span_id != span.span_id {
            true => children
                .entry(span.parent_span_id.clone())
                .or_default()
                .push((span, scope)),
            false => open.push((span, scope, 0)),
        }
    }
    open.reverse();
    let mut placed = Vec::new();
    while let Some((span, scope, depth)) = open.pop() {
        let below = children.remove(&span.span_id).unwrap_or_default();
        let below = below.into_iter().rev();
        open.extend(below.map(|(span, scope)| (span, scope, depth + 1)));
        placed.push(Placed { span, depth, scope });
    }
    placed
}

fn is_failed(span: &Span) -> bool {
    let status = span.status.as_ref();
    status.is_some_and(|status| status.code() == StatusCode::Error)
}

fn duration(span: &Span) -> f64 {
    let nanos = span
        .end_time_unix_nano
        .saturating_sub(span.start_time_unix_nano);
    nanos as f64 / 1e6
}

fn kind(span: &Span) -> &'static str {
    match span.kind() {
        SpanKind::Unspecified => "UNSPECIFIED",
        SpanKind::Internal => "INTERNAL",
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
        SpanKind::Producer => "PRODUCER",
        SpanKind::Consumer => "CONSUMER",
    }
}

fn pairs(attributes: &[KeyValue]) -> Value {
    let pair = |attribute: &KeyValue| json!([attribute.key, value(attribute.value.as_ref())]);
    attributes.iter().map(pair).collect()
}

fn value(any: Option<&AnyValue>) -> Value {
    match any.and_then(|any| any.value.as_ref()) {
        None => Value::Null,
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(value)) => json!(value),
        Some(Any::IntValue(value)) => json!(value),
        // JSON has no infinity.
        Some(Any::DoubleValue(value)) if !value.is_finite() => json!(value.to_string()),
        Some(Any::DoubleValue(value)) => json!(value),
        Some(Any::BytesValue(bytes)) => json!(hex(bytes)),
        Some(Any::ArrayValue(array)) => array.values.iter().map(|any| value(Some(any))).collect(),
        Some(Any::KvlistValue(list)) => pairs(&list.values),
        Some(_) => Value::Null,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
