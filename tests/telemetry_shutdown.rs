//! Shutdown right after the last request loses no span, whatever kind of runtime there is.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use opentelemetry::{
    metrics::{AsyncInstrument, MeterProvider},
    trace::{Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};
use tower_image_trace::{Protocol, Telemetry, TelemetryError, telemetry::TelemetryEvent};

use crate::support::otlp::{Behaviour, OtlpServer, PATIENCE};
#[cfg(target_os = "linux")]
use crate::support::process::run_alone;

const SPANS: usize = 3_000;

fn telemetry(server: &OtlpServer, protocol: Protocol) -> Telemetry {
    Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint(server.endpoint())
        .protocol(protocol)
        .build()
        .unwrap()
}

fn record(telemetry: &Telemetry, spans: usize) {
    let tracer = telemetry.tracer_provider().tracer("test");
    for number in 0..spans {
        drop(tracer.start(format!("span {number}")));
    }
}

async fn loses_nothing() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = telemetry(&server, protocol);
        record(&telemetry, SPANS);
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(server.spans().len(), SPANS, "{protocol}");
        assert_eq!(telemetry.span_stats().exported, SPANS as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_multi_thread_runtime() {
    tokio::spawn(loses_nothing()).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn on_a_current_thread_runtime() {
    loses_nothing().await;
}

#[test]
fn from_a_plain_thread() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let telemetry = telemetry(&server, protocol);
        record(&telemetry, SPANS);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), SPANS, "{protocol}");
    }
}

/// Blocking the only thread of a runtime is no good idea, but must not be a deadlock.
#[tokio::test(flavor = "current_thread")]
async fn blocking_on_a_current_thread_runtime() {
    let server = OtlpServer::start();
    let telemetry = telemetry(&server, Protocol::Grpc);
    record(&telemetry, SPANS);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    assert_eq!(server.spans().len(), SPANS);
}

#[test]
fn when_simply_dropped() {
    let server = OtlpServer::start();
    let telemetry = telemetry(&server, Protocol::Grpc);
    record(&telemetry, 10);
    drop(telemetry);
    assert_eq!(server.spans().len(), 10);
}

#[test]
fn a_flush_sends_everything_and_goes_on() {
    let server = OtlpServer::start();
    let telemetry = telemetry(&server, Protocol::Http);
    for round in 1..=3 {
        record(&telemetry, 10);
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 10 * round);
    }
}

#[test]
fn twice_in_a_row() {
    let server = OtlpServer::start();
    let telemetry = telemetry(&server, Protocol::Grpc);
    record(&telemetry, 1);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    record(&telemetry, 1);
    assert_eq!(server.spans().len(), 1);
}

/// Generous, because the machine may be busy; the collector would take for ever.
const BOUND: Duration = Duration::from_secs(60);

fn telemetry_of_a_collector_that_hangs(protocol: Protocol) -> (OtlpServer, Telemetry) {
    let server = OtlpServer::start();
    server.behave(Behaviour::Hang);
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint(server.endpoint())
        .protocol(protocol)
        .metrics(true)
        .build()
        .unwrap();
    let meter = telemetry.meter_provider().meter("test");
    meter.u64_counter("pictures").build().add(1, &[]);
    record(&telemetry, SPANS);
    (server, telemetry)
}

