//! The service's log is exported with the ids of the span that was current, and ordinary log lines
//! can have them too.

use std::{
    convert::Infallible,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response};
use opentelemetry_proto::tonic::common::v1::any_value;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, Protocol, RequestTrace, Telemetry,
    telemetry::{Sampler, WithTraceIds},
    trace::Record,
};
use tracing_subscriber::{Layer as _, filter::LevelFilter, fmt::format, layer::SubscriberExt};

use crate::support::{
    Recorder,
    otlp::{self, OtlpServer, PATIENCE},
    process::run_alone,
    registry::Registry,
};

/// A request that writes to the log in its handler and in a stage.
async fn request(layer: &ImageTraceLayer) {
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        tracing::info!("in the handler");
        trace
            .process("")
            .in_scope(|| tracing::warn!(pixels = 42, "in a stage"));
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    service
        .oneshot(Request::get("/").body(()).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn events_are_exported_with_the_ids_of_their_span() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([("IMGPROXY_OPEN_TELEMETRY_ENABLE_LOGS", "true")])
            .endpoint(server.endpoint())
            .protocol(protocol)
            .build()
            .unwrap();
        // with everything that the exporter's libraries log on their thread, at every level
        let subscriber = tracing_subscriber::registry()
            .with(telemetry.log_layer().with_filter(LevelFilter::TRACE));
        {
            let _default = tracing::subscriber::set_default(subscriber);
            tracing::debug!("outside of any request");
            request(&telemetry.trace_layer()).await;
        }
        telemetry.shutdown(PATIENCE).await.unwrap();

        let spans = server.spans();
        let span = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        let (root, stage) = (span("GET"), span("processing_image"));
        let logs = server.logs();
        let of = |text: &str| {
            let found = logs.iter().find(|log| {
                let body = log.body.as_ref().and_then(|body| body.value.as_ref());
                body == Some(&any_value::Value::StringValue(text.to_owned()))
            });
            found.unwrap_or_else(|| panic!("{text} in {logs:#?}"))
        };
        assert_eq!(of("in the handler").trace_id, root.trace_id);
        assert_eq!(of("in the handler").span_id, root.span_id);
        assert_eq!(of("in a stage").span_id, stage.span_id);
        assert_eq!(of("in a stage").severity_text, "WARN");
        assert!(of("outside of any request").trace_id.is_empty());
        assert_eq!(telemetry.log_record_stats().exported, logs.len() as u64);
    }
}

/// The subscriber is that of the whole process, so the exporter's own events reach it as well.
#[test]
fn the_exporters_own_events_are_not_exported() {
    run_alone("telemetry_logs::child_process", |command| command);
}

#[test]
#[ignore = "a part of another test"]
fn child_process() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_BLRP_SCHEDULE_DELAY", "10")])
        .endpoint(server.endpoint())
        .logs(true)
        .build()
        .unwrap();
    let seen = Lines::default();
    let subscriber = tracing_subscriber::registry()
        .with(telemetry.log_layer())
        .with(tracing_subscriber::fmt::layer().with_writer(seen.clone()));
    tracing::subscriber::set_global_default(subscriber).unwrap();
    for round in 1..=5 {
        tracing::info!(target: "service", "round {round}");
        server.wait_for_logs(round);
    }
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    assert!(
        seen.text().contains("hyper_util"),
        "the exporter logs nothing: {}",
        seen.text()
    );
    assert!(seen.text().contains("the first log records were exported"));
    let bodies: Vec<_> = server
        .logs()
        .into_iter()
        .take(10)
        .map(|log| log.body)
        .collect();
    assert_eq!(bodies.len(), 5, "{bodies:?}");
}

#[tokio::test]
async fn log_lines_have_the_ids_too() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(lines.clone())
        .event_format(WithTraceIds::new(format().without_time()))
        .finish();
    let recorder = Recorder::new();
    {
        let _default = tracing::subscriber::set_default(subscriber);
        tracing::info!("outside");
        request(&recorder.layer()).await;
    }
    let trace = recorder.root().0.span_context.trace_id();
    let stage = recorder.span("processing_image").0.span_context.span_id();
    let text = lines.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(!lines[0].contains("trace_id"), "{text}");
    assert!(
        lines[1].contains(&format!(" trace_id={trace} span_id=")),
        "{text}"
    );
    let end = format!("in a stage pixels=42 trace_id={trace} span_id={stage}");
    assert!(lines[2].ends_with(&end), "{text}");
}

