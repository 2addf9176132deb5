//! What collectors in the field do, and what stands between them and the service.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use http::{StatusCode, header};
use opentelemetry::{
    KeyValue,
    metrics::MeterProvider,
    trace::{Span as _, Tracer, TracerProvider},
};
use tonic::Code;
use tower_image_trace::{
    Protocol, Telemetry, TelemetryBuilder, TelemetryError, console::ConsoleExporter,
};

#[cfg(feature = "logs")]
use crate::support::process::run_alone;
use crate::support::{
    certificates::{Ca, self_signed_ca},
    events::Log,
    file::File,
    otlp::{Behaviour, OtlpServer, PATIENCE},
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];
const HOST: &str = "127.0.0.1";

fn builder(endpoint: &str, protocol: Protocol, vars: &[(&str, &str)]) -> TelemetryBuilder {
    Telemetry::builder()
        .vars(vars.iter().copied())
        .endpoint(endpoint)
        .protocol(protocol)
}

/// Records spans that have an attribute of so many bytes.
fn record(telemetry: &Telemetry, spans: usize, bytes: usize) {
    let tracer = telemetry.tracer_provider().tracer("test");
    for _ in 0..spans {
        let mut span = tracer.start("span");
        span.set_attribute(KeyValue::new("text", "x".repeat(bytes)));
        span.end();
    }
}

/// The line about the first span that a collector does not take.
#[track_caller]
fn said(endpoint: &str, protocol: Protocol, vars: &[(&str, &str)], expected: &str) -> String {
    let log = Log::default();
    let vars = [vars, &[("OTEL_BSP_SCHEDULE_DELAY", "10")]].concat();
    let telemetry = log
        .listen(builder(endpoint, protocol, &vars))
        .build()
        .unwrap();
    record(&telemetry, 1, 1);
    let line = log.wait_for(expected);
    let _ = telemetry.shutdown_blocking(Duration::ZERO);
    line
}

#[test]
fn compressed_answers_are_read() {
    // faults C2, C17
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Reject(2, "no room"));
        let log = Log::default();
        let vars = [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")];
        let telemetry = log
            .listen(builder(&server.endpoint(), protocol, &vars))
            .build()
            .unwrap();
        record(&telemetry, 3, 1);
        let flushed = telemetry.force_flush_blocking(PATIENCE);
        assert!(matches!(
            flushed,
            Err(TelemetryError::Undelivered { lost: 2 })
        ));
        let stats = telemetry.span_stats();
        assert_eq!((stats.exported, stats.failed), (1, 2), "{protocol}");
        log.wait_for("rejected 2 spans: no room");
    }
}

#[test]
fn a_pause_of_no_time_is_the_ordinary_one() {
    // faults C3
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Refuse {
            http: StatusCode::TOO_MANY_REQUESTS,
            grpc: Code::Unavailable,
            message: "not now",
            retry_after: Some(Duration::ZERO),
        });
        let telemetry = builder(&server.endpoint(), protocol, &[]).build().unwrap();
        record(&telemetry, 1, 1);
        let started = Instant::now();
        let _ = telemetry.force_flush_blocking(Duration::ZERO);
        server.wait_for_requests(4);
        // At least 0.25, 0.5 and 1 s, less 25 %.
        assert!(started.elapsed() > Duration::from_millis(1_300));
        let _ = telemetry.shutdown_blocking(Duration::ZERO);
    }
}

