//! Describes a span in the words of an image service.

use std::time::Duration;

use opentelemetry::{
    KeyValue, Value,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::text::{bytes, duration, pair, printable};
use crate::attribute::*;

/// Attributes with a form of their own in a block. They are not repeated as `key=value`.
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
/// Prefixes of attributes that every HTTP or RPC span has. A waterfall leaves them out.
const OF_EVERY_REQUEST: [&str; 7] = [
    "client.",
    "http.",
    "network.",
    "rpc.",
    "server.",
    "url.",
    "user_agent.",
];
/// Prefixes of attributes that `tracing-opentelemetry` adds to every `tracing` span: the place in the
/// source, and the thread. A waterfall leaves them out.
const OF_TRACING: [&str; 2] = ["code.", "thread."];
/// It adds these, too. A service may use the same names for its own spans.
const TARGET_AND_LEVEL: [&str; 2] = ["target", "level"];
const RPC_CODE: &str = "rpc.response.status_code";
/// The longest value of an attribute that this crate does not know, in columns.
const VALUE_COLUMNS: usize = 40;
/// The most errors shown per span: a retried operation may record hundreds.
const MAX_ERRORS: usize = 3;

/// The message and the type of an error.
pub(super) type Error = (String, Option<String>);

pub(super) enum Outcome {
    /// An HTTP status code.
    Status(i64),
    /// A gRPC status code and whether it is an error.
    Code(String, bool),
    Cancelled,
    Failed,
    /// The span has no status, no status code and no error.
    Ended,
}

pub(super) fn outcome(span: &SpanData) -> Outcome {
    if cancelled(span).is_some() {
        return Outcome::Cancelled;
    }
    if let Some(code) = text(span, RPC_CODE) {
        return Outcome::Code(code, matches!(span.status, Status::Error { .. }));
    }
    match (find(span, "http.response.status_code"), &span.status) {
        (Some(Value::I64(code)), _) => Outcome::Status(*code),
        (_, Status::Error { .. }) => Outcome::Failed,
        _ => Outcome::Ended,
    }
}

/// The first words of a block: method and route of an HTTP request (its path if it has no route), the
/// method of a gRPC call, or the name of any other span.
pub(super) fn title(span: &SpanData) -> String {
    let method =
        text(span, "http.request.method_original").or_else(|| text(span, "http.request.method"));
    match (method, text(span, "http.route").or_else(|| path(span))) {
        (Some(method), Some(target)) => format!("{method} {target}"),
        (Some(method), None) => method,
        (None, _) => text(span, "rpc.method_original").unwrap_or_else(|| printable(&span.name)),
    }
}

/// What requests are told apart by: method and route of an HTTP request, or the name of another span. No path
/// gets into it.
pub(super) fn route(span: &SpanData) -> String {
    let method = text(span, "http.request.method");
    match (method, text(span, "http.route")) {
        (Some(method), Some(route)) => format!("{method} {route}"),
        (Some(method), None) => format!("{method} (no route)"),
        (None, _) => name(span),
    }
}

/// The name of a span, as it may be printed.
pub(super) fn name(span: &SpanData) -> String {
    printable(&span.name)
}

fn path(span: &SpanData) -> Option<String> {
    let path = text(span, "url.path")?;
    Some(match text(span, "url.query") {
        Some(query) => format!("{path}?{query}"),
        None => path,
    })
}

/// Says that a request or stage was cancelled and, for a request, in which phase.
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

/// Everything to show of a request or stage beside its title and its errors.
pub(super) fn facts(span: &SpanData) -> Vec<String> {
    let is_request = span.span_kind == SpanKind::Server;
    let is_attempt = span.span_kind == SpanKind::Client;
    let mut facts = Vec::new();
    if is_request {
        // Without a route, the title shows the path.
        let route = text(span, "http.route");
        facts.extend(path(span).filter(|path| route.is_some_and(|route| route != *path)));
    }
    if is_attempt {
        facts.extend(text(span, "http.response.status_code"));
    }
    if is_request || is_attempt {
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
    facts.extend(others(span, is_request || is_attempt));
    // URLs are the longest texts, so they come last, where a line is cut.
    facts.extend(text(span, SOURCE_URL).or_else(|| text(span, SOURCE_ORIGIN)));
    facts.extend(text(span, "url.full").filter(|_| is_attempt));
    facts
}

/// The attributes that this crate does not know.
fn others(span: &SpanData, is_exchange: bool) -> impl Iterator<Item = String> {
    let has_prefix =
        |key: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    let is_of_tracing = |attribute: &KeyValue| has_prefix(attribute.key.as_str(), &OF_TRACING);
    let is_tracing = span.attributes.iter().any(is_of_tracing);
    let others = span.attributes.iter().filter(move |attribute| {
        let key = attribute.key.as_str();
        let is_hidden = KNOWN.contains(&key)
            || has_prefix(key, &OF_TRACING)
            || is_tracing && TARGET_AND_LEVEL.contains(&key)
            || is_exchange && has_prefix(key, &OF_EVERY_REQUEST);
        !is_hidden
    });
    others.map(
        |attribute| match (attribute.key.as_str(), &attribute.value) {
            (key @ ("busy_ns" | "idle_ns"), Value::I64(nanos)) => {
                let time = Duration::from_nanos(u64::try_from(*nanos).unwrap_or_default());
                format!("{} {}", key.trim_end_matches("_ns"), duration(time))
            }
            (key, value) => pair(key, &value.as_str(), VALUE_COLUMNS),
        },
    )
}

/// Formats a picture as `1000x872 jpeg 138 kB`, without the parts that are unknown.
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

/// The first errors of a span, and the number of further ones.
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
        let by_status = error_type.is_some()
            && [RPC_CODE, "http.response.status_code"]
                .iter()
                .any(|status| text(span, status) == error_type);
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

/// An attribute's value as printable text. An empty one counts as absent.
fn text(span: &SpanData, key: &str) -> Option<String> {
    find(span, key)
        .map(|value| printable(&value.as_str()))
        .filter(|text| !text.is_empty())
}

/// The last value of an attribute. The SDK keeps all values of a key that was set more than once.
fn find<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes
        .iter()
        .rev()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|attribute| &attribute.value)
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::super::tests::{With, draw, request, span};
    use super::*;

    #[test]
    fn an_error_is_said_once_where_it_happened() {
        let (message, kind) = (
            "the origin answered 404 Not Found",
            "image_proxy::DownloadError",
        );
        let spans = vec![
            span(2, 1, "queue", 8, 11),
            span(3, 1, "downloading_image", 30, 3_400)
                .with(SOURCE_ORIGIN, "http://127.0.0.1:8081")
                .with_error(message, kind),
            request(1, "/{options}/{*source}", 404, 0, 3_600).with_error(message, kind),
        ];
        assert_eq!(
            draw(80, spans),
            "\
GET /{options}/{*source} 404 3.60 ms            4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  queue             +8.00 µs 3.00 µs │▏                                        │
  downloading_image +30.0 µs 3.37 ms │▐█████████████████████████████████████▊  │
    http://127.0.0.1:8081
    error: the origin answered 404 Not Found (image_proxy::DownloadError)

"
        );
    }

    #[test]
    fn an_attempt_is_its_status_its_size_and_its_url() {
        let mut attempt = span(3, 2, "GET", 40, 3_300)
            .with("http.request.method", "GET")
            .with("server.address", "127.0.0.1")
            .with("url.full", "http://127.0.0.1:8081/cat.jpg")
            .with("http.response.status_code", 404)
            .with("http.response.body.size", 9);
        attempt.span_kind = SpanKind::Client;
        let spans = vec![
            attempt,
            span(2, 1, "downloading_image", 30, 3_400),
            request(1, "/{options}/{*source}", 404, 0, 3_600),
        ];
        assert_eq!(
            draw(80, spans),
            "\
GET /{options}/{*source} 404 3.60 ms            4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  downloading_image +30.0 µs 3.37 ms │▐█████████████████████████████████████▊  │
    GET             +40.0 µs 3.26 ms │▐████████████████████████████████████▋   │
      404 · 9 B · http://127.0.0.1:8081/cat.jpg

"
        );
    }

    #[test]
    fn a_long_error_flows_over_a_few_lines() {
        let message = format!(
            "error sending request\n  caused by: {}",
            "no route to host ".repeat(30)
        );
        let spans = vec![
            request(1, "/{options}/{*source}", 502, 0, 3_600)
                .with_error(&message, "hyper_util::client::legacy::Error")
                .with_error("", "_OTHER"),
        ];
        assert_eq!(
            draw(80, spans),
            "\
GET /{options}/{*source} 502 3.60 ms            4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  error: error sending request caused by: no route to host no route to host no
  route to host no route to host no route to host no route to host no route to
  host no route to host no route to host no route to host no route to host no
  route to h… (hyper_util::client::legacy::Error)
  error: unknown

"
        );
    }

    #[test]
    fn failures_without_an_exception_are_told_by_status_and_type() {
        let mut by_type = request(1, "/a", 0, 0, 3_600).with(ERROR_TYPE, "timeout");
        by_type.status = Status::error("");
        let mut by_code = request(2, "/b", 503, 0, 3_600).with(ERROR_TYPE, "503");
        by_code.status = Status::error("");
        let mut described = span(3, 0, "reload", 0, 3_600);
        described.status = Status::error("no such file");
        assert_eq!(
            draw(80, vec![by_type, by_code, described]),
            "\
GET /a failed 3.60 ms                           4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  error: timeout

GET /b 503 3.60 ms                              4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000

reload failed 3.60 ms                           4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  error: no such file

"
        );
    }

    #[test]
    fn a_retried_stage_shows_three_errors_and_counts_the_rest() {
        let stage = (0..9).fold(span(2, 1, "queue", 0, 9), |stage, i| {
            stage.with_error(&format!("try {i}"), "Busy")
        });
        assert_eq!(
            draw(80, vec![stage, request(1, "/", 503, 0, 9)]),
            "\
GET / 503 9.00 µs                               4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  queue                +0 ns 9.00 µs │█████████████████████████████████████████│
    error: try 0 (Busy)
    error: try 1 (Busy)
    error: try 2 (Busy)
    and 6 more errors

"
        );
    }

    #[test]
    fn cancelled_requests_and_stages_say_so() {
        let spans = vec![
            span(2, 1, "queue", 8, 11),
            span(3, 1, "downloading_image", 30, 1_203_400)
                .with(SOURCE_URL, "http://127.0.0.1:8081/slow/rocket.jpg")
                .with(STAGE_CANCELLED, true),
            request(1, "/{options}/{*source}", 0, 0, 1_203_600)
                .with(REQUEST_CANCELLED, "downloading_image"),
            request(9, "/{options}/{*source}", 200, 0, 1_203_600)
                .with(REQUEST_CANCELLED, "response_body"),
        ];
        assert_eq!(
            draw(80, spans),
            "\
GET /{options}/{*source} cancelled 1.20 s       4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  cancelled during downloading_image
  queue             +8.00 µs 3.00 µs │▏                                        │
  downloading_image +30.0 µs  1.20 s │█████████████████████████████████████████│
    http://127.0.0.1:8081/slow/rocket.jpg
    cancelled

GET /{options}/{*source} cancelled 1.20 s       4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  cancelled during response_body, after status 200

"
        );
    }

    #[test]
    fn the_last_value_of_an_attribute_counts() {
        let root = request(1, "/{source}", 200, 0, 9)
            .with("http.route", "/{options}/{source}")
            .with(PROCESSING_OPTIONS, "")
            .with(PROCESSING_OPTIONS, "rs:fit");
        assert_eq!(title(&root), "GET /{options}/{source}");
        assert_eq!(facts(&root), ["rs:fit"]);
    }

    #[test]
    fn a_grpc_call_is_its_method_and_its_code() {
        let mut call = span(1, 0, "thumbs.v1.Thumbnailer/Resize", 0, 20)
            .with("rpc.system.name", "grpc")
            .with("rpc.response.status_code", "OK")
            .with("http.response.status_code", 200);
        call.span_kind = SpanKind::Server;
        let mut unknown = span(2, 0, "grpc", 0, 20)
            .with("rpc.method_original", "thumbs.v1.Thumbnailer/Invented")
            .with("rpc.response.status_code", "UNIMPLEMENTED")
            .with("error.type", "UNIMPLEMENTED")
            .with("http.response.status_code", 200);
        unknown.span_kind = SpanKind::Server;
        unknown.status = Status::error("");
        assert_eq!(
            draw(80, vec![call, unknown]),
            "\
thumbs.v1.Thumbnailer/Resize OK 20.0 µs         4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000

thumbs.v1.Thumbnailer/I… UNIMPLEMENTED 20.0 µs  4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000

"
        );
    }

    #[test]
    fn roots_that_are_not_requests() {
        let client = span(2, 1, "GET", 10, 20)
            .with("http.request.method", "GET")
            .with("http.response.status_code", 304);
        let reload = span(1, 0, "reload configuration", 0, 20).with("file", "thumbs.toml");
        let mut unrouted = request(3, "", 404, 0, 9)
            .with("url.path", "/favicon.ico")
            .with("url.query", "v=2")
            .with("tenant", "x".repeat(50));
        unrouted.attributes[0] = KeyValue::new("http.request.method", "_OTHER");
        let unrouted = unrouted.with("http.request.method_original", "BREW");
        assert_eq!(
            draw(80, vec![client, reload, unrouted]),
            "\
reload configuration 20.0 µs                    4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000 · file=thumbs.toml
  GET               +10.0 µs 10.0 µs │                    ▐████████████████████│
    http.request.method=GET · http.response.status_code=304

BREW /favicon.ico?v=2 404 9.00 µs               4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000 · tenant=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…

"
        );
    }
}