// faults G8
#[tokio::test]
async fn lines_of_json_with_ids_are_json() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(lines.clone())
        .event_format(WithTraceIds::new(format().json()))
        .finish();
    let recorder = Recorder::new();
    {
        let _default = tracing::subscriber::set_default(subscriber);
        tracing::info!("outside");
        request(&recorder.layer()).await;
    }
    let trace = recorder.root().trace_id().to_string();
    let stage = recorder.span("processing_image").id().to_string();
    let lines: Vec<serde_json::Value> = lines
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0]["trace_id"], serde_json::Value::Null);
    assert_eq!(lines[1]["trace_id"], *trace);
    assert_eq!(lines[2]["span_id"], *stage);
    assert_eq!(lines[2]["fields"]["pixels"], 42);
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
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

// faults C18
#[test]
fn records_after_the_shutdown_are_counted_as_such() {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .vars([("IMGPROXY_OPEN_TELEMETRY_ENABLE_LOGS", "true")])
        .endpoint(server.endpoint())
        .build()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    let _default = tracing::subscriber::set_default(subscriber);
    tracing::info!("in time");
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    let exported = telemetry.log_record_stats().exported;
    tracing::info!("late");
    let stats = telemetry.log_record_stats();
    assert_eq!((stats.exported, stats.dropped), (exported, 0));
    assert!(stats.after_shutdown >= 1, "{stats:?}");
}

/// Exceptions are log records where logs are exported, and else events of spans. Settings choose, too.
// faults G7
#[tokio::test]
async fn exceptions_are_where_they_are_asked_for() {
    const OPT_IN: &str = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN";
    const OWN: &str = "IMGPROXY_OPEN_TELEMETRY_EXCEPTION_SIGNAL";
    let registry = Registry::read();
    for (variable, opt_in, logs, on_spans, logged) in [
        (OPT_IN, "", true, false, true),
        (OPT_IN, "", false, true, false),
        (OPT_IN, "traces", true, false, true),
        (OPT_IN, "logs", true, false, true),
        (OPT_IN, "logs/dup", true, true, true),
        (OPT_IN, "logs", false, true, false),
        (OWN, "spans", true, true, false),
        (OWN, "logs", true, false, true),
        (OWN, "logs/dup", true, true, true),
    ] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([(variable, opt_in)])
            .endpoint(server.endpoint())
            .logs(logs)
            .build()
            .unwrap();
        let download = telemetry.download_layer();
        let service = telemetry
            .trace_layer()
            .layer(service_fn(|request: Request<()>| {
                let trace = RequestTrace::from_extensions(request.extensions());
                let client = download.layer(service_fn(async |_: Request<()>| {
                    Err::<Response<String>, _>(io::Error::other("no source?sig=secret"))
                }));
                async move {
                    trace.error(ErrorKind::Security, &io::Error::other("not signed"));
                    let get = client.oneshot(Request::get("http://a/").body(()).unwrap());
                    trace.download("http://a/").run(get).await
                }
            }));
        let get = Request::get("/").body(()).unwrap();
        service.oneshot(get).await.unwrap_err();
        telemetry.shutdown(PATIENCE).await.unwrap();

        let spans = server.spans();
        let span = |name: &str, kind: i32| {
            let mut spans = spans.iter();
            let span = spans.find(|span| span.name == name && span.kind == kind);
            span.unwrap_or_else(|| panic!("{name} in {spans:#?}"))
        };
        let (root, client) = (span("GET", 2), span("GET", 3));
        let stage = span("downloading_image", 1);
        // The root span also has those of its stages.
        for (span, exceptions) in [(root, 3), (stage, 1), (client, 1)] {
            let expected = if on_spans { exceptions } else { 0 };
            assert_eq!(span.events.len(), expected, "{opt_in}: {span:#?}");
            assert_eq!(span.status.as_ref().unwrap().code, 2, "{span:#?}");
        }
        let mut records = server.logs();
        if !logged {
            assert_eq!(records.len(), 0, "{opt_in}: {records:#?}");
            continue;
        }
        records.sort_by_key(|record| record.time_unix_nano);
        let expected = [
            ("image.request.exception", root, "not signed", 13, "WARN"),
            (
                "http.client.request.exception",
                client,
                "no source?sig=REDACTED",
                13,
                "WARN",
            ),
            (
                "image.stage.exception",
                stage,
                "no source?sig=REDACTED",
                13,
                "WARN",
            ),
            (
                "http.server.request.exception",
                root,
                "no source?sig=REDACTED",
                17,
                "ERROR",
            ),
        ];
        assert_eq!(records.len(), expected.len(), "{records:#?}");
        for (record, (name, span, message, severity, text)) in records.iter().zip(expected) {
            assert_eq!(record.event_name, name);
            assert_eq!(record.trace_id, span.trace_id);
            assert_eq!(record.span_id, span.span_id, "{name}");
            assert_eq!(record.severity_number, severity, "{name}");
            assert_eq!(record.severity_text, text);
            let attributes = otlp::attributes(&record.attributes);
            assert_eq!(attributes["exception.message"], message);
            assert_eq!(attributes["exception.type"], "io");
            assert_eq!(attributes.len(), 2);
            match registry.events.get(name) {
                Some(declared) => assert!(attributes.keys().eq(declared)),
                None => assert!(registry.imports.contains(name), "{name} is undeclared"),
            }
        }
    }
}