#[test]
fn a_pause_that_the_collector_asks_for_holds_for_later_batches_and_flushes() {
    // faults C4
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Refuse {
            http: StatusCode::SERVICE_UNAVAILABLE,
            grpc: Code::Unavailable,
            message: "not now",
            retry_after: Some(Duration::from_secs(3_600)),
        });
        let vars = [("OTEL_BSP_EXPORT_TIMEOUT", "1")];
        let log = Log::default();
        let telemetry = log
            .listen(builder(&server.endpoint(), protocol, &vars))
            .build()
            .unwrap();
        record(&telemetry, 1, 1);
        let _ = telemetry.force_flush_blocking(Duration::ZERO);
        log.wait_for("exporting spans failed");
        server.behave(Behaviour::Accept);
        record(&telemetry, 1, 1);
        let flushed = telemetry.force_flush_blocking(Duration::from_millis(500));
        let Err(TelemetryError::TimedOut { pending: 2, .. }) = flushed else {
            panic!("{protocol}: {flushed:?}");
        };
        assert_eq!(server.requests().len(), 1, "{protocol}");
        let _ = telemetry.shutdown_blocking(Duration::ZERO);
    }
}

/// What Go's gRPC and tonic say to a request that is too large.
const TOO_LARGE: [(Code, &str); 2] = [
    (
        Code::ResourceExhausted,
        "grpc: received message larger than max (5242880 vs. 102400)",
    ),
    (
        Code::OutOfRange,
        "Error, decoded message length too large: found 5242880 bytes, the limit is: 102400 bytes",
    ),
];

#[test]
fn only_what_is_too_large_by_itself_is_lost() {
    // faults C5
    for protocol in PROTOCOLS {
        for (grpc, message) in TOO_LARGE {
            let server = OtlpServer::start();
            server.behave(Behaviour::AtMost {
                bytes: 100 << 10,
                grpc,
                message,
            });
            let telemetry = builder(&server.endpoint(), protocol, &[]).build().unwrap();
            for _ in 0..12 {
                record(&telemetry, 33, 100);
                record(&telemetry, 1, 390_000);
            }
            record(&telemetry, 4, 100);
            let flushed = telemetry.force_flush_blocking(PATIENCE);
            assert!(
                matches!(flushed, Err(TelemetryError::Undelivered { lost: 12 })),
                "{flushed:?}"
            );
            assert_eq!(server.spans().len(), 400, "{protocol} {grpc:?}");
            let stats = telemetry.span_stats();
            assert_eq!((stats.exported, stats.failed), (400, 12));
            // What was learned stays: the next batch is split before it is sent.
            let before = server.requests().len();
            record(&telemetry, 512, 300);
            telemetry.force_flush_blocking(PATIENCE).unwrap();
            assert!(server.requests().len() > before + 1);
        }
    }
}

#[test]
fn a_request_stays_below_what_receivers_take() {
    // faults C5
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        let telemetry = builder(&server.endpoint(), protocol, &[]).build().unwrap();
        record(&telemetry, 80, 60_000);
        record(&telemetry, 400, 100);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 480);
        let largest = server.largest_request();
        assert!(largest < 4 << 20 && largest > 3 << 20, "{largest}");
    }
}

#[test]
fn values_are_cut_where_a_limit_says_so() {
    // faults C6
    for (variable, length) in [
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "7"),
    ] {
        let server = OtlpServer::start();
        let vars = [(variable, length)];
        let telemetry = builder(&server.endpoint(), Protocol::Grpc, &vars)
            .build()
            .unwrap();
        record(&telemetry, 1, 5_001);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        let span = &server.spans()[0];
        assert_eq!(span.attributes()["text"].len().to_string(), length);
    }
}

