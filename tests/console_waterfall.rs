//! A service without a collector shows its requests on the terminal. It goes on when the terminal
//! cannot be written to.

use std::{
    convert::Infallible,
    io::{self, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::{
    error::OTelSdkError,
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider, SpanData, SpanExporter},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_image_trace::{
    ImageTraceLayer, RequestTrace, Stage, Telemetry, console::ConsoleExporter,
};

use crate::support::otlp::PATIENCE;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

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
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// A writer that always fails, and counts how often it was asked.
struct Failing(io::ErrorKind, Arc<AtomicUsize>);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

/// A page whose first write panics. So does its `Drop`.
struct Panicking(Page, bool);

impl Write for Panicking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(std::mem::replace(&mut self.1, true), "on purpose");
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// A stage that travels with a response and ends after it.
type LateStage = Arc<Mutex<Option<Stage>>>;

async fn not_found(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let trace = RequestTrace::from_extensions(request.extensions());
    trace.set_route("/{options}/{*source}");
    trace.queue().end();
    let missing = trace.download("http://127.0.0.1:8081/missing.jpg");
    missing.record_error(&io::Error::new(io::ErrorKind::NotFound, "no such picture"));
    missing.end();
    let mut response = Response::new(Full::new(Bytes::from_static(b"sorry")));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let late = Mutex::new(Some(trace.stage("archive")));
    response.extensions_mut().insert(LateStage::new(late));
    Ok(response)
}

/// Sends one request through the layer and reads its response to the end.
async fn one_request(provider: &SdkTracerProvider) -> (Response<Bytes>, Stage) {
    let layer = ImageTraceLayer::builder()
        .tracer_provider(provider.clone())
        .propagators(TraceContextPropagator::new())
        .metrics(false)
        .build();
    let service = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(not_found));
    let request = Request::get("/fit:300/missing.jpg")
        .header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"))
        .body(Full::default())
        .unwrap();
    let mut response = service.oneshot(request).await.unwrap();
    let archive = response.extensions_mut().remove::<LateStage>().unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let archive = archive.lock().unwrap().take().unwrap();
    (Response::from_parts(head, body), archive)
}

#[tokio::test]
async fn a_request_is_shown_when_it_ends_and_a_late_stage_when_that_ends() {
    let page = Page::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(ConsoleExporter::new(page.clone()).with_width(80))
        .build();
    let (_, archive) = one_request(&provider).await;

    let lines = page.lines();
    assert!(
        lines[0].starts_with("GET /{options}/{*source} 404 "),
        "{lines:#?}"
    );
    assert!(lines[0].ends_with(TRACE_ID), "{lines:#?}");
    // The line starts with the time of day.
    assert!(
        lines[1].ends_with(" · /fit:300/missing.jpg · 5 B"),
        "{lines:#?}"
    );
    let starts = [
        "  continued from upstream span 00f067aa0ba902b7",
        "  queue ",
        "  downloading_image ",
        "    http://127.0.0.1:8081/missing.jpg",
        "    error: no such picture (",
        "",
    ];
    assert_eq!(lines.len(), 2 + starts.len(), "{lines:#?}");
    for (line, start) in lines[2..].iter().zip(starts) {
        assert!(line.starts_with(start), "{start} in {lines:#?}");
    }

    archive.end();
    let lines = &page.lines()[lines.len()..];
    assert!(
        lines[0].starts_with("ended after the request "),
        "{lines:#?}"
    );
    assert!(lines[0].ends_with(TRACE_ID), "{lines:#?}");
    assert!(lines[1].starts_with("  archive "), "{lines:#?}");
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn shutdown_prints_what_has_no_root_yet() {
    let page = Page::default();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(ConsoleExporter::new(page.clone()).with_width(80))
        .build();
    let tracer = provider.tracer("test");
    tracer.in_span("never ends", |root| {
        tracer.in_span("reload", |_| ());
        provider.shutdown().unwrap();
        drop(root);
    });
    let lines = page.lines();
    assert!(lines[0].starts_with("request not ended "), "{lines:#?}");
    assert!(lines[1].starts_with("  reload "), "{lines:#?}");
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

/// The spans of one trace.
fn trace() -> Vec<SpanData> {
    let kept = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(kept.clone())
        .build();
    provider.tracer("test").in_span("root", |_| ());
    kept.get_finished_spans().unwrap()
}

#[tokio::test]
async fn a_full_disk_is_no_concern_of_the_request() {
    let exporter = ConsoleExporter::new(Failing(io::ErrorKind::StorageFull, Arc::default()));
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter)
        .build();
    let (response, _) = one_request(&provider).await;
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::NOT_FOUND, &b"sorry"[..])
    );
}