/// Also where there is no span whose date they could have.
#[tokio::test]
async fn exceptions_are_dated() {
    for (traces, sampler, record) in [
        ("otlp", Sampler::AlwaysOn, Record::All),
        ("otlp", Sampler::AlwaysOff, Record::All),
        ("otlp", Sampler::AlwaysOn, Record::Metrics),
        ("none", Sampler::AlwaysOn, Record::All),
    ] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .endpoint(server.endpoint())
            .sampler(sampler)
            .vars([("OTEL_TRACES_EXPORTER", traces)])
            .metrics(true)
            .logs(true)
            .build()
            .unwrap();
        let layer = telemetry.trace_layer_builder().filter(move |_| record);
        let service = layer
            .build()
            .layer(service_fn(async |request: Request<()>| {
                let trace = RequestTrace::from_extensions(request.extensions());
                trace.error(ErrorKind::Security, &io::Error::other("not signed"));
                let fails = async { Err::<Response<String>, _>(io::Error::other("no source")) };
                trace.download("http://a/").run(fails).await
            }));
        let before = SystemTime::now();
        let get = Request::get("/").body(()).unwrap();
        service.oneshot(get).await.unwrap_err();
        let after = SystemTime::now();
        telemetry.shutdown(PATIENCE).await.unwrap();

        let records = server.logs();
        assert_eq!(records.len(), 3, "{records:#?}");
        for record in records {
            let at = UNIX_EPOCH + Duration::from_nanos(record.time_unix_nano);
            assert!((before..=after).contains(&at), "{record:#?}");
        }
    }
}

#[tokio::test]
async fn attributes_beyond_the_limit_are_dropped_and_counted() {
    for variable in [
        "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
    ] {
        let server = OtlpServer::start();
        let telemetry = Telemetry::builder()
            .vars([(variable, "2")])
            .endpoint(server.endpoint())
            .logs(true)
            .build()
            .unwrap();
        let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
        tracing::subscriber::with_default(subscriber, || tracing::info!(a = 1, b = 2, c = 3));
        telemetry.shutdown(PATIENCE).await.unwrap();
        let logs = server.logs();
        assert_eq!(logs.len(), 1, "{logs:#?}");
        assert!(otlp::attributes(&logs[0].attributes).keys().eq(["a", "b"]));
        assert_eq!(logs[0].dropped_attributes_count, 1);
    }
}
