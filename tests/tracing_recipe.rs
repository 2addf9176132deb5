//! A service with `tracing` everywhere: one layer has its spans and events in the traces and logs, once.

use std::{
    convert::Infallible,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::{common::v1::any_value, logs::v1::LogRecord};
use tower::{Layer as _, ServiceExt, service_fn};
use tower_image_trace::{
    DownloadLayer, ImageTraceLayer, RequestTrace, Telemetry, TelemetryBuilder,
    telemetry::{ExceptionSignal, WithTraceIds},
    trace::PeerAddr,
};
use tracing::Dispatch;
use tracing_subscriber::{
    Layer, Registry, filter::LevelFilter, fmt, prelude::*, registry::LookupSpan,
};

use crate::support::{
    otlp::{self, OtlpServer, PATIENCE, ReceivedSpan},
    process::run_alone,
};

#[tracing::instrument]
async fn look_up(id: u32) -> u32 {
    tokio::task::yield_now().await;
    tracing::info!("looked up");
    id
}

/// A stage, and an attempt of a download, in a `tracing` span.
#[tracing::instrument(skip_all)]
async fn fetch(trace: RequestTrace, layer: DownloadLayer) {
    let client = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let request = Request::get("http://cdn.example/cat.jpg").body(()).unwrap();
    drop(client.oneshot(request).await.unwrap());
    let stage = trace.stage("decode");
    stage.attach(look_up(3)).await;
    tracing::error!("no picture");
}

async fn request(layer: &ImageTraceLayer, downloads: &DownloadLayer) {
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        tracing::warn!(pixels = 42, "in the handler");
        look_up(1).await;
        let stage = trace.download("http://cdn.example/cat.jpg");
        let fetched = stage.run_infallible(fetch(trace.clone(), downloads.clone()));
        fetched.await;
        // A service's subscriber is that of all threads; the test's must be taken along.
        let subscriber = tracing::dispatcher::get_default(Clone::clone);
        let work = trace.process("w:1").run_blocking(move || {
            tracing::dispatcher::with_default(&subscriber, || {
                tracing::info_span!("resize").in_scope(|| tracing::info!("resized"));
            });
            Ok::<_, Infallible>(())
        });
        work.await.unwrap();
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let request = Request::get("/").body(()).unwrap();
    service.oneshot(request).await.unwrap();
}

fn text(log: &LogRecord) -> &str {
    match log.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        _ => "",
    }
}

/// What the request of `request` must have left behind.
struct Seen {
    spans: Vec<ReceivedSpan>,
    logs: Vec<LogRecord>,
    lines: String,
}