#[test]
fn what_is_no_answer_of_a_collector_is_a_failure_that_says_so() {
    // faults C8
    let html = "<html><head><title>Sign in</title></head></html>";
    let long = format!("{html}{}", " ".repeat(1_500_000));
    let json = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no \"room\""}}"#;
    for (kind, body, expected) in [
        ("text/html", long.as_str(), "200 OK with text/html"),
        ("text/html; charset=utf-8", html, "200 OK with text/html"),
        ("text/plain", "ok", "200 OK with text/plain"),
        ("application/x-protobuf", html, "instead of an OTLP answer"),
        ("application/json", "[1]", "200 OK with application/json"),
        ("application/json", json, "rejected 1 spans: no \"room\""),
    ] {
        let server = OtlpServer::start();
        let headers = vec![(header::CONTENT_TYPE, kind.to_owned())];
        server.behave(Behaviour::Http(StatusCode::OK, headers, body.to_owned()));
        said(&server.endpoint(), Protocol::Http, &[], expected);
    }
    // Of a refusal the status decides, however long its page is.
    for (status, expected) in [
        (
            StatusCode::UNAUTHORIZED,
            "1 spans were lost: 401 Unauthorized: Sign in",
        ),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "failed: 503 Service Unavailable: Sign in",
        ),
    ] {
        let server = OtlpServer::start();
        server.behave(Behaviour::Http(status, Vec::new(), long.clone()));
        said(&server.endpoint(), Protocol::Http, &[], expected);
    }
    // Nothing, and an empty object, are success.
    for body in ["", "{}"] {
        let server = OtlpServer::start();
        let headers = vec![(header::CONTENT_TYPE, "application/json".to_owned())];
        server.behave(Behaviour::Http(StatusCode::OK, headers, body.to_owned()));
        said(
            &server.endpoint(),
            Protocol::Http,
            &[],
            "the first spans were exported",
        );
    }
}

#[test]
fn one_slow_answer_does_not_hold_up_the_others() {
    // faults C9
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Together(8));
        let telemetry = builder(&server.endpoint(), protocol, &[]).build().unwrap();
        record(&telemetry, 8 * 512, 1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 8 * 512);
    }
}

#[test]
fn as_many_requests_are_on_their_way_as_the_setting_says() {
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        server.behave(Behaviour::Slow(Duration::from_millis(20)));
        let telemetry = builder(&server.endpoint(), protocol, &[])
            .max_concurrent_exports(1)
            .build()
            .unwrap();
        record(&telemetry, 5 * 512, 1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 5 * 512);
        assert_eq!(server.most_waiting(), 1);
    }
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let server = OtlpServer::start();
    server.behave(Behaviour::Hang);
    let telemetry = builder(&server.endpoint(), Protocol::Grpc, &[])
        .max_queue_bytes(100_000)
        .build()
        .unwrap();
    record(&telemetry, 30, 10_000);
    let dropped = telemetry.span_stats().dropped;
    assert_eq!(dropped, 21, "nine of 10 kB and a little more fit");
    let _ = telemetry.shutdown_blocking(Duration::ZERO);
    let error = Telemetry::builder()
        .vars([("IMGPROXY_OPEN_TELEMETRY_MAX_QUEUE_BYTES", "0")])
        .settings()
        .unwrap_err();
    let expected = "IMGPROXY_OPEN_TELEMETRY_MAX_QUEUE_BYTES=\"0\" is not accepted: expected a whole \
                    number above 0";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_connection_that_hangs_is_replaced() {
    let server = OtlpServer::start();
    server.behave(Behaviour::Hang);
    let vars = [("OTEL_EXPORTER_OTLP_TIMEOUT", "200")];
    let telemetry = builder(&server.endpoint(), Protocol::Grpc, &vars)
        .build()
        .unwrap();
    record(&telemetry, 1, 1);
    let _ = telemetry.force_flush_blocking(Duration::ZERO);
    server.wait_for_requests(2);
    assert!(
        server.connections() >= 2,
        "the second request has a connection of its own"
    );
    server.behave(Behaviour::Accept);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
}

