//! 30,000 spans/s, and 5,000/s to a collector that takes 200 ms for an answer, for 10 s with default settings,
//! without losing one.
//!
//! Takes 10 s and most of two cores, so it is run on its own:
//! `cargo test --release --test behaviour -- --ignored --test-threads 1 thousand_a_second`.

use std::time::{Duration, Instant};

use opentelemetry::{
    KeyValue,
    trace::{Span, Tracer, TracerProvider},
};
use tower_image_trace::{Protocol, Telemetry};

use crate::support::otlp::{Behaviour, OtlpServer, PATIENCE};

const SECONDS: u32 = 10;

fn loses_nothing(protocol: Protocol, rate: u32, behaviour: Behaviour) {
    let server = OtlpServer::start();
    server.behave(behaviour);
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint(server.endpoint())
        .protocol(protocol)
        .build()
        .unwrap();
    let tracer = telemetry.tracer_provider().tracer("test");
    let started = Instant::now();
    for number in 0..rate * SECONDS {
        let mut span = tracer.start("request");
        span.set_attributes((0..8).map(|key| KeyValue::new(format!("key.{key}"), "value")));
        drop(span);
        if number % 300 == 0 {
            let due = Duration::from_secs(1) / rate * number;
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    let took = started.elapsed();
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    println!(
        "{protocol}: {} spans in {took:?}, {:?}",
        rate * SECONDS,
        telemetry.span_stats()
    );
    assert_eq!(server.spans().len() as u32, rate * SECONDS);
}

#[test]
#[ignore = "takes 10 s and two cores"]
fn thirty_thousand_a_second_over_grpc() {
    loses_nothing(Protocol::Grpc, 30_000, Behaviour::Accept);
}

#[test]
#[ignore = "takes 10 s and two cores"]
fn thirty_thousand_a_second_over_http() {
    loses_nothing(Protocol::Http, 30_000, Behaviour::Accept);
}

#[test]
#[ignore = "takes 10 s"]
fn five_thousand_a_second_to_a_far_collector() {
    let far = Behaviour::Slow(Duration::from_millis(200));
    loses_nothing(Protocol::Grpc, 5_000, far);
}