async fn ends_in_time() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (server, telemetry) = telemetry_of_a_collector_that_hangs(protocol);
        let timeout = Duration::from_millis(200);
        let started = Instant::now();
        let flushed = telemetry.force_flush(timeout).await;
        assert!(
            matches!(flushed, Err(TelemetryError::TimedOut { .. })),
            "{flushed:?}"
        );
        let ended = telemetry.shutdown(timeout).await;
        assert!(
            matches!(ended, Err(TelemetryError::TimedOut { .. })),
            "{ended:?}"
        );
        telemetry.shutdown(timeout).await.unwrap();
        assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
        assert_eq!(
            telemetry.span_stats().failed,
            SPANS as u64,
            "what is lost is counted"
        );
        assert!(server.spans().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_time_on_a_multi_thread_runtime() {
    ends_in_time().await;
}

#[tokio::test(flavor = "current_thread")]
async fn in_time_on_a_current_thread_runtime() {
    ends_in_time().await;
}

#[test]
fn in_time_from_a_plain_thread_and_when_dropped() {
    let (_server, telemetry) = telemetry_of_a_collector_that_hangs(Protocol::Http);
    let started = Instant::now();
    telemetry
        .shutdown_blocking(Duration::from_millis(200))
        .unwrap_err();
    let (_server, telemetry) = telemetry_of_a_collector_that_hangs(Protocol::Grpc);
    drop(telemetry);
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
}

#[test]
fn a_gauge_that_hangs_does_not_hold_it_up() {
    let server = OtlpServer::start();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let telemetry = telemetry_with_gauge(&server, move || {
        let _ = held.lock().unwrap().recv();
    });
    record(&telemetry, 1);
    let started = Instant::now();
    // faults F19: it was Ok, although the metrics were never read.
    let ended = telemetry.shutdown_blocking(Duration::from_secs(5));
    assert!(
        matches!(ended, Err(TelemetryError::TimedOut { pending: 1, .. })),
        "{ended:?}"
    );
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    assert_eq!(server.spans().len(), 1);
    drop(release);
}

/// The SDK's own shutdown gives up after 5 s, and said so to nobody.
#[test]
fn a_gauge_may_take_as_long_as_is_allowed() {
    let server = OtlpServer::start();
    let telemetry = telemetry_with_gauge(&server, || std::thread::sleep(Duration::from_secs(6)));
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    assert!(server.metrics().iter().any(|metric| metric.name == "gauge"));
}

/// A panic in a callback ends the thread of the SDK's reader.
#[test]
fn metrics_that_cannot_be_read_are_an_error() {
    let server = OtlpServer::start();
    let telemetry = telemetry_with_gauge(&server, || panic!("a gauge of the service"));
    for ended in [
        telemetry.force_flush_blocking(PATIENCE),
        telemetry.force_flush_blocking(PATIENCE),
        telemetry.shutdown_blocking(PATIENCE),
    ] {
        let is_lost = matches!(ended, Err(TelemetryError::Undelivered { lost: 1 }));
        assert!(is_lost, "{ended:?}");
    }
}

fn telemetry_with_gauge(server: &OtlpServer, work: impl Fn() + Send + Sync + 'static) -> Telemetry {
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint(server.endpoint())
        .metrics(true)
        .build()
        .unwrap();
    let meter = telemetry.meter_provider().meter("test");
    let observe = move |gauge: &dyn AsyncInstrument<u64>| {
        work();
        gauge.observe(1, &[]);
    };
    meter
        .u64_observable_gauge("gauge")
        .with_callback(observe)
        .build();
    telemetry
}

/// A callback of the service that hangs holds up neither the counters nor the shutdown: faults F18.
#[test]
fn a_callback_that_hangs_does_not_hold_it_up() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for behaviour in [
            Behaviour::Accept,
            Behaviour::Hang,
            Behaviour::Refuse {
                http: http::StatusCode::BAD_REQUEST,
                grpc: tonic::Code::InvalidArgument,
                message: "no",
                retry_after: None,
            },
            Behaviour::Refuse {
                http: http::StatusCode::SERVICE_UNAVAILABLE,
                grpc: tonic::Code::Unavailable,
                message: "not now",
                retry_after: None,
            },
        ] {
            let server = OtlpServer::start();
            server.behave(behaviour);
            let (release, held) = std::sync::mpsc::channel::<()>();
            let held = std::sync::Mutex::new(held);
            let telemetry = Telemetry::builder()
                .vars([("OTEL_BSP_SCHEDULE_DELAY", "10")])
                .endpoint(server.endpoint())
                .protocol(protocol)
                .on_event(move |event| {
                    if !matches!(event, TelemetryEvent::Started { .. }) {
                        let _ = held.lock().unwrap().recv();
                    }
                })
                .build()
                .unwrap();
            record(&telemetry, 20);
            server.wait_for_requests(1);
            let started = Instant::now();
            let _ = telemetry.shutdown_blocking(Duration::from_millis(200));
            assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
            let stats = telemetry.span_stats();
            assert_eq!(stats.exported + stats.failed, 20, "{stats:?}");
            record(&telemetry, 1);
            drop(release);
            drop(telemetry);
        }
    }
}

/// The other half of faults F18: an answer that begins for ever.
#[test]
fn an_endless_answer_does_not_hold_it_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (said, begun) = std::sync::mpsc::channel();
    let collector = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        while std::io::Write::write_all(&mut connection, b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {
            let _ = said.send(());
        }
    });
    let telemetry = Telemetry::builder()
        .vars([("OTEL_BSP_SCHEDULE_DELAY", "10")])
        .endpoint(endpoint)
        .protocol(Protocol::Http)
        .build()
        .unwrap();
    record(&telemetry, 20);
    begun.recv_timeout(PATIENCE).unwrap();
    let started = Instant::now();
    telemetry
        .shutdown_blocking(Duration::from_millis(200))
        .unwrap_err();
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    assert_eq!(telemetry.span_stats().failed, 20);
    collector.join().unwrap();
}

// faults C18
#[test]
fn what_comes_after_it_is_counted_as_such() {
    let server = OtlpServer::start();
    let telemetry = telemetry(&server, Protocol::Grpc);
    let late = telemetry.tracer_provider().tracer("test").start("late");
    record(&telemetry, 1);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    drop(late);
    record(&telemetry, 2);
    let stats = telemetry.span_stats();
    assert_eq!((stats.exported, stats.failed, stats.dropped), (1, 0, 0));
    assert_eq!(stats.after_shutdown, 3);
}

