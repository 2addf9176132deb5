//! Whatever the collector does, requests are not delayed, memory is bounded, what is lost is counted
//! and told, and a collector that comes back is used again.

use std::{
    collections::HashSet,
    net::TcpListener,
    time::{Duration, Instant},
};

use http::StatusCode;
use opentelemetry::{
    KeyValue,
    metrics::MeterProvider,
    trace::{Tracer, TracerProvider},
};
use tonic::Code;
use tower_image_trace::{
    Protocol, Telemetry, TelemetryBuilder, TelemetryError,
    telemetry::{SignalStats, TelemetryEvent},
};

use crate::support::{
    events::Log,
    otlp::{Behaviour, OtlpServer, PATIENCE},
};

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

/// What is exported, as soon as it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Signal {
    Spans,
    DataPoints,
}

impl Signal {
    /// Only this signal is on, and is tried for as long as the tests wait.
    fn builder(self, endpoint: String, protocol: Protocol) -> TelemetryBuilder {
        let vars = match self {
            Self::Spans => [
                ("OTEL_BSP_SCHEDULE_DELAY", "10"),
                ("OTEL_BSP_EXPORT_TIMEOUT", "60000"),
            ],
            Self::DataPoints => [
                ("OTEL_TRACES_EXPORTER", "none"),
                ("OTEL_METRIC_EXPORT_TIMEOUT", "60000"),
            ],
        };
        builder(endpoint, protocol, &vars).metrics(self == Self::DataPoints)
    }

    /// As telemetry's events call it.
    fn what(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::DataPoints => "data points",
        }
    }

    fn record(self, telemetry: &Telemetry, count: usize) {
        if self == Self::Spans {
            return record(telemetry, count);
        }
        let meter = telemetry.meter_provider().meter("test");
        let pictures = meter.u64_counter("pictures").build();
        for number in 0..count {
            pictures.add(1, &[KeyValue::new("number", number as i64)]);
        }
    }

    /// Does not wait for the collector.
    fn record_and_send(self, telemetry: &Telemetry, count: usize) {
        self.record(telemetry, count);
        if self == Self::DataPoints {
            telemetry.meter_provider().force_flush().unwrap();
        }
    }

    fn wait_for(self, server: &OtlpServer, count: usize) {
        match self {
            Self::Spans => drop(server.wait_for_spans(count)),
            Self::DataPoints => drop(server.wait_for_metric("pictures")),
        }
    }

    fn stats(self, telemetry: &Telemetry) -> SignalStats {
        match self {
            Self::Spans => telemetry.span_stats(),
            Self::DataPoints => telemetry.data_point_stats(),
        }
    }

    /// Data points of telemetry's own metrics come on top of those recorded.
    #[track_caller]
    fn assert_count(self, counted: u64, recorded: u64) {
        match self {
            Self::Spans => assert_eq!(counted, recorded),
            Self::DataPoints => assert!(counted >= recorded, "{counted} < {recorded}"),
        }
    }
}

/// Runs a test over both protocols for traces and for metrics, all at once.
fn for_each(test: impl Fn(Protocol, Signal) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for protocol in PROTOCOLS {
            for signal in [Signal::Spans, Signal::DataPoints] {
                let name = format!("{protocol} {signal:?}");
                let thread = std::thread::Builder::new().name(name);
                thread
                    .spawn_scoped(scope, move || test(protocol, signal))
                    .unwrap();
            }
        }
    });
}