#[tokio::test]
async fn a_full_disk_is_reported_and_so_is_use_after_shutdown() {
    let exporter = ConsoleExporter::new(Failing(io::ErrorKind::StorageFull, Arc::default()));
    for _ in 0..2 {
        let error = exporter.export(trace()).await.unwrap_err().to_string();
        assert!(
            error.contains("the console could not be written to: no storage space"),
            "{error}"
        );
    }
    exporter.shutdown().unwrap();
    let error = exporter.export(trace()).await.unwrap_err();
    assert!(matches!(error, OTelSdkError::AlreadyShutdown), "{error}");
}

// faults G13
#[tokio::test]
async fn a_closed_pipe_ends_the_waterfall_quietly() {
    let writes = Arc::new(AtomicUsize::new(0));
    let exporter = ConsoleExporter::new(Failing(io::ErrorKind::BrokenPipe, writes.clone()));
    for _ in 0..3 {
        exporter.export(trace()).await.unwrap();
    }
    exporter.force_flush().unwrap();
    exporter.shutdown().unwrap();
    assert_eq!(
        writes.load(Ordering::Relaxed),
        1,
        "nothing is written any more"
    );
}

// faults C13
#[tokio::test]
async fn a_writer_that_panics_loses_one_batch_and_nothing_else() {
    let page = Page::default();
    let exporter = ConsoleExporter::new(Panicking(page.clone(), false));
    let error = exporter.export(trace()).now_or_never().unwrap();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("the writer of the console panicked"),
        "{error}"
    );
    exporter.export(trace()).await.unwrap();
    assert!(page.lines()[0].starts_with("root "), "{:?}", page.lines());
    exporter.shutdown().unwrap();
}

// faults C13
#[tokio::test]
async fn a_writer_that_panics_is_no_concern_of_telemetry() {
    let page = Page::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    let said = events.clone();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .console_exporter(ConsoleExporter::new(Panicking(page.clone(), false)))
        .on_event(move |event| said.lock().unwrap().push(event.to_string()))
        .build()
        .unwrap();
    let tracer = telemetry.tracer_provider().tracer("test");
    for name in ["lost", "shown"] {
        tracer.in_span(name, |_| ());
        let flushed = telemetry.force_flush(PATIENCE).await;
        assert_eq!(flushed.is_err(), name == "lost", "{flushed:?}");
    }
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert!(page.lines()[0].starts_with("shown "), "{:?}", page.lines());
    let stats = telemetry.span_stats();
    assert_eq!((stats.exported, stats.failed), (1, 1), "{stats:?}");
    let events = events.lock().unwrap();
    let of_panic = |event: &&String| event.contains("the writer of the console panicked");
    assert_eq!(events.iter().filter(of_panic).count(), 1, "{events:?}");
}

#[cfg(target_os = "linux")]
mod terminal {
    use std::{
        fs::File,
        io::Read,
        process::{Command, Stdio},
    };

    use rustix::{
        pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
        termios::{Winsize, tcsetwinsize},
    };

    use super::*;

    #[test]
    #[ignore = "the child process of the test below"]
    fn prints_a_waterfall() {
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(ConsoleExporter::stdout().with_color(false))
            .build();
        let tracer = provider.tracer("test");
        tracer.in_span("root", |_| tracer.in_span("stage", |_| ()));
        provider.shutdown().unwrap();
    }

    // faults G13
    #[test]
    fn a_waterfall_is_as_wide_as_its_terminal() {
        for columns in [50, 80, 200] {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = openpt(flags).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
            let size = Winsize {
                ws_col: columns,
                ws_row: 24,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            tcsetwinsize(&terminal, size).unwrap();
            let name = "console_waterfall::terminal::prints_a_waterfall";
            let mut child = Command::new(std::env::current_exe().unwrap());
            child
                .args(["--ignored", "--nocapture", "--exact", name])
                .env_remove("COLUMNS")
                .stdin(Stdio::null())
                .stdout(terminal);
            let mut process = child.spawn().unwrap();
            // The command holds the terminal, which ends when nobody has it open.
            drop(child);
            let mut shown = Vec::new();
            // The end of a terminal is an error.
            File::from(master).read_to_end(&mut shown).unwrap_err();
            assert!(process.wait().unwrap().success());
            let shown = String::from_utf8(shown).unwrap();
            let stage = shown.lines().find(|line| line.starts_with("  stage "));
            let width = stage.map(|line| line.trim_end().chars().count());
            assert_eq!(width, Some(columns.into()), "{shown}");
        }
    }
}
