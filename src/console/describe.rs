//! What a span says about itself, in the words of an image service.

use opentelemetry::Value;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

use super::text::{bytes, cut, printable};
use crate::attribute::*;

/// Attributes that have words of their own here.
const KNOWN: [&str; 14] = [
    ERROR_TYPE,
    PROCESSING_OPTIONS,
    REQUEST_CANCELLED,
    RESULT_FORMAT,
    RESULT_HEIGHT,
    RESULT_SIZE,
    RESULT_WIDTH,
    SOURCE_FORMAT,
    SOURCE_HEIGHT,
    SOURCE_ORIGIN,
    SOURCE_SIZE,
    SOURCE_URL,
    SOURCE_WIDTH,
    STAGE_CANCELLED,
];
/// What every server span has and nobody looks for in a waterfall.
const OF_EVERY_REQUEST: [&str; 6] = [
    "client.",
    "http.",
    "network.",
    "server.",
    "url.",
    "user_agent.",
];
/// Columns of the value of an attribute that means nothing to this crate.
const VALUE_COLUMNS: usize = 40;
/// Errors shown of one span: a retried operation may have recorded hundreds.
const MAX_ERRORS: usize = 3;

/// Message and type.
pub(super) type Error = (String, Option<String>);

pub(super) enum Outcome {
    /// An HTTP status code.
    Status(i64),
    Cancelled,
    Failed,
    /// A span that says nothing about how it went.
    Ended,
}

pub(super) fn outcome(span: &SpanData) -> Outcome {
    match (find(span, "http.response.status_code"), &span.status) {
        _ if cancelled(span).is_some() => Outcome::Cancelled,
        (Some(Value::I64(code)), _) => Outcome::Status(*code),
        (_, Status::Error { .. }) => Outcome::Failed,
        _ => Outcome::Ended,
    }
}

/// Method and route of a request, or its path where it has no route; else the name of the span.
pub(super) fn title(span: &SpanData) -> String {
    let method =
        text(span, "http.request.method_original").or_else(|| text(span, "http.request.method"));
    match (method, route_or_path(span)) {
        (Some(method), Some(target)) => format!("{method} {target}"),
        (Some(method), None) => method,
        (None, _) => printable(&span.name),
    }
}

fn route_or_path(span: &SpanData) -> Option<String> {
    text(span, "http.route").or_else(|| text(span, "url.path"))
}

/// That a request or stage was cancelled, with the phase the request had come to.
pub(super) fn cancelled(span: &SpanData) -> Option<String> {
    match (
        text(span, REQUEST_CANCELLED),
        text(span, "http.response.status_code"),
    ) {
        (Some(phase), Some(status)) => {
            Some(format!("cancelled during {phase}, after status {status}"))
        }
        (Some(phase), None) => Some(format!("cancelled during {phase}")),
        (None, _) => (find(span, STAGE_CANCELLED) == Some(&Value::Bool(true)))
            .then(|| "cancelled".to_owned()),
    }
}

/// What matters of a request or stage beside its title.
pub(super) fn facts(span: &SpanData) -> Vec<String> {
    let is_request = span.span_kind == SpanKind::Server;
    let mut facts = Vec::new();
    if is_request {
        facts.extend(
            text(span, "url.path").filter(|path| Some(path) != route_or_path(span).as_ref()),
        );
        facts.extend(size(span, "http.response.body.size"));
    }
    facts.extend(text(span, PROCESSING_OPTIONS));
    let source = picture(
        span,
        [SOURCE_WIDTH, SOURCE_HEIGHT, SOURCE_FORMAT, SOURCE_SIZE],
    );
    let result = picture(
        span,
        [RESULT_WIDTH, RESULT_HEIGHT, RESULT_FORMAT, RESULT_SIZE],
    );
    match (source, result) {
        (Some(source), Some(result)) => facts.push(format!("{source} -> {result}")),
        (None, Some(result)) => facts.push(format!("-> {result}")),
        (source, None) => facts.extend(source),
    }
    let others = span.attributes.iter().filter(|attribute| {
        let key = attribute.key.as_str();
        let is_common = is_request
            && OF_EVERY_REQUEST
                .iter()
                .any(|prefix| key.starts_with(prefix));
        !is_common && !KNOWN.contains(&key)
    });
    facts.extend(others.map(|attribute| {
        let value = printable(&attribute.value.as_str());
        format!(
            "{}={}",
            printable(attribute.key.as_str()),
            cut(&value, VALUE_COLUMNS)
        )
    }));
    // The longest comes last, where it is cut first.
    facts.extend(text(span, SOURCE_URL).or_else(|| text(span, SOURCE_ORIGIN)));
    facts
}

/// `1000x872 jpeg 138 kB`, or as much of it as is known.
fn picture(span: &SpanData, [width, height, format, bytes]: [&str; 4]) -> Option<String> {
    let pixels = text(span, width)
        .zip(text(span, height))
        .map(|(width, height)| format!("{width}x{height}"));
    let parts: Vec<String> = [pixels, text(span, format), size(span, bytes)]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The errors of a span as message and type, and how many more there are.
pub(super) fn errors(span: &SpanData) -> (Vec<Error>, usize) {
    let mut errors: Vec<_> = span
        .events
        .iter()
        .filter(|event| event.name == "exception")
        .map(|event| {
            let get = |key| {
                event
                    .attributes
                    .iter()
                    .find(|a| a.key.as_str() == key)
                    .map(|a| printable(&a.value.as_str()))
            };
            let known_type =
                get("exception.type").filter(|name| !name.is_empty() && name != "_OTHER");
            match get("exception.message").filter(|message| !message.is_empty()) {
                Some(message) => (message, known_type),
                None => (known_type.unwrap_or_else(|| "unknown".to_owned()), None),
            }
        })
        .collect();
    if let Status::Error { description } = &span.status
        && errors.is_empty()
    {
        let error_type = text(span, ERROR_TYPE);
        let by_status =
            error_type.is_some() && error_type == text(span, "http.response.status_code");
        match (printable(description), error_type) {
            (description, error_type) if !description.is_empty() => {
                errors.push((description, error_type))
            }
            (_, Some(error_type)) if !by_status => errors.push((error_type, None)),
            _ => {}
        }
    }
    let more = errors.len().saturating_sub(MAX_ERRORS);
    errors.truncate(MAX_ERRORS);
    (errors, more)
}

fn size(span: &SpanData, key: &str) -> Option<String> {
    match find(span, key) {
        Some(Value::I64(size)) => Some(bytes(*size)),
        _ => None,
    }
}

/// A value as printable text; an empty one counts as absent.
fn text(span: &SpanData, key: &str) -> Option<String> {
    find(span, key)
        .map(|value| printable(&value.as_str()))
        .filter(|text| !text.is_empty())
}

/// The last value of an attribute: setting one again does not replace it.
fn find<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes
        .iter()
        .rev()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|attribute| &attribute.value)
}
