//! Whatever the collector does, requests are not delayed, memory is bounded, what is lost is counted
//! and told, and a collector that comes back is used again.

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::StatusCode;
use opentelemetry::{
    metrics::MeterProvider,
    trace::{Tracer, TracerProvider},
};
use tonic::Code;
use tower_image_trace::{
    Protocol, Telemetry, TelemetryBuilder, TelemetryError, telemetry::TelemetryEvent,
};

use crate::support::otlp::{Behaviour, OtlpServer, PATIENCE};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

fn builder(endpoint: String, protocol: Protocol, vars: &[(&str, &str)]) -> TelemetryBuilder {
    Telemetry::builder()
        .vars(vars.iter().copied())
        .endpoint(endpoint)
        .protocol(protocol)
}

/// Sends spans as soon as they end, and tries for a second.
const QUICK: [(&str, &str); 2] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "1000"),
];

/// Sends spans as soon as they end, and tries for as long as the tests wait.
const STUBBORN: [(&str, &str); 2] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "30000"),
];

fn record(telemetry: &Telemetry, spans: usize) {
    let tracer = telemetry.tracer_provider().tracer("test");
    for _ in 0..spans {
        drop(tracer.start("span"));
    }
}

/// What telemetry said about itself.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<TelemetryEvent>>>);

impl Log {
    fn listen(&self, builder: TelemetryBuilder) -> TelemetryBuilder {
        let log = self.0.clone();
        builder.on_event(move |event| log.lock().unwrap().push(event.clone()))
    }

    fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn says(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    fn wait_for(&self, text: &str) {
        eventually(
            || self.says(text),
            || format!("{text:?} in {:#?}", self.lines()),
        );
    }
}

fn eventually(condition: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn refuse(http: StatusCode, grpc: Code, retry_after: Option<Duration>) -> Behaviour {
    Behaviour::Refuse {
        http,
        grpc,
        message: "not now",
        retry_after,
    }
}

#[test]
fn down_at_the_start_and_again_later() {
    for protocol in PROTOCOLS {
        let address = OtlpServer::start().address();
        let log = Log::default();
        let telemetry = log
            .listen(builder(address.to_string(), protocol, &STUBBORN))
            .build()
            .unwrap();
        record(&telemetry, 1);
        log.wait_for("exporting spans failed: client error (Connect)");

        let server = OtlpServer::start_at(address);
        server.wait_for_spans(1);
        log.wait_for("exporting spans works again");
        drop(server);
        record(&telemetry, 2);
        let server = OtlpServer::start_at(address);
        server.wait_for_spans(2);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(telemetry.span_stats().exported, 3);
        assert!(
            log.says("the first spans were exported"),
            "{:#?}",
            log.lines()
        );
    }
}

/// The default settings get over a restart of the collector that takes 5 s, at 1,000 spans/s.
fn loses_nothing_in_an_outage_of_5_s(protocol: Protocol) {
    let server = OtlpServer::start();
    let address = server.address();
    let telemetry = builder(address.to_string(), protocol, &[]).build().unwrap();
    let started = Instant::now();
    let mut recorded = 0;
    let mut record_until = |second: u64| {
        while started.elapsed() < Duration::from_secs(second) {
            record(&telemetry, 10);
            recorded += 10;
            let next = Duration::from_millis(recorded as u64);
            std::thread::sleep(next.saturating_sub(started.elapsed()));
        }
    };
    record_until(1);
    server.wait_for_spans(1);
    let before = server.stop();
    record_until(6);
    let server = OtlpServer::start_at(address);
    record_until(7);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    // by their ids, because an answer that was lost with the old collector means a span sent twice
    let received: HashSet<_> = before
        .iter()
        .chain(&server.spans())
        .map(|span| span.span_id.clone())
        .collect();
    assert_eq!(received.len(), recorded);
    assert_eq!(telemetry.span_stats().exported, recorded as u64);
    assert_eq!(telemetry.span_stats().dropped, 0);
}

#[test]
fn an_outage_of_5_s_over_grpc() {
    loses_nothing_in_an_outage_of_5_s(Protocol::Grpc);
}

#[test]
fn an_outage_of_5_s_over_http() {
    loses_nothing_in_an_outage_of_5_s(Protocol::Http);
}

#[test]
fn hanging() {
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Hang);
        let log = Log::default();
        let builder =
            builder(server.endpoint(), protocol, &STUBBORN).timeout(Duration::from_millis(200));
        let telemetry = log.listen(builder).build().unwrap();
        record(&telemetry, 1);
        log.wait_for("no answer within 200ms");
        server.behave(Behaviour::Accept);
        server.wait_for_spans(1);
    }
}

#[test]
fn slow() {
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Slow(Duration::from_millis(100)));
        let telemetry = builder(server.endpoint(), protocol, &QUICK)
            .build()
            .unwrap();
        record(&telemetry, 2_000);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 2_000);
    }
}

#[test]
fn resetting_connections() {
    for protocol in PROTOCOLS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let telemetry = builder(address.to_string(), protocol, &STUBBORN)
            .build()
            .unwrap();
        record(&telemetry, 1);
        for _ in 0..3 {
            drop(listener.accept().unwrap());
        }
        drop(listener);
        OtlpServer::start_at(address).wait_for_spans(1);
    }
}