impl Seen {
    fn named(&self, name: &str) -> Vec<&ReceivedSpan> {
        let mut spans: Vec<_> = self.spans.iter().filter(|span| span.name == name).collect();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    fn names(&self) -> Vec<&str> {
        self.spans.iter().map(|span| span.name.as_str()).collect()
    }

    fn assert_spans(&self) {
        let root = self.spans.iter().find(|span| span.kind == 2).unwrap();
        let only = |name| {
            let found = self.named(name);
            assert_eq!(found.len(), 1, "{name}: {:?}", self.names());
            found[0]
        };
        let look_ups = self.named("look_up");
        let attempt = self.spans.iter().find(|span| span.kind == 3).unwrap();
        for (child, parent) in [
            (look_ups[0], root),
            (only("downloading_image"), root),
            (only("fetch"), only("downloading_image")),
            (attempt, only("fetch")),
            (only("decode"), only("fetch")),
            (look_ups[1], only("decode")),
            (only("processing_image"), root),
            (only("resize"), only("processing_image")),
        ] {
            let (name, above) = (&child.name, &parent.name);
            assert_eq!(child.parent_span_id, parent.span_id, "{name} in {above}");
            assert_eq!(child.trace_id, root.trace_id, "{name}");
        }
        assert_eq!(look_ups.len(), 2);
        assert_eq!(self.spans.len(), 9, "{:?}", self.names());
        let keys = otlp::attributes(&look_ups[0].attributes);
        // faults G6
        assert!(keys.keys().eq(["id"]), "{keys:?}");
        // An event of level ERROR marks the span that it is in, and no other.
        for span in &self.spans {
            let failed = span.status.as_ref().is_some_and(|status| status.code == 2);
            assert_eq!(failed, span.name == "fetch", "{span:#?}");
        }
    }

    fn events(&self) -> usize {
        self.spans.iter().map(|span| span.events.len()).sum()
    }

    /// Each event is a log record with the ids of the span that it is in, and a line with the same.
    fn assert_logs(&self) {
        let root = self.spans.iter().find(|span| span.kind == 2).unwrap();
        for (text, span, level) in [
            ("in the handler", root, "WARN"),
            ("looked up", self.named("look_up")[0], "INFO"),
            ("looked up", self.named("look_up")[1], "INFO"),
            ("no picture", self.named("fetch")[0], "ERROR"),
            ("resized", self.named("resize")[0], "INFO"),
        ] {
            let is_it = |log: &&LogRecord| self::text(log) == text && log.span_id == span.span_id;
            let found: Vec<_> = self.logs.iter().filter(is_it).collect();
            assert_eq!(found.len(), 1, "{text}: {:#?}", self.logs);
            assert_eq!(found[0].severity_text, level);
            assert_eq!(found[0].trace_id, root.trace_id);
            let id: String = span
                .span_id
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let mut lines = self.lines.lines();
            let has_ids =
                |line: &str| line.contains(text) && line.contains(&format!(" span_id={id}"));
            assert!(lines.any(has_ids), "{text} {id}: {}", self.lines);
        }
    }
}

async fn seen(
    level: LevelFilter,
    configure: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder,
) -> Seen {
    let server = OtlpServer::start();
    let builder = Telemetry::builder().vars([("OTEL_BLRP_SCHEDULE_DELAY", "10")]);
    let telemetry = configure(builder.endpoint(server.endpoint()))
        .build()
        .unwrap();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry()
        .with(telemetry.tracing_layer().with_filter(level))
        .with(
            fmt::layer()
                .with_ansi(false)
                .with_writer(lines.clone())
                .event_format(WithTraceIds::new(fmt::format().with_ansi(false)))
                .with_filter(LevelFilter::INFO),
        );
    {
        let _default = tracing::subscriber::set_default(subscriber);
        request(&telemetry.trace_layer(), &telemetry.download_layer()).await;
    }
    telemetry.shutdown(PATIENCE).await.unwrap();
    let is_ours = |log: &LogRecord| !text(log).is_empty();
    Seen {
        spans: server.spans(),
        logs: server.logs().into_iter().filter(is_ours).collect(),
        lines: lines.text(),
    }
}

#[tokio::test]
async fn spans_are_in_the_trace_and_events_are_logs() {
    let seen = seen(LevelFilter::INFO, |builder| builder.logs(true)).await;
    seen.assert_spans();
    seen.assert_logs();
    assert_eq!(seen.logs.len(), 5, "{:#?}", seen.logs);
    // faults G7
    assert_eq!(seen.events(), 0, "{:#?}", seen.spans);
}

/// The ordinary log of a service that lets warnings through.
fn warnings<S>() -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = fmt::layer().with_writer(io::sink);
    lines.with_filter(LevelFilter::WARN)
}

/// What is around the layer, and beside it, is the service's own business.
#[tokio::test]
async fn spans_arrive_wherever_filters_are() {
    type Combine = fn(&Telemetry) -> Dispatch;
    let combinations: [Combine; 5] = [
        |telemetry| Registry::default().with(telemetry.tracing_layer()).into(),
        |telemetry| {
            Registry::default()
                .with(Some(telemetry.tracing_layer()))
                .into()
        },
        |telemetry| {
            Registry::default()
                .with(telemetry.tracing_layer())
                .with(warnings())
                .into()
        },
        |telemetry| {
            Registry::default()
                .with(warnings())
                .with(telemetry.tracing_layer())
                .into()
        },
        |telemetry| {
            let spans = telemetry.tracing_layer().with_filter(LevelFilter::INFO);
            Registry::default().with(spans).into()
        },
    ];
    for logs in [false, true] {
        for (number, combine) in combinations.iter().enumerate() {
            let server = OtlpServer::start();
            let builder = Telemetry::builder().vars([("", ""); 0]).logs(logs);
            let telemetry = builder.endpoint(server.endpoint()).build().unwrap();
            tracing::dispatcher::with_default(&combine(&telemetry), || {
                tracing::info_span!("own").in_scope(|| tracing::error!("inside"));
            });
            telemetry.shutdown(PATIENCE).await.unwrap();
            let spans = server.spans();
            assert_eq!(spans.len(), 1, "{number}, logs: {logs}");
            assert_eq!(spans[0].name, "own");
            assert_eq!(
                spans[0].events.len(),
                usize::from(!logs),
                "{number}, logs: {logs}"
            );
        }
    }
}

