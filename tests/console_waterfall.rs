//! A service without a collector shows its requests on the terminal. It goes on when the terminal
//! cannot be written to.

use std::{
    convert::Infallible,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanExporter},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_image_trace::{ImageTraceLayer, RequestTrace, Stage, console::ConsoleExporter};

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

struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
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
    let starts = [
        "  /fit:300/missing.jpg · 5 B",
        "  continued from upstream span 00f067aa0ba902b7",
        "  queue ",
        "  downloading_image ",
        "    http://127.0.0.1:8081/missing.jpg",
        "    error: no such picture (",
        "",
    ];
    assert_eq!(lines.len(), 1 + starts.len(), "{lines:#?}");
    for (line, start) in lines[1..].iter().zip(starts) {
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

#[tokio::test]
async fn a_closed_pipe_is_no_concern_of_the_request() {
    let exporter = ConsoleExporter::new(ClosedPipe);
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
async fn a_closed_pipe_is_reported_and_so_is_use_after_shutdown() {
    let spans = || {
        let kept = opentelemetry_sdk::trace::InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(kept.clone())
            .build();
        provider.tracer("test").in_span("root", |_| ());
        kept.get_finished_spans().unwrap()
    };
    let exporter = ConsoleExporter::new(ClosedPipe);
    for _ in 0..2 {
        let error = exporter.export(spans()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the waterfall could not be written"),
            "{error}"
        );
    }
    exporter.shutdown().unwrap();
    let error = exporter.export(spans()).await.unwrap_err();
    assert!(
        matches!(
            error,
            opentelemetry_sdk::error::OTelSdkError::AlreadyShutdown
        ),
        "{error}"
    );
}