#[test]
fn refusing_for_good() {
    for protocol in PROTOCOLS {
        for (http, grpc, expected) in [
            (
                StatusCode::BAD_REQUEST,
                Code::InvalidArgument,
                ["400 Bad Request: not now", "INVALID_ARGUMENT: not now"],
            ),
            (
                StatusCode::UNAUTHORIZED,
                Code::Unauthenticated,
                ["401 Unauthorized: not now", "UNAUTHENTICATED: not now"],
            ),
            (
                StatusCode::NOT_FOUND,
                Code::Unimplemented,
                ["404 Not Found", "UNIMPLEMENTED"],
            ),
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::ResourceExhausted,
                ["413 Payload", "RESOURCE_EXHAUSTED"],
            ),
        ] {
            let server = OtlpServer::start();
            server.behave(refuse(http, grpc, None));
            let log = Log::default();
            let telemetry = log
                .listen(builder(server.endpoint(), protocol, &STUBBORN))
                .build()
                .unwrap();
            record(&telemetry, 3);
            let flushed = telemetry.force_flush_blocking(PATIENCE);
            assert!(
                matches!(flushed, Err(TelemetryError::Undelivered { lost: 3 })),
                "{flushed:?}"
            );
            let expected = expected[usize::from(protocol == Protocol::Grpc)];
            assert!(
                log.says(&format!("3 spans were lost: {expected}")),
                "{:#?}",
                log.lines()
            );
            assert_eq!(telemetry.span_stats().failed, 3);
            assert_eq!(server.requests().len(), 1, "no second attempt");

            server.behave(Behaviour::Accept);
            record(&telemetry, 2);
            telemetry.force_flush_blocking(PATIENCE).unwrap();
            assert_eq!(telemetry.span_stats().exported, 2);
        }
    }
}

#[test]
fn overloaded() {
    for protocol in PROTOCOLS {
        for (http, grpc) in [
            (StatusCode::TOO_MANY_REQUESTS, Code::Unavailable),
            (StatusCode::SERVICE_UNAVAILABLE, Code::Aborted),
        ] {
            let server = OtlpServer::start();
            server.behave(refuse(http, grpc, None));
            let telemetry = builder(server.endpoint(), protocol, &STUBBORN)
                .build()
                .unwrap();
            record(&telemetry, 3);
            server.wait_for_requests(2);
            server.behave(Behaviour::Accept);
            server.wait_for_spans(3);
            telemetry.shutdown_blocking(PATIENCE).unwrap();
            assert_eq!(telemetry.span_stats().failed, 0);
        }
    }
}

#[test]
fn overloaded_and_saying_when_to_come_back() {
    for protocol in PROTOCOLS {
        let pause = Duration::from_secs(1);
        let server = OtlpServer::start();
        // RESOURCE_EXHAUSTED is worth another attempt only because it says when
        server.behave(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::ResourceExhausted,
            Some(pause),
        ));
        let telemetry = builder(server.endpoint(), protocol, &STUBBORN)
            .build()
            .unwrap();
        record(&telemetry, 1);
        server.wait_for_requests(1);
        let refused = Instant::now();
        server.behave(Behaviour::Accept);
        server.wait_for_spans(1);
        // the backoff would be 0.25 s
        assert!(
            refused.elapsed() > Duration::from_millis(800),
            "{:?}",
            refused.elapsed()
        );
    }
}

#[test]
fn taking_only_a_part() {
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Reject(2, "too old"));
        let log = Log::default();
        let telemetry = log
            .listen(builder(server.endpoint(), protocol, &QUICK))
            .build()
            .unwrap();
        record(&telemetry, 5);
        telemetry.shutdown_blocking(PATIENCE).unwrap_err();
        let stats = telemetry.span_stats();
        assert_eq!((stats.exported, stats.failed, stats.dropped), (3, 2, 0));
        assert!(
            log.says("the collector rejected 2 spans: too old"),
            "{:#?}",
            log.lines()
        );
    }
}

#[test]
fn away_for_too_long() {
    for protocol in PROTOCOLS {
        let address = OtlpServer::start().address();
        let log = Log::default();
        let telemetry = log
            .listen(builder(address.to_string(), protocol, &QUICK))
            .build()
            .unwrap();
        record(&telemetry, 600);
        log.wait_for("512 spans were lost: client error (Connect)");
        let server = OtlpServer::start_at(address);
        record(&telemetry, 1);
        server.wait_for_spans(1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        let stats = telemetry.span_stats();
        assert_eq!(stats.exported + stats.failed, 601, "{stats:?}");
        assert_eq!(server.spans().len() as u64, stats.exported);
    }
}

/// If ending a span waited for the collector, this test would not end.
#[test]
fn a_full_queue_drops_and_counts() {
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Hang);
        let log = Log::default();
        let vars = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ];
        let builder =
            builder(server.endpoint(), protocol, &vars).timeout(Duration::from_millis(100));
        let telemetry = log.listen(builder).build().unwrap();
        record(&telemetry, 1_000);
        assert_eq!(telemetry.span_stats().dropped, 900);
        log.wait_for("900 spans were dropped because the queue is full");
        server.behave(Behaviour::Accept);
        server.wait_for_spans(100);
    }
}

#[test]
fn metrics_get_over_it_too() {
    for protocol in PROTOCOLS {
        let address = OtlpServer::start().address();
        let log = Log::default();
        let builder = builder(
            address.to_string(),
            protocol,
            &[("OTEL_TRACES_EXPORTER", "none")],
        );
        let telemetry = log.listen(builder.metrics(true)).build().unwrap();
        let counter = telemetry
            .meter_provider()
            .meter("test")
            .u64_counter("pictures")
            .build();
        counter.add(1, &[]);
        telemetry
            .force_flush_blocking(Duration::from_millis(100))
            .unwrap_err();
        log.wait_for("exporting data points failed: client error (Connect)");
        let server = OtlpServer::start_at(address);
        server.wait_for_metric("pictures");
        server.behave(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Unavailable,
            None,
        ));
        telemetry
            .force_flush_blocking(Duration::from_millis(100))
            .unwrap_err();
        server.behave(Behaviour::Accept);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(telemetry.data_point_stats().failed, 0);
    }
}