// faults G7
#[tokio::test]
async fn events_are_events_of_spans_where_no_logs_are_exported_or_when_both_are_asked_for() {
    let without = seen(LevelFilter::INFO, |builder| builder).await;
    without.assert_spans();
    assert_eq!(without.logs.len(), 0);
    // The one in the handler is in no `tracing` span.
    assert_eq!(without.events(), 4);

    let both = seen(LevelFilter::INFO, |builder| {
        builder.logs(true).exception_signal(ExceptionSignal::Both)
    });
    let both = both.await;
    both.assert_spans();
    both.assert_logs();
    assert_eq!(both.events(), 4);
}

/// How often the page has an event of a request's `tracing` span, as an event or as a log line.
async fn times_on_page(configure: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder) -> usize {
    let builder = Telemetry::builder().vars([("OTEL_BLRP_SCHEDULE_DELAY", "10")]);
    let telemetry = configure(builder.trace_page(true)).build().unwrap();
    let layer = telemetry.tracing_layer().with_filter(LevelFilter::INFO);
    {
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        request(&telemetry.trace_layer(), &telemetry.download_layer()).await;
    }
    let get = async |path: &str| {
        let request = Request::get(path)
            .header("host", "localhost")
            .extension(PeerAddr::from(SocketAddr::from(([127, 0, 0, 1], 1))));
        let request = request.body(()).unwrap();
        let response = telemetry.trace_page().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let traces: serde_json::Value = serde_json::from_str(&get("/api/traces").await).unwrap();
    let id = traces["traces"][0]["trace_id"].as_str().unwrap().to_owned();
    let trace = get(&format!("/api/traces/{id}")).await;
    telemetry.shutdown(PATIENCE).await.unwrap();
    trace.matches("no picture").count()
}

// faults G7
#[tokio::test]
async fn the_page_has_each_event_once_whatever_is_exported() {
    let server = OtlpServer::start();
    let endpoint = server.endpoint();
    assert_eq!(times_on_page(|builder| builder).await, 1, "only the page");
    let traces = times_on_page(|builder| builder.endpoint(&endpoint));
    assert_eq!(traces.await, 1, "traces are exported");
    let logs = times_on_page(|builder| builder.endpoint(&endpoint).logs(true));
    assert_eq!(logs.await, 1, "traces and logs are exported");
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The collector is in another process, because this one traces all that its libraries do.
// faults C1
#[test]
fn the_export_is_no_part_of_it_at_any_level() {
    let server = OtlpServer::start();
    let endpoint = format!("http://{}", server.endpoint());
    run_alone("tracing_recipe::child_process", |command| {
        command
            .env(ENDPOINT, endpoint)
            .env("OTEL_LOGS_EXPORTER", "otlp")
    });
    let names = server.spans().into_iter().map(|span| span.name.clone());
    assert_eq!(names.collect::<Vec<_>>(), ["round"; 5]);
    let logs = server.logs();
    let texts = logs
        .iter()
        .map(text)
        .filter(|text| text.starts_with("round"));
    assert_eq!(texts.count(), 5);
    assert!(
        logs.len() <= 8,
        "the start, the first exports, five rounds: {logs:#?}"
    );
}

#[test]
#[ignore = "a part of another test"]
fn child_process() {
    if std::env::var(ENDPOINT).is_err() {
        return;
    }
    let telemetry = Telemetry::from_env().unwrap();
    let seen = Lines::default();
    tracing_subscriber::registry()
        .with(telemetry.tracing_layer())
        .with(fmt::layer().with_writer(seen.clone()))
        .init();
    // What was said before there was a subscriber is said again: faults G12.
    drop(telemetry.trace_layer());
    assert!(seen.text().contains("telemetry started"), "{}", seen.text());
    for round in 1..=5 {
        tracing::info_span!("round").in_scope(|| tracing::info!("round {round}"));
        telemetry.force_flush_blocking(PATIENCE).unwrap();
    }
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    assert!(seen.text().contains("h2"), "the exporter logs nothing");
}

/// A layer of telemetry that is off, or has only some signals, takes nothing from other layers.
#[tokio::test]
async fn telemetry_that_is_off_leaves_the_log_alone() {
    for vars in [
        &[][..],
        &[
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ],
    ] {
        let telemetry = Telemetry::builder().vars(vars.to_vec()).build().unwrap();
        let lines = Lines::default();
        let subscriber = Registry::default()
            .with(telemetry.tracing_layer().with_filter(LevelFilter::INFO))
            .with(fmt::layer().with_writer(lines.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::debug!("still there"));
        assert!(lines.text().contains("still there"), "{vars:?}");
    }
}

/// A writer into memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