fn record(telemetry: &Telemetry, spans: usize) {
    let tracer = telemetry.tracer_provider().tracer("test");
    for _ in 0..spans {
        drop(tracer.start("span"));
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
    for_each(|protocol, signal| {
        let (address, _reserved) = OtlpServer::reserve();
        let log = Log::default();
        let telemetry = log
            .listen(signal.builder(address.to_string(), protocol))
            .build()
            .unwrap();
        signal.record_and_send(&telemetry, 1);
        let what = signal.what();
        log.wait_for(&format!("exporting {what} failed: client error (Connect)"));

        let server = OtlpServer::start_at(address);
        signal.wait_for(&server, 1);
        log.wait_for(&format!("exporting {what} works again"));
        drop(server);
        signal.record_and_send(&telemetry, 2);
        let server = OtlpServer::start_at(address);
        signal.wait_for(&server, 2);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        let stats = signal.stats(&telemetry);
        signal.assert_count(stats.exported, 3);
        assert_eq!((stats.failed, stats.dropped), (0, 0));
        assert!(
            log.says(&format!("the first {what} were exported")),
            "{:#?}",
            log.lines()
        );
    });
}

/// The default settings get over a restart of the collector that takes 5 s, at 1,000 spans/s.
fn loses_nothing_in_an_outage_of_5_s(protocol: Protocol) {
    let server = OtlpServer::start();
    let address = server.address();
    let telemetry = builder(address.to_string(), protocol, &[]).build().unwrap();
    let started = Instant::now();
    let mut recorded = 0;
    // As many spans on every machine, although a busy one may take longer.
    let mut record_until = |second: usize| {
        while recorded < second * 1_000 {
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
    for_each(|protocol, signal| {
        let server = OtlpServer::start();
        server.behave(Behaviour::Hang);
        let log = Log::default();
        let builder = signal
            .builder(server.endpoint(), protocol)
            .timeout(Duration::from_secs(1));
        let telemetry = log.listen(builder).build().unwrap();
        signal.record_and_send(&telemetry, 1);
        log.wait_for("no answer within 1s");
        server.behave(Behaviour::Accept);
        signal.wait_for(&server, 1);
    });
}

#[test]
fn slow() {
    for_each(|protocol, signal| {
        let server = OtlpServer::start();
        server.behave(Behaviour::Slow(Duration::from_millis(100)));
        let telemetry = signal.builder(server.endpoint(), protocol).build().unwrap();
        signal.record_and_send(&telemetry, 1_000);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        let stats = signal.stats(&telemetry);
        signal.assert_count(stats.exported, 1_000);
        assert_eq!((stats.failed, stats.dropped), (0, 0));
        match signal {
            Signal::Spans => assert_eq!(server.spans().len(), 1_000),
            Signal::DataPoints => drop(server.wait_for_metric("pictures")),
        }
    });
}

#[test]
fn resetting_connections() {
    for_each(|protocol, signal| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let telemetry = signal
            .builder(address.to_string(), protocol)
            .build()
            .unwrap();
        signal.record_and_send(&telemetry, 1);
        for _ in 0..3 {
            drop(listener.accept().unwrap());
        }
        drop(listener);
        let server = OtlpServer::start_at(address);
        signal.wait_for(&server, 1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
    });
}

#[test]
fn refusing_for_good() {
    for_each(|protocol, signal| {
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
                .listen(signal.builder(server.endpoint(), protocol))
                .build()
                .unwrap();
            signal.record(&telemetry, 3);
            let flushed = telemetry.force_flush_blocking(PATIENCE);
            let Err(TelemetryError::Undelivered { lost }) = flushed else {
                panic!("{flushed:?}");
            };
            signal.assert_count(lost, 3);
            let expected = expected[usize::from(protocol == Protocol::Grpc)];
            assert!(
                log.says(&format!("{lost} {} were lost: {expected}", signal.what())),
                "{:#?}",
                log.lines()
            );
            assert_eq!(signal.stats(&telemetry).failed, lost);
            // What is too large is tried in smaller parts, and then not again.
            let is_split = (protocol, http) == (Protocol::Http, StatusCode::PAYLOAD_TOO_LARGE);
            let attempts = server.requests().len() as u64;
            let expected = if is_split { lost + 1 } else { 1 };
            assert!(attempts >= expected && (is_split || attempts == 1));

            server.behave(Behaviour::Accept);
            signal.record(&telemetry, 2);
            telemetry.force_flush_blocking(PATIENCE).unwrap();
            signal.assert_count(signal.stats(&telemetry).exported, 2);
        }
    });
}

/// Whoever reads the log reads of it once a minute, and of the rest at the end.
#[test]
fn losses_in_a_row_are_told_together() {
    for_each(|protocol, signal| {
        let server = OtlpServer::start();
        server.behave(refuse(StatusCode::BAD_REQUEST, Code::InvalidArgument, None));
        let log = Log::default();
        let builder = log.listen(signal.builder(server.endpoint(), protocol));
        let telemetry = builder.build().unwrap();
        let told = || {
            let events = log.events();
            let counts = events.iter().filter_map(|event| match event {
                TelemetryEvent::Lost { count, .. } => Some(*count),
                _ => None,
            });
            counts.collect::<Vec<_>>()
        };
        for _ in 0..3 {
            signal.record(&telemetry, 3);
            telemetry.force_flush_blocking(PATIENCE).unwrap_err();
        }
        assert_eq!(told().len(), 1, "{:?}", told());
        let _ = telemetry.shutdown_blocking(PATIENCE);
        let told = told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told.iter().sum::<u64>(), signal.stats(&telemetry).failed);
    });
}

#[test]
fn overloaded() {
    for_each(|protocol, signal| {
        for (http, grpc) in [
            (StatusCode::TOO_MANY_REQUESTS, Code::Unavailable),
            (StatusCode::SERVICE_UNAVAILABLE, Code::Aborted),
        ] {
            let server = OtlpServer::start();
            server.behave(refuse(http, grpc, None));
            let telemetry = signal.builder(server.endpoint(), protocol).build().unwrap();
            signal.record_and_send(&telemetry, 3);
            server.wait_for_requests(2);
            server.behave(Behaviour::Accept);
            signal.wait_for(&server, 3);
            telemetry.shutdown_blocking(PATIENCE).unwrap();
            assert_eq!(signal.stats(&telemetry).failed, 0);
        }
    });
}

#[test]
fn overloaded_and_saying_when_to_come_back() {
    for_each(|protocol, signal| {
        let pause = Duration::from_secs(1);
        let server = OtlpServer::start();
        // RESOURCE_EXHAUSTED is worth another attempt only because it says when
        server.behave(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::ResourceExhausted,
            Some(pause),
        ));
        let telemetry = signal.builder(server.endpoint(), protocol).build().unwrap();
        signal.record_and_send(&telemetry, 1);
        server.wait_for_requests(1);
        server.behave(Behaviour::Accept);
        signal.wait_for(&server, 1);
        // As the collector sees it, on however busy a machine. The backoff would be 0.25 s.
        let arrivals = server.arrivals();
        let waited = arrivals[1].duration_since(arrivals[0]);
        assert!(waited >= pause, "{waited:?}");
    });
}