// faults F14
#[test]
fn a_full_queue_is_shown_as_counts() {
    let server = OtlpServer::start();
    server.behave(Behaviour::Hang);
    let telemetry = telemetry(&server, Protocol::Grpc);
    record(&telemetry, 20_000);
    let shown = format!("{telemetry:?}");
    assert!(shown.contains("pending: 16384"), "{shown}");
    assert!(shown.len() < 10_000, "{}", shown.len());
    telemetry
        .shutdown_blocking(Duration::from_millis(10))
        .unwrap_err();
}

#[test]
fn while_spans_still_come() {
    let server = OtlpServer::start();
    let telemetry = telemetry(&server, Protocol::Grpc);
    let provider = telemetry.tracer_provider();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let recording = std::thread::spawn(move || {
        let tracer = provider.tracer("test");
        let mut recorded = 0_u64;
        while stopped.try_recv().is_err() {
            drop(tracer.start("span"));
            recorded += 1;
        }
        recorded
    });
    server.wait_for_requests(1);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    let _ = stop.send(());
    let recorded = recording.join().unwrap();
    let stats = telemetry.span_stats();
    assert_eq!(server.spans().len() as u64, stats.exported);
    assert_eq!(stats.failed, 0);
    assert_eq!(
        stats.exported + stats.dropped + stats.after_shutdown,
        recorded,
        "{stats:?}"
    );
}

/// Threads have no owner, so this is counted in a process of its own.
#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_left() {
    run_alone("telemetry_shutdown::child_process", |command| command);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a part of another test"]
fn child_process() {
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
        };
        tasks.map(name).collect::<Vec<_>>()
    };
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let before = threads().len();
        let telemetry = Telemetry::builder()
            .vars([] as [(&str, &str); 0])
            // a name, so that it is looked up
            .endpoint(format!("localhost:{}", server.address().port()))
            .protocol(protocol)
            .metrics(true)
            .build()
            .unwrap();
        record(&telemetry, 1);
        assert!(threads().len() > before);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        let deadline = Instant::now() + PATIENCE;
        // a thread is in the list for a moment after it was joined
        while threads().len() > before {
            assert!(Instant::now() < deadline, "{:?}", threads());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Tells what it is asked, and takes its time.
#[derive(Debug)]
struct OwnProcessor {
    asked: mpsc::Sender<String>,
    takes: Duration,
    fails: bool,
}

impl OwnProcessor {
    fn ask(&self, what: impl Into<String>) -> OTelSdkResult {
        let _ = self.asked.send(what.into());
        std::thread::sleep(self.takes);
        match self.fails {
            true => Err(OTelSdkError::InternalFailure("no collector".into())),
            false => Ok(()),
        }
    }
}

impl SpanProcessor for OwnProcessor {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        self.ask("flush")
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.ask(format!("shutdown in {timeout:?}"))
    }
}

fn with_processor(
    server: &OtlpServer,
    takes: Duration,
    fails: bool,
) -> (Telemetry, mpsc::Receiver<String>) {
    let (asked, receiver) = mpsc::channel();
    let processor = OwnProcessor {
        asked,
        takes,
        fails,
    };
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint(server.endpoint())
        .tracer_provider_with(|provider| provider.with_span_processor(processor))
        .build()
        .unwrap();
    (telemetry, receiver)
}

// faults A4
#[test]
fn span_processors_of_the_service_are_flushed_and_shut_down() {
    let server = OtlpServer::start();
    let (telemetry, asked) = with_processor(&server, Duration::ZERO, false);
    record(&telemetry, 3);
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["flush"]);
    assert_eq!(server.spans().len(), 3);
    record(&telemetry, 2);
    telemetry
        .shutdown_blocking(Duration::from_secs(30))
        .unwrap();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["shutdown in 30s"]);
    assert_eq!(server.spans().len(), 5);
    drop(telemetry);
    assert_eq!(asked.try_iter().count(), 0, "once is enough");
}

// faults A4
#[test]
fn a_span_processor_that_hangs_holds_up_no_shutdown() {
    let server = OtlpServer::start();
    let (telemetry, asked) = with_processor(&server, 2 * BOUND, false);
    record(&telemetry, 3);
    let started = Instant::now();
    let error = telemetry
        .shutdown_blocking(Duration::from_secs(5))
        .unwrap_err();
    assert!(matches!(error, TelemetryError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["shutdown in 5s"]);
    assert_eq!(server.spans().len(), 3);
}

#[test]
fn a_span_processor_that_fails_is_an_error() {
    let server = OtlpServer::start();
    let (telemetry, _asked) = with_processor(&server, Duration::ZERO, true);
    record(&telemetry, 3);
    for ended in [
        telemetry.force_flush_blocking(PATIENCE),
        telemetry.shutdown_blocking(PATIENCE),
    ] {
        let is_lost = matches!(ended, Err(TelemetryError::Undelivered { lost: 1 }));
        assert!(is_lost, "{ended:?}");
    }
    assert_eq!(server.spans().len(), 3);
}