#[test]
fn the_collectors_own_certificate_is_trusted_as_it_is() {
    // faults C10
    let ca = Ca::new("a CA that is not given");
    let (own, sibling) = (ca.server(HOST), ca.server(HOST));
    let (elsewhere, expired) = (ca.server("collector.example"), ca.expired_server(HOST));
    for protocol in PROTOCOLS {
        let server = OtlpServer::start_tls(own.server_config(None));
        let telemetry = builder(&server.endpoint(), protocol, &[])
            .server_certificate(&own.certificate)
            .build()
            .unwrap();
        record(&telemetry, 1, 1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        let (unsigned, other) = (self_signed_ca(HOST), self_signed_ca(HOST));
        for (shown, given, expected) in [
            (&elsewhere, &elsewhere, "is for another host name"),
            (&sibling, &own, "not signed by a CA that is trusted"),
            (&expired, &expired, "has expired"),
            (&other, &unsigned, "not signed by a CA that is trusted"),
            (&self_signed_ca("collector.example"), &unsigned, "not"),
        ] {
            let server = OtlpServer::start_tls(shown.server_config(None));
            let pem = given.certificate.replace('\n', "\\n");
            let vars = [("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT", pem.as_str())];
            said(&server.endpoint(), protocol, &vars, expected);
            assert!(server.spans().is_empty());
        }
        // The name of a certificate that marks itself as a CA is checked too.
        let elsewhere = self_signed_ca("collector.example");
        let server = OtlpServer::start_tls(elsewhere.server_config(None));
        let pem = elsewhere.certificate.replace('\n', "\\n");
        let vars = [("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT", pem.as_str())];
        said(
            &server.endpoint(),
            protocol,
            &vars,
            "is for another host name",
        );
    }
}

#[test]
fn certificates_are_read_again_when_their_files_have_changed() {
    // faults C11
    let [old, new] =
        ["old", "new"].map(|name| (Ca::new(name), Ca::new(&format!("{name} clients"))));
    let [old_client, new_client] = [old.1.client(), new.1.client()];
    for protocol in PROTOCOLS {
        let root = File::new("root", &old.0.pem);
        let certificate = File::new("certificate", &old_client.certificate);
        let key = File::new("key", &old_client.key);
        let config = old.0.server(HOST).server_config(Some(&old.1));
        let server = OtlpServer::start_tls(config);
        let address = server.address();
        let vars = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", root.path()),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.path()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.path()),
        ];
        let endpoint = format!("https://{address}");
        let telemetry = builder(&endpoint, protocol, &vars).build().unwrap();
        record(&telemetry, 1, 1);
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        drop(server);
        let config = new.0.server(HOST).server_config(Some(&new.1));
        let server = OtlpServer::start_tls_at(address, config);
        record(&telemetry, 1, 1);
        let _ = telemetry.force_flush_blocking(Duration::ZERO);
        server.wait_for_connections(1);
        assert!(server.requests().is_empty());
        root.write(&new.0.pem);
        // A certificate without its key is not taken over.
        certificate.write(&new_client.certificate);
        key.write(&new_client.key);
        server.wait_for_spans(1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
    }
}

#[test]
fn a_collector_that_is_gone_has_nothing_against_the_client_certificate() {
    // faults C12
    let (ca, clients) = (Ca::new("CA"), Ca::new("clients"));
    let client = clients.client();
    for protocol in PROTOCOLS {
        let server = OtlpServer::start_tls(ca.server(HOST).server_config(Some(&clients)));
        let log = Log::default();
        let telemetry = log
            .listen(builder(&server.endpoint(), protocol, &[]))
            .server_certificate(&ca.pem)
            .client_certificate(&client.certificate, &client.key)
            .build()
            .unwrap();
        record(&telemetry, 1, 1);
        telemetry.force_flush_blocking(PATIENCE).unwrap();
        drop(server);
        record(&telemetry, 1, 1);
        let _ = telemetry.force_flush_blocking(Duration::ZERO);
        let line = log.wait_for("exporting spans failed");
        assert!(!line.contains("certificate"), "{line}");
        let _ = telemetry.shutdown_blocking(Duration::ZERO);
    }
}

/// Panics at the first writes.
struct Panics {
    left: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Panics {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.left > 0 {
            self.left -= 1;
            panic!("the terminal is on fire");
        }
        self.written.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_on_the_exporting_thread_is_reported_and_the_signal_goes_on() {
    // faults C13
    let (log, written) = (Log::default(), Arc::default());
    let writer = Panics {
        left: 1,
        written: Arc::clone(&written),
    };
    let telemetry = log
        .listen(Telemetry::builder().vars([("", ""); 0]))
        .console_exporter(ConsoleExporter::new(writer))
        .build()
        .unwrap();
    record(&telemetry, 1, 1);
    log.wait_for("1 spans were lost: Operation failed: the writer of the console panicked");
    record(&telemetry, 1, 1);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    let stats = telemetry.span_stats();
    assert_eq!((stats.exported, stats.failed), (1, 1));
    assert!(!written.lock().unwrap().is_empty());
}

#[test]
fn a_callback_that_panics_costs_nothing() {
    // faults C13
    let server = OtlpServer::start();
    let telemetry = builder(&server.endpoint(), Protocol::Grpc, &[])
        .on_event(|_| panic!("not interested"))
        .build()
        .unwrap();
    for _ in 0..3 {
        record(&telemetry, 1, 1);
        telemetry.force_flush_blocking(PATIENCE).unwrap();
    }
    assert_eq!(server.spans().len(), 3);
}

/// An HTTP proxy that leads every request to `target`, whatever host it names, and keeps the request lines
/// and credentials that it got.
fn proxy(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let lines = Arc::clone(&seen);
    thread::spawn(move || {
        for client in listener.incoming() {
            let lines = Arc::clone(&lines);
            thread::spawn(move || forward(client.unwrap(), target, &lines));
        }
    });
    (address, seen)
}

fn forward(mut client: TcpStream, target: SocketAddr, lines: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    let authorization = text.lines().find(|line| {
        let name = line.split(':').next().unwrap_or_default();
        name.eq_ignore_ascii_case("proxy-authorization")
    });
    let line = text.lines().next().unwrap();
    let noted = format!("{line} {}", authorization.unwrap_or_default());
    lines.lock().unwrap().push(noted);
    let mut server = TcpStream::connect(target).unwrap();
    match line.starts_with("CONNECT ") {
        true => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap(),
        false => server.write_all(&head).unwrap(),
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Write);
}

#[test]
fn the_proxy_of_the_environment_is_used_and_named() {
    // faults C14
    const NAME: &str = "collector.invalid";
    let ca = Ca::new("collector's CA");
    for (protocol, tls, line) in [
        (
            Protocol::Http,
            false,
            "POST http://collector.invalid:4318/v1/traces HTTP/1.1",
        ),
        (
            Protocol::Grpc,
            false,
            "CONNECT collector.invalid:4318 HTTP/1.1",
        ),
        (
            Protocol::Http,
            true,
            "CONNECT collector.invalid:4318 HTTP/1.1",
        ),
        (
            Protocol::Grpc,
            true,
            "CONNECT collector.invalid:4318 HTTP/1.1",
        ),
    ] {
        let server = match tls {
            true => OtlpServer::start_tls(ca.server(NAME).server_config(None)),
            false => OtlpServer::start(),
        };
        let (address, seen) = proxy(server.address());
        let variable = if tls { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let value = format!("http://user:s3cret@{address}");
        let vars = [(variable, value.as_str())];
        let scheme = if tls { "https" } else { "http" };
        let log = Log::default();
        let endpoint = format!("{scheme}://{NAME}:4318");
        let telemetry = log.listen(builder(&endpoint, protocol, &vars));
        let telemetry = match tls {
            true => telemetry.server_certificate(&ca.pem),
            false => telemetry,
        };
        let telemetry = telemetry.build().unwrap();
        record(&telemetry, 1, 1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 1);
        let seen = seen.lock().unwrap();
        assert!(seen[0].starts_with(line), "{seen:?}");
        assert!(seen[0].ends_with("Basic dXNlcjpzM2NyZXQ="), "{seen:?}");
        let started = log.wait_for("telemetry started");
        let named = format!(", through the proxy http://{address})");
        assert!(started.contains(&named), "{started}");
        assert!(!started.contains("s3cret"), "{started}");
    }
}

#[test]
fn no_proxy_is_used_where_the_environment_says_so() {
    // faults C14
    for except in ["example.com,127.0.0.1", "*"] {
        let server = OtlpServer::start();
        let (address, seen) = proxy(server.address());
        let proxy = format!("http://{address}");
        let vars = [("ALL_PROXY", proxy.as_str()), ("NO_PROXY", except)];
        let telemetry = builder(&server.endpoint(), Protocol::Http, &vars)
            .build()
            .unwrap();
        record(&telemetry, 1, 1);
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans().len(), 1);
        assert!(seen.lock().unwrap().is_empty());
    }
}

/// A server that answers what it gets with these bytes, and closes the connection.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 16]);
            let _ = client.write_all(bytes);
            let _ = client.shutdown(std::net::Shutdown::Write);
            // What is unread when the connection is closed would take the answer with it.
            thread::spawn(move || std::io::copy(&mut client, &mut std::io::sink()));
        }
    });
    address.to_string()
}