#[test]
fn taking_only_a_part() {
    for_each(|protocol, signal| {
        let server = OtlpServer::start();
        server.behave(Behaviour::Reject(2, "too old"));
        let log = Log::default();
        let telemetry = log
            .listen(signal.builder(server.endpoint(), protocol))
            .build()
            .unwrap();
        signal.record(&telemetry, 5);
        telemetry.shutdown_blocking(PATIENCE).unwrap_err();
        let stats = signal.stats(&telemetry);
        signal.assert_count(stats.exported, 3);
        assert_eq!((stats.failed, stats.dropped), (2, 0));
        assert!(
            log.says(&format!(
                "the collector rejected 2 {}: too old",
                signal.what()
            )),
            "{:#?}",
            log.lines()
        );
    });
}

#[test]
fn away_for_too_long() {
    for protocol in PROTOCOLS {
        let (address, _reserved) = OtlpServer::reserve();
        let log = Log::default();
        let telemetry = log
            .listen(builder(address.to_string(), protocol, &QUICK))
            .build()
            .unwrap();
        record(&telemetry, 600);
        // How many they are is up to the machine.
        log.wait_for(" spans were lost: client error (Connect)");
        let server = OtlpServer::start_at(address);
        // A span is tried for a second only, which a busy machine may miss.
        let mut recorded = 600;
        let deadline = Instant::now() + PATIENCE;
        while server.spans().is_empty() {
            assert!(Instant::now() < deadline, "{:#?}", log.lines());
            record(&telemetry, 1);
            recorded += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = telemetry.shutdown_blocking(PATIENCE);
        let stats = telemetry.span_stats();
        assert_eq!(stats.exported + stats.failed, recorded, "{stats:?}");
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
        let builder = builder(server.endpoint(), protocol, &vars).timeout(Duration::from_secs(1));
        let telemetry = log.listen(builder).build().unwrap();
        record(&telemetry, 1_000);
        assert_eq!(telemetry.span_stats().dropped, 900);
        log.wait_for("900 spans were dropped because the queue is full");
        server.behave(Behaviour::Accept);
        server.wait_for_spans(100);
    }
}
