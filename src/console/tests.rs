//! Tests of whole blocks, from spans built by hand.

use std::{io, sync::Arc, time::UNIX_EPOCH};

use opentelemetry::{
    InstrumentationScope, KeyValue, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use proptest::{option, prelude::*};

use super::*;
use crate::attribute::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

/// A span from `start` to `end`, in microseconds since the epoch.
pub(super) fn span(id: u64, parent: u64, name: &'static str, start: u64, end: u64) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(TRACE),
            SpanId::from(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::from(parent),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: UNIX_EPOCH + Duration::from_micros(start),
        end_time: UNIX_EPOCH + Duration::from_micros(end),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

pub(super) fn request(id: u64, route: &'static str, status: i64, start: u64, end: u64) -> SpanData {
    let mut span = span(id, 0, "GET", start, end)
        .with("http.request.method", "GET")
        .with("http.route", route);
    span.span_kind = SpanKind::Server;
    match status {
        0 => span,
        status => span.with("http.response.status_code", status),
    }
}

pub(super) trait With {
    fn with(self, key: &'static str, value: impl Into<Value>) -> Self;
    fn with_error(self, message: &str, error_type: &'static str) -> Self;
}

impl With for SpanData {
    fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    fn with_error(mut self, message: &str, error_type: &'static str) -> Self {
        let attributes = vec![
            KeyValue::new("exception.message", message.to_owned()),
            KeyValue::new("exception.type", error_type),
        ];
        self.events
            .events
            .push(Event::new("exception", self.end_time, attributes, 0));
        self.status = Status::error("");
        self.with(ERROR_TYPE, error_type)
    }
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    /// Returns what was written since the last call.
    fn read(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

fn exporter(columns: usize) -> (ConsoleExporter, Page) {
    let page = Page::default();
    (ConsoleExporter::new(page.clone()).with_width(columns), page)
}

/// Draws `spans`, which come in one batch.
pub(super) fn draw(columns: usize, spans: Vec<SpanData>) -> String {
    let (exporter, page) = exporter(columns);
    ready(exporter.export(spans)).unwrap();
    page.read()
}

/// `export` has nothing to wait for.
fn ready<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("not ready"),
    }
}

fn resize() -> Vec<SpanData> {
    let mut root = request(1, "/resize/{options}/{*source}", 200, 0, 48_212)
        .with("url.path", "/resize/rs:fit:300:300/rocket.jpg")
        .with("server.address", "127.0.0.1")
        .with("http.response.body.size", 23_412);
    root.parent_span_id = SpanId::from(0x00f0_67aa_0ba9_02b7);
    root.parent_span_is_remote = true;
    vec![
        span(2, 1, "queue", 12, 1_212),
        span(3, 1, "downloading_image", 1_240, 22_400)
            .with(SOURCE_URL, "http://127.0.0.1:8081/images/rocket.jpg")
            .with(SOURCE_ORIGIN, "http://127.0.0.1:8081")
            .with(SOURCE_SIZE, 138_214)
            .with(SOURCE_FORMAT, "jpeg"),
        span(5, 4, "decode", 22_600, 31_600),
        span(6, 4, "watermark", 31_700, 33_000).with("watermark.opacity", 0.5),
        span(4, 1, "processing_image", 22_512, 41_412)
            .with(PROCESSING_OPTIONS, "rs:fit:300:300")
            .with(SOURCE_WIDTH, 1000)
            .with(SOURCE_HEIGHT, 872)
            .with(SOURCE_FORMAT, "jpeg")
            .with(RESULT_WIDTH, 300)
            .with(RESULT_HEIGHT, 261)
            .with(RESULT_FORMAT, "webp")
            .with(RESULT_SIZE, 23_412),
        span(7, 1, "streaming_image", 41_500, 48_200),
        root,
    ]
}

#[test]
fn a_request_with_four_stages() {
    assert_eq!(
        draw(80, resize()),
        "\
GET /resize/{options}/{*source} 200 48.2 ms     4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000 · /resize/rs:fit:300:300/rocket.jpg · 23.4 kB
  continued from upstream span 00f067aa0ba902b7
  queue             +12.0 µs 1.20 ms │█                                        │
  downloading_image +1.24 ms 21.2 ms │ ██████████████████                      │
    jpeg 138 kB · http://127.0.0.1:8081/images/rocket.jpg
  processing_image  +22.5 ms 18.9 ms │                   ████████████████▎     │
    rs:fit:300:300 · 1000x872 jpeg -> 300x261 webp 23.4 kB
    decode          +22.6 ms 9.00 ms │                   ███████▉              │
    watermark       +31.7 ms 1.30 ms │                           █▏            │
      watermark.opacity=0.5
  streaming_image   +41.5 ms 6.70 ms │                                   ██████│

"
    );
}

#[test]
fn a_request_of_an_untrusted_upstream() {
    let mut root = request(1, "/resize", 200, 0, 9)
        .with("url.path", "/resize")
        .with("url.query", "w=300&source=cat.jpg");
    let upstream = SpanContext::new(
        TraceId::from(0xabc),
        SpanId::from(0xd),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    root.links.links = vec![Link::new(upstream, Vec::new(), 0); 5];
    assert_eq!(
        draw(80, vec![root]),
        "\
GET /resize 200 9.00 µs                         4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000 · /resize?w=300&source=cat.jpg
  linked to trace 00000000000000000000000000000abc
  linked to trace 00000000000000000000000000000abc
  linked to trace 00000000000000000000000000000abc

"
    );
}

#[test]
fn a_narrow_terminal() {
    assert_eq!(
        draw(40, resize()),
        "\
GET /resize/{options}/{*sou… 200 48.2 ms
  4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  /resize/rs:fit:300:300/rocket.jpg
  23.4 kB
  continued from upstream span
  00f067aa0ba902b7
  queue      +12.0 µs 1.20 ms │▎       │
  downloadi… +1.24 ms 21.2 ms │███▊    │
    jpeg 138 kB
    http://127.0.0.1:8081/images/rocket…
  processin… +22.5 ms 18.9 ms │   ▕██▉ │
    rs:fit:300:300
    1000x872 jpeg -> 300x261 webp 23.4 …
    decode   +22.6 ms 9.00 ms │   ▕█▎  │
    waterma… +31.7 ms 1.30 ms │     ▎  │
      watermark.opacity=0.5
  streaming… +41.5 ms 6.70 ms │      ▕█│

"
    );
}

#[test]
fn a_short_title_leaves_room_for_the_trace_id() {
    for (route, first_line) in [
        (
            "/",
            "GET / 200 9.00 µs         4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ("/long/{route}", "GET /long/{route} 200 9.00 µs"),
    ] {
        let page = draw(58, vec![request(1, route, 200, 0, 9)]);
        assert_eq!(page.lines().next(), Some(first_line));
    }
}

#[test]
fn a_wide_terminal() {
    assert_eq!(
        draw(120, resize()),
        "\
GET /resize/{options}/{*source} 200 48.2 ms                                             4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000 · /resize/rs:fit:300:300/rocket.jpg · 23.4 kB
  continued from upstream span 00f067aa0ba902b7
  queue             +12.0 µs 1.20 ms │██                                                                               │
  downloading_image +1.24 ms 21.2 ms │  ███████████████████████████████████▋                                           │
    jpeg 138 kB · http://127.0.0.1:8081/images/rocket.jpg
  processing_image  +22.5 ms 18.9 ms │                                     ▕███████████████████████████████▋           │
    rs:fit:300:300 · 1000x872 jpeg -> 300x261 webp 23.4 kB
    decode          +22.6 ms 9.00 ms │                                      ███████████████▏                           │
    watermark       +31.7 ms 1.30 ms │                                                     ██▌                         │
      watermark.opacity=0.5
  streaming_image   +41.5 ms 6.70 ms │                                                                     ▕███████████│

"
    );
}

#[test]
fn from_microseconds_to_hours() {
    let spans = vec![
        span(2, 1, "queue", 0, 0),
        span(3, 1, "processing_image", 0, 2),
        request(1, "/tiny", 200, 0, 2),
        span(5, 4, "queue", 0, 125_000_000),
        span(6, 4, "processing_image", 125_000_000, 9_000_000_000),
        request(4, "/huge", 200, 0, 9_000_000_000),
        span(8, 7, "queue", 5, 5),
        request(7, "/zero", 200, 5, 5),
        // The clock was set back.
        span(10, 9, "queue", 3, 1),
        request(9, "/back", 200, 5, 4),
    ];
    assert_eq!(
        draw(80, spans),
        "\
GET /tiny 200 2.00 µs                           4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  queue                +0 ns    0 ns │▏                                        │
  processing_image     +0 ns 2.00 µs │█████████████████████████████████████████│

GET /huge 200 2h 30m                            4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  queue                +0 ns  2m 05s │▋                                        │
  processing_image   +2m 05s  2h 28m │▐████████████████████████████████████████│

GET /zero 200 0 ns                              4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  queue                +0 ns    0 ns │▏                                        │

GET /back 200 0 ns                              4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  queue                +0 ns    0 ns │▏                                        │

"
    );
}

#[test]
fn fifty_stages_are_fifty_lines_in_order() {
    let mut spans: Vec<_> = (0..50)
        .map(|i| span(i + 2, 1, "tile", (49 - i) * 20, (50 - i) * 20))
        .collect();
    spans.push(request(1, "/", 200, 0, 1000));
    let page = draw(80, spans);
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(lines.len(), 53);
    assert_eq!(
        lines[2],
        "  tile                 +0 ns 20.0 µs │▉                                        │"
    );
    assert_eq!(
        lines[51],
        "  tile               +980 µs 20.0 µs │                                        █│"
    );
}

#[test]
fn the_deepest_stage_keeps_some_of_its_name() {
    let mut spans: Vec<_> = (2..20)
        .map(|id| span(id, id - 1, "inner", id, 100 - id))
        .collect();
    spans.push(request(1, "/", 200, 0, 100));
    assert_eq!(
        draw(80, spans).lines().nth(19),
        Some("            inner      +19.0 µs 62.0 µs │       ███████████████████████▊       │"),
    );
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let odd = "\x1b]0;owned\x07\r\n\u{9b}2J\u{202e}\t猫\u{0}";
    let mut stage = span(2, 1, "queue", 0, 5)
        .with("\x1b[2J", odd)
        .with(PROCESSING_OPTIONS, odd)
        .with(SOURCE_URL, odd);
    stage.name = odd.to_owned().into();
    let stage = stage.with_error(odd, "\x1b[31m");
    let mut root = request(1, "\x1b[31m", 0, 0, 5)
        .with("url.path", odd)
        .with("http.response.status_code", odd)
        .with(REQUEST_CANCELLED, odd)
        .with_error("\x1b[1m", "\x1b[1m");
    root.attributes[0] = KeyValue::new("http.request.method", odd);
    let page = draw(80, vec![stage, root]);
    assert!(
        !page.contains(|c: char| c != '\n' && c.is_control()),
        "{page:?}"
    );
    assert!(!page.contains('\u{202e}'));
    assert_eq!(
        page,
        "\
\\u{1b}]0;owned\\u{7} \\u{9b}2… cancelled 5.00 µs  4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000 · \\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫\\0
  cancelled during \\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫\\0, after status
  \\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫\\0
  error: \\u{1b}[1m (\\u{1b}[1m)
  \\u{1b}]0;owned\\u{7}…    +0 ns 5.00 µs │██████████████████████████████████████│
    \\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫\\0
    \\u{1b}[2J=\\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫…
    \\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫\\0
    error: \\u{1b}]0;owned\\u{7} \\u{9b}2J\\u{202e} 猫\\0 (\\u{1b}[31m)

"
    );
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    let long = "猫/long text ".repeat(40);
    for columns in [0, 40, 41, 57, 80, 200, 1000] {
        let mut spans = resize();
        for span in &mut spans {
            span.name = long.clone().into();
            *span = span
                .clone()
                .with(PROCESSING_OPTIONS, long.clone())
                .with("tenant", long.clone());
            *span = span
                .clone()
                .with(REQUEST_CANCELLED, long.clone())
                .with_error(&long, "Long");
        }
        for line in draw(columns, spans).lines() {
            assert!(
                text::width(line) <= columns.clamp(40, 500),
                "{columns}: {line}"
            );
        }
    }
}

// faults A15
#[test]
fn a_long_code_and_an_empty_name_fit_into_any_width() {
    let mut call = span(1, 0, "", 0, 20)
        .with("rpc.system.name", "grpc")
        .with("rpc.response.status_code", "A_CODE_".repeat(20));
    call.span_kind = SpanKind::Server;
    assert_eq!(
        draw(40, vec![call.clone(), span(2, 0, "", 0, 20)]),
        "\
\x20A_CODE_A_CODE_A_COD… 20.0 µs
  4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000

 20.0 µs
  4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000

"
    );
    for columns in 0..200 {
        for line in draw(columns, vec![call.clone(), span(2, 0, "", 0, 20)]).lines() {
            assert!(text::width(line) <= columns.max(40), "{columns}: {line}");
        }
    }
}

/// Texts of all kinds: any characters, wide and combining ones, long ones, secrets.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,80}",
        "[猫🐈e\u{301}\u{20e3}\u{fe0f}\u{200d}\u{202e}\u{1b}\n ]{0,40}",
        Just("e".to_owned() + &"\u{301}".repeat(300)),
        Just("https://user:SECRET@h/?sig=S".to_owned()),
    ]
}

fn times() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, any::<u64>()]
}

// faults A15
proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_text_breaks_the_picture(
        columns in 0..200_usize,
        [name, route, code, fact, message] in [texts(), texts(), texts(), texts(), texts()],
        [request_starts, request_ends, stage_starts, stage_ends] in [times(), times(), times(), times()],
        size in any::<i64>(),
        status in option::of(any::<i64>()),
        depth in 0..12_u64,
    ) {
        let mut root = request(1, "", status.unwrap_or(0), request_starts, request_ends)
            .with("rpc.method_original", route.clone())
            .with("url.path", route)
            .with("http.response.body.size", size)
            .with_error(&message, "Error");
        if status.is_none() {
            root = root.with("rpc.response.status_code", code.clone());
            root.attributes.swap_remove(0);
        }
        let mut spans = vec![root];
        for id in 2..=depth + 2 {
            let mut stage = span(id, id - 1, "", stage_starts, stage_ends)
                .with("fact", fact.clone())
                .with("busy_ns", size)
                .with(SOURCE_URL, fact.clone())
                .with(STAGE_CANCELLED, true);
            stage.name = name.clone().into();
            spans.push(stage.with_error(&message, "Error"));
        }
        let page = draw(columns, spans);
        prop_assert!(!page.contains("SECRET"));
        for line in page.lines() {
            prop_assert!(text::width(line) <= columns.max(40), "{}: {}", columns, line);
            prop_assert!(!line.contains(char::is_control), "{:?}", line);
            prop_assert!(line.len() <= 40 * columns.max(40), "{} bytes", line.len());
        }
    }
}

// faults F15
#[test]
fn no_secret_is_printed() {
    let secret = "https://user:SECRET@h/a.jpg?sig=SECRET";
    let mut stage = span(2, 1, "queue", 0, 5)
        .with("watermark.url", secret)
        .with("password", "SECRET")
        .with(PROCESSING_OPTIONS, secret)
        .with(SOURCE_URL, secret)
        .with_error(&format!("get \\u0022{secret}\\u0022 failed"), "Error");
    stage.name = format!("get {secret}").into();
    let mut root = request(1, "/", 200, 0, 5)
        .with("url.path", format!("/plain/{secret}"))
        .with("url.query", "w=1&sig=SECRET")
        .with("deadline", secret);
    root.status = Status::error(secret.to_owned());
    let mut unrouted = request(3, "", 404, 0, 5)
        .with("url.path", "/x")
        .with("url.query", "sig=SECRET");
    unrouted.attributes.remove(1);
    let page = draw(200, vec![stage, root, unrouted]);
    assert!(!page.contains("SECRET"), "{page}");
    assert!(
        page.contains("watermark.url=https://REDACTED:REDACTED@h/a.jpg?sig=R…"),
        "{page}"
    );
    assert!(page.contains("password=REDACTED"), "{page}");
}

// faults G6
#[test]
fn a_tracing_span_is_shown_without_its_place_and_with_its_times() {
    let traced = span(2, 1, "look_up", 0, 70_000)
        .with("code.file.path", "src/look_up.rs")
        .with("code.module.name", "service::look_up")
        .with("code.line.number", 17)
        .with("thread.id", 3)
        .with("thread.name", "tokio-runtime-worker")
        .with("target", "service")
        .with("level", "INFO")
        .with("id", 1)
        .with("busy_ns", 65_823_201)
        .with("idle_ns", 1_204_000);
    let own = span(3, 1, "shoot", 1, 70_001).with("target", "moon");
    assert_eq!(
        draw(80, vec![traced, own, request(1, "/", 200, 0, 70_001)]),
        "\
GET / 200 70.0 ms                               4bf92f3577b34da6a3ce929d0e0e4736
  00:00:00.000
  look_up              +0 ns 70.0 ms │█████████████████████████████████████████│
    id=1 · busy 65.8 ms · idle 1.20 ms
  shoot             +1.00 µs 70.0 ms │█████████████████████████████████████████│
    target=moon

"
    );
}

// faults G13
#[test]
fn a_request_shows_its_time_of_day() {
    let mut root = request(1, "/", 200, 0, 9);
    root.start_time = UNIX_EPOCH + Duration::from_millis(1_764_137_845_120);
    root.end_time = root.start_time;
    assert_eq!(draw(80, vec![root]).lines().nth(1), Some("  06:17:25.120"));
}

#[test]
fn colours_are_only_added() {
    let plain = draw(80, resize());
    let (exporter, page) = exporter(80);
    ready(exporter.with_color(true).export(resize())).unwrap();
    let coloured = page.read();
    assert!(
        coloured.starts_with(
            "\x1b[1mGET /resize/{options}/{*source}\x1b[0m \x1b[32m200\x1b[0m 48.2 ms "
        )
    );
    let without: String = coloured
        .split("\x1b[")
        .map(|piece| piece.split_once('m').map_or(piece, |(_, text)| text))
        .collect();
    assert_eq!(without, plain);
}

#[test]
fn colour_and_width_follow_the_environment() {
    for (is_terminal, set, color) in [
        (true, None, true),
        (false, None, false),
        (true, Some(("TERM", "xterm")), true),
        (true, Some(("TERM", "dumb")), false),
        (true, Some(("NO_COLOR", "1")), false),
        (false, Some(("CLICOLOR_FORCE", "1")), true),
    ] {
        let var = |name: &str| {
            set.filter(|(set, _)| *set == name)
                .map(|(_, value)| value.to_owned())
        };
        assert_eq!(
            wants_color(is_terminal, var),
            color,
            "{is_terminal} {set:?}"
        );
    }
    assert!(
        !wants_color(true, |name| (name != "TERM").then(|| "1".to_owned())),
        "NO_COLOR wins"
    );
    for (value, width) in [
        (None, None),
        (Some("132"), Some(132)),
        (Some("0"), None),
        (Some("wide"), None),
    ] {
        assert_eq!(columns(|_| value.map(str::to_owned)), width, "{value:?}");
    }
}

// faults G21
#[test]
fn a_busy_service_has_a_line_a_request_and_percentiles() {
    let (exporter, page) = exporter(80);
    let exporter = exporter.with_summary(Duration::from_millis(100));
    let export = |spans| ready(exporter.export(spans)).unwrap();
    for n in 0..100 {
        let (id, took) = (10 + 2 * n, 1_000 * (n + 1));
        export(vec![
            span(id + 1, id, "queue", 0, took / 2),
            request(id, "/cat", 200, 0, took),
        ]);
    }
    let lines = page.read();
    assert_eq!(lines.lines().count(), 100, "{lines}");
    assert_eq!(
        lines.lines().next().unwrap(),
        "00:00:00.000 200 1.00 ms GET /cat · queue 500 µs"
    );

    // What failed or was slow is shown in full.
    let failed = request(1, "/cat", 500, 0, 2_000).with_error("no source", "io");
    let stage = span(2, 1, "downloading_image", 0, 1_000).with_error("no source", "io");
    let slow = request(3, "/cat", 200, 0, 100_001);
    for spans in [vec![stage, failed], vec![slow]] {
        let whole = draw(80, spans.clone());
        export(spans);
        assert_eq!(page.read(), whole);
    }

    // Two clients leave: work goes on for 2 s after the first, and for 0.5 s after the second.
    let left = |id| request(id, "/cat", 0, 0, 1_000).with(REQUEST_CANCELLED, "processing_image");
    export(vec![left(4)]);
    export(vec![
        span(5, 4, "processing_image", 0, 2_001_000),
        span(6, 5, "decode", 0, 2_000_000),
    ]);
    export(vec![span(8, 7, "processing_image", 500, 501_000), left(7)]);
    assert_eq!(
        page.read(),
        "00:00:00.000 cancelled 1.00 ms GET /cat\n\
         00:00:00.000 cancelled 1.00 ms GET /cat · processing_image 500 ms\n"
    );

    exporter.force_flush().unwrap();
    assert_eq!(
        page.read(),
        "\
0 s: 104 requests, 1 failed, 2 cancelled
2.5 s of work for clients that had left
                       count      p50      p95      p99
  GET /cat               104  49.0 ms  96.0 ms   100 ms
  downloading_image        1  1.00 ms  1.00 ms  1.00 ms
  processing_image         1   500 ms   500 ms   500 ms
  queue                  100  25.0 ms  47.5 ms  49.5 ms

"
    );
    exporter.force_flush().unwrap();
    assert_eq!(page.read(), "", "nothing has come since");
    export(vec![request(11, "/dog", 200, 0, 1_000)]);
    page.read();
    exporter.force_flush().unwrap();
    let counts = "0 s: 1 requests, 0 failed, 0 cancelled\n";
    assert!(page.read().starts_with(counts), "counts begin again");
}

#[test]
fn a_line_has_the_uppermost_stages_and_a_failed_stage_is_shown_in_full() {
    let (exporter, page) = exporter(80);
    let exporter = exporter.with_summary(Duration::from_millis(100));
    let spans = || {
        vec![
            span(3, 2, "decode", 0, 1_000),
            span(2, 1, "processing_image", 0, 2_000),
            request(1, "/cat", 200, 0, 2_000),
        ]
    };
    ready(exporter.export(spans())).unwrap();
    assert_eq!(
        page.read(),
        "00:00:00.000 200 2.00 ms GET /cat · processing_image 2.00 ms\n"
    );
    // The service answers with another picture.
    let mut failed = spans();
    failed[0] = failed[0].clone().with_error("no picture", "decode");
    ready(exporter.export(failed.clone())).unwrap();
    assert_eq!(page.read(), draw(80, failed));
    exporter.force_flush().unwrap();
    assert!(page.read().contains(": 2 requests, 1 failed"));
}

#[test]
fn a_line_of_the_summary_fits_whatever_the_code() {
    let (exporter, page) = exporter(40);
    let exporter = exporter.with_summary(Duration::from_secs(1));
    let call = request(1, "/cat", 0, 0, 1_000)
        .with("rpc.system.name", "grpc")
        .with("rpc.response.status_code", "A_CODE_".repeat(20));
    ready(exporter.export(vec![call])).unwrap();
    let line = page.read();
    assert!(
        text::width(line.trim_end()) <= 40 && line.contains("1.00 ms"),
        "{line}"
    );
}

#[test]
fn a_summary_holds_no_more_than_it_may() {
    let (exporter, page) = exporter(60);
    let exporter = exporter.with_summary(Duration::from_secs(1));
    for n in 0..100 {
        let route: &'static str = format!("/long/route/with/a/name/of/its/own/{n:03}").leak();
        ready(exporter.export(vec![request(1 + n, route, 200, 0, 1_000)])).unwrap();
    }
    page.read();
    exporter.force_flush().unwrap();
    let table = page.read();
    assert_eq!(table.lines().count(), 2 + 64 + 1 + 1, "{table}");
    assert!(table.contains("(others)"), "{table}");
    assert!(table.lines().all(|line| text::width(line) <= 60), "{table}");

    // Percentiles are those of the latest 10,000.
    for took in [900_000, 1_000] {
        let requests = (1..=10_000).map(|id| request(id, "/cat", 200, 0, took));
        ready(exporter.export(requests.collect())).unwrap();
    }
    page.read();
    exporter.force_flush().unwrap();
    let table = page.read();
    let row = table.lines().find(|line| line.contains("/cat")).unwrap();
    let columns: Vec<_> = row.split_whitespace().collect();
    let expected = "GET /cat 20000 1.00 ms 1.00 ms 1.00 ms";
    assert_eq!(columns.join(" "), expected, "{table}");

    // Work after a cancelled request counts for the latest 1,024.
    let of_trace = |mut span: SpanData, trace: u128| {
        let flags = (TraceFlags::SAMPLED, false, TraceState::default());
        let (id, trace) = (span.span_context.span_id(), TraceId::from(trace));
        span.span_context = SpanContext::new(trace, id, flags.0, flags.1, flags.2);
        span
    };
    for trace in 1..=1_025 {
        let left = request(1, "/cat", 0, 0, 500_000).with(REQUEST_CANCELLED, "processing_image");
        ready(exporter.export(vec![of_trace(left, trace)])).unwrap();
    }
    for (trace, took) in [(1, 4_500_000), (2, 1_500_000), (1_025, 2_500_000)] {
        let late = span(2, 1, "processing_image", 0, took);
        ready(exporter.export(vec![of_trace(late, trace)])).unwrap();
    }
    page.read();
    exporter.force_flush().unwrap();
    let table = page.read();
    assert!(table.contains("\n3.0 s of work for clients"), "{table}");
}