#[test]
fn a_wrong_protocol_is_named_with_the_setting_to_change() {
    // faults C15
    let http1 = answering(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    // SETTINGS and GOAWAY, as a gRPC server says to what is not HTTP/2.
    let http2 = answering(b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01");
    let alert = answering(b"\x15\x03\x01\0\x02\x02\x16");
    let silent = answering(b"");
    let tls = |address: &str| format!("https://{address}");
    let ca = Ca::new("CA");
    let encrypted = OtlpServer::start_tls(ca.server(HOST).server_config(None));
    for (endpoint, protocol, expected) in [
        (
            http1.clone(),
            Protocol::Grpc,
            "speaks HTTP/1.1: set PROTOCOL=http",
        ),
        (
            http2.clone(),
            Protocol::Http,
            "speaks gRPC: set PROTOCOL=grpc",
        ),
        (
            tls(&http1),
            Protocol::Grpc,
            "does not speak TLS: use http://",
        ),
        (
            tls(&http2),
            Protocol::Http,
            "does not speak TLS: use http://",
        ),
        (alert.clone(), Protocol::Grpc, "speaks TLS: use https://"),
        (alert, Protocol::Http, "speaks TLS: use https://"),
        (
            silent.clone(),
            Protocol::Http,
            "use its HTTP port (usually 4318)",
        ),
        (silent, Protocol::Grpc, "it may speak TLS"),
        (encrypted.endpoint(), Protocol::Http, "TLS"),
        (encrypted.endpoint(), Protocol::Grpc, "TLS"),
    ] {
        let line = said(&endpoint, protocol, &[], expected);
        let address = endpoint.trim_start_matches("https://");
        assert!(line.contains(address), "{line}");
    }
}

#[test]
fn a_redirect_names_where_it_leads() {
    // faults C15, C16
    for (status, location, expected) in [
        (
            307,
            "https://collector.example:4318/v1/traces",
            "to https://collector.example:4318/v1/traces",
        ),
        (
            308,
            "https://collector.example/?token=s3cret",
            "to https://collector.example/…",
        ),
        (301, "/s3cret/v1/traces", "to another path"),
    ] {
        let server = OtlpServer::start();
        let status = StatusCode::from_u16(status).unwrap();
        let headers = vec![(header::LOCATION, location.to_owned())];
        server.behave(Behaviour::Http(status, headers, String::new()));
        let line = said(&server.endpoint(), Protocol::Http, &[], expected);
        assert!(line.contains("set the endpoint to that address"), "{line}");
        assert!(!line.contains("s3cret"), "{line}");
    }
}

#[test]
fn what_a_collector_says_is_one_line_without_our_secrets() {
    // faults F17
    let long: &'static str = Box::leak("x".repeat(900_000).into_boxed_str());
    // Longer than a line, as tokens with claims are.
    let key = "s3cret-".repeat(80);
    let echo: &'static str = Box::leak(format!("invalid token: {key}").into_boxed_str());
    let headers = format!("authorization=Bearer%20s3cret-token,x-key={key}");
    for protocol in PROTOCOLS {
        for message in [
            echo,
            "invalid token s3cret-token\nERROR forged line",
            "Bearer s3cret-token\r\n\u{1b}[31m",
            long,
        ] {
            let refuse = Behaviour::Refuse {
                http: StatusCode::UNAUTHORIZED,
                grpc: Code::Unauthenticated,
                message,
                retry_after: None,
            };
            for behaviour in [refuse, Behaviour::Reject(1, message)] {
                // Trailers of that size are too much for HTTP/2 itself.
                if message == long && protocol == Protocol::Grpc {
                    continue;
                }
                let server = OtlpServer::start();
                server.behave(behaviour);
                let vars = [("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str())];
                let line = said(&server.endpoint(), protocol, &vars, "1 spans");
                assert!(!line.contains("s3cret"), "{line}");
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!(line.len() < 400, "{}", line.len());
            }
        }
    }
}

#[test]
fn a_secret_in_the_path_stays_one_when_the_collector_names_it() {
    // faults C16, F17
    let server = OtlpServer::start();
    let body = r#"{"path":"/s3cret-token/v1/traces"}"#.to_owned();
    server.behave(Behaviour::Http(StatusCode::NOT_FOUND, Vec::new(), body));
    let endpoint = format!("http://{}/s3cret-token", server.endpoint());
    let line = said(&endpoint, Protocol::Http, &[], "404 Not Found: ");
    assert!(line.contains(r#"{"path":"…"}"#), "{line}");
}

/// Run by the test below: a subscriber is that of a whole process, and a collector is another one.
#[cfg(feature = "logs")]
#[test]
#[ignore = "a part of another test"]
fn child_process() {
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    let telemetry = Telemetry::from_env().unwrap();
    let tracer = telemetry.tracer_provider().tracer("test");
    let subscriber = Registry::default()
        .with(tracing_opentelemetry::layer().with_tracer(tracer))
        .with(telemetry.log_layer());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::info!(target: "test", "once");
    for _ in 0..5 {
        telemetry.force_flush_blocking(PATIENCE).unwrap();
    }
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    let stats = telemetry.log_record_stats();
    assert_eq!((stats.exported, stats.failed), (1, 0));
    assert_eq!(telemetry.span_stats().exported, 0);
}

#[cfg(feature = "logs")]
#[test]
fn the_export_does_not_export_itself() {
    // faults C1
    for protocol in PROTOCOLS {
        let server = OtlpServer::start();
        // A name, so that a thread of its own looks it up.
        let endpoint = format!("localhost:{}", server.address().port());
        run_alone("otlp_in_the_field::child_process", |command| {
            command
                .env("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", endpoint)
                .env("IMGPROXY_OPEN_TELEMETRY_PROTOCOL", protocol.to_string())
                .env("IMGPROXY_OPEN_TELEMETRY_ENABLE_LOGS", "true")
        });
        assert_eq!(server.logs().len(), 1);
    }
}

/// The longest times and the greatest numbers mean that there is no limit.
#[tokio::test]
async fn what_has_no_limit_is_exported() {
    for change in 0..3 {
        let server = OtlpServer::start();
        let mut settings = builder(&server.endpoint(), Protocol::Grpc, &[])
            .metrics(true)
            .settings()
            .unwrap();
        match change {
            0 => settings.max_concurrent_exports = usize::MAX,
            1 => settings.span_batching.export_timeout = Duration::MAX,
            _ => settings.metric_export_timeout = Duration::MAX,
        }
        let telemetry = Telemetry::from_settings(settings).unwrap();
        record(&telemetry, 1, 1);
        let meter = telemetry.meter_provider().meter("test");
        meter.u64_counter("jobs").build().add(1, &[]);
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(server.spans().len(), 1, "{change}");
        assert!(!server.metrics().is_empty(), "{change}");
    }
}

#[test]
fn a_timeout_of_nothing_is_refused() {
    let builder = builder("http://127.0.0.1:4317", Protocol::Grpc, &[]);
    let error = builder.timeout(Duration::ZERO).build().unwrap_err();
    assert!(error.to_string().contains("a time above 0"), "{error}");
}
