//! Shutdown right after the last request loses no span, whatever kind of runtime there is.

use std::time::{Duration, Instant};

use opentelemetry::trace::{Tracer, TracerProvider};
use tower_image_trace::{Protocol, Telemetry, TelemetryError};

use crate::support::otlp::{Behaviour, OtlpServer, PATIENCE};

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

#[tokio::test(flavor = "current_thread")]
async fn a_collector_that_hangs_does_not_hold_it_up() {
    let server = OtlpServer::start();
    server.behave(Behaviour::Hang);
    let telemetry = telemetry(&server, Protocol::Grpc);
    record(&telemetry, 1);
    let started = Instant::now();
    let result = telemetry.shutdown(Duration::from_millis(300)).await;
    assert!(
        matches!(result, Err(TelemetryError::TimedOut { pending: 1, .. })),
        "{result:?}"
    );
    // generous, because the machine may be busy; the collector would have taken for ever
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}
