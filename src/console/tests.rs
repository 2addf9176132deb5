//! Whole blocks as text, from spans built by hand.

use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

use super::*;
use crate::attribute::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

/// A span that starts and ends so many microseconds after the beginning of time.
fn span(id: u64, parent: u64, name: &'static str, start: u64, end: u64) -> SpanData {
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

fn request(id: u64, route: &'static str, status: i64, start: u64, end: u64) -> SpanData {
    let mut span = span(id, 0, "GET", start, end)
        .with("http.request.method", "GET")
        .with("http.route", route);
    span.span_kind = SpanKind::Server;
    match status {
        0 => span,
        status => span.with("http.response.status_code", status),
    }
}

trait With {
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
    /// What was written since the last call.
    fn read(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

fn exporter(columns: usize) -> (ConsoleExporter, Page) {
    let page = Page::default();
    (ConsoleExporter::new(page.clone()).with_width(columns), page)
}

/// The page that spans make which come in one batch.
fn draw(columns: usize, spans: Vec<SpanData>) -> String {
    let (exporter, page) = exporter(columns);
    futures_executor(exporter.export(spans)).unwrap();
    page.read()
}

/// `export` has nothing to wait for.
fn futures_executor<F: Future>(future: F) -> F::Output {
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
fn samples() {
    println!();
    for columns in [80, 40, 120] {
        print!("{}", draw(columns, resize()));
    }
    let missing = vec![
        span(2, 1, "queue", 8, 11),
        span(3, 1, "downloading_image", 30, 3_400)
            .with(SOURCE_URL, "http://127.0.0.1:8081/images/missing.jpg")
            .with_error(
                "the origin answered 404 Not Found",
                "image_proxy::DownloadError",
            ),
        request(1, "/resize/{options}/{*source}", 404, 0, 3_600).with_error(
            "the origin answered 404 Not Found",
            "image_proxy::DownloadError",
        ),
    ];
    print!("{}", draw(80, missing));
    let cancelled = vec![
        span(2, 1, "queue", 8, 11),
        span(3, 1, "downloading_image", 30, 1_203_400)
            .with(SOURCE_URL, "http://127.0.0.1:8081/slow/rocket.jpg")
            .with(STAGE_CANCELLED, true),
        request(1, "/resize/{options}/{*source}", 0, 0, 1_203_600)
            .with(REQUEST_CANCELLED, "downloading_image"),
    ];
    print!("{}", draw(80, cancelled));
    let spans = vec![span(2, 1, "queue", 8, 11), request(1, "/{options}/{*source}", 500, 0, 200).with_error("index out of bounds: the len is 3 but the index is 7, and some more of the long text that goes on and on http://127.0.0.1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "panic")];
    print!("{}", draw(80, spans));
    print!(
        "{}",
        draw(80, vec![span(1, 0, "reload configuration", 0, 125_000_000)])
    );
    let (exporter, page) = exporter(80);
    let mut batch = resize();
    let late = batch.remove(4);
    futures_executor(exporter.export(batch)).unwrap();
    futures_executor(exporter.export(vec![late])).unwrap();
    futures_executor(exporter.export(vec![span(12, 11, "queue", 0, 3000)])).unwrap();
    exporter.shutdown().unwrap();
    print!("{}", page.read());
    let (exporter, page) = self::exporter(80);
    let exporter = exporter.with_color(true);
    futures_executor(exporter.export(resize())).unwrap();
    print!("{}", page.read());
}
