//! OpenTelemetry's zPages, as JSON.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/zpages/>, "HTTP Server". As in OTLP JSON, ids are hexadecimal
//! and times are nanoseconds in a text.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use super::{
    Page,
    latency::MOST_BANDS,
    query::decode,
    state::{MOST_RUNNING, by_name},
    trace_json::Decoded,
};
use crate::telemetry::Outcome;

/// `path` is what follows `tracez/api/`; `None` when there is no such thing.
pub(super) fn answer(page: &Page, path: &str) -> Option<Value> {
    let (what, rest) = path.split_once('/').unwrap_or((path, ""));
    match what {
        "aggregations" if rest.is_empty() => Some(aggregations(page)),
        "latency" => {
            let (band, name) = rest.split_once('/')?;
            let band = band
                .parse::<usize>()
                .ok()
                .filter(|band| *band < MOST_BANDS)?;
            let name = segment(name)?;
            Some(samples(page, |outcome, of, of_name| {
                outcome != Outcome::Failed && of == band && of_name == name
            }))
        }
        "error" => {
            let name = segment(rest)?;
            Some(samples(page, |outcome, _, of_name| {
                outcome == Outcome::Failed && of_name == name
            }))
        }
        "running" => running(page, &segment(rest)?),
        _ => None,
    }
}

/// The name of a span, which has slashes and blanks.
fn segment(text: &str) -> Option<String> {
    // A plus is a plus in a path.
    let name = decode(&text.replace('+', "%2B")).ok()?;
    (!name.is_empty()).then_some(name)
}

/// `repeated TracezCounts`
fn aggregations(page: &Page) -> Value {
    let running = by_name(&page.running.now());
    let routes = page.store.routes.all();
    let counts = routes.iter().map(|route| {
        let counts = route.counts(page.store.now());
        json!({
            "spanname": route.name,
            "latency": counts.bands,
            "running": running.get(&*route.name).unwrap_or(&0),
            "error": counts.failed,
        })
    });
    counts.collect()
}

/// `repeated LatencyData`, `repeated ErrorData`
fn samples(page: &Page, wanted: impl Fn(Outcome, usize, &str) -> bool) -> Value {
    let samples = page.store.newest_first();
    let wanted = samples
        .iter()
        .filter(|sample| wanted(sample.outcome, sample.band(), &sample.route.name));
    let roots = wanted.filter_map(|sample| Decoded::of(page, sample).root().map(span));
    roots.collect()
}

fn span(span: &Span) -> Value {
    let as_otlp = serde_json::to_value(span).unwrap_or_default();
    let field = |name: &str, otherwise: Value| as_otlp.get(name).cloned().unwrap_or(otherwise);
    json!({
        "traceid": field("traceId", Value::Null),
        "spanid": field("spanId", Value::Null),
        "parentid": field("parentSpanId", json!("")),
        "starttime": span.start_time_unix_nano.to_string(),
        "endtime": span.end_time_unix_nano.to_string(),
        "attributes": field("attributes", json!([])),
        "events": field("events", json!([])),
        "links": field("links", json!([])),
        "status": field("status", json!({})),
    })
}

/// `repeated RunningData`
fn running(page: &Page, name: &str) -> Option<Value> {
    let running = page.running.now();
    let running = running.iter().filter(|request| request.name() == name);
    let text = |key: &str, text: &str| json!({ "key": key, "value": { "stringValue": text } });
    let running = running.take(MOST_RUNNING).map(|request| {
        let asked = request.asked();
        let mut attributes = vec![text("http.request.method", asked.method)];
        attributes.extend(asked.path.as_deref().map(|path| text("url.path", path)));
        let start = request.started_at().duration_since(std::time::UNIX_EPOCH);
        json!({
            "traceid": request.trace_id().to_string(),
            "spanid": request.span_id().to_string(),
            "parentid": "",
            "starttime": start.unwrap_or_default().as_nanos().to_string(),
            "attributes": attributes,
            "events": [],
            "links": [],
        })
    });
    Some(running.collect())
}
