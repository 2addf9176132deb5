//! A scrape of 100,000 series, from the request to the last byte of the answer: collected from the SDK,
//! written, compressed. Everything runs on one thread.
//!
//!     cargo bench --bench prometheus [-- rounds]
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use opentelemetry::{KeyValue, metrics::MeterProvider};
use tower::ServiceExt;
use tower_image_trace::Telemetry;

/// As Prometheus counts them: each line is one.
const SERIES: usize = 100_000;
/// The lines of a histogram with 14 boundaries.
const LINES: usize = 17;

fn main() {
    let rounds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let rounds: usize = rounds.unwrap_or(15);
    println!("{SERIES} series, medians of {rounds} scrapes");
    println!("{:<12} {:<14} {:>8} {:>12}", "", "", "CPU ms", "bytes");
    for (kind, telemetry) in [("counters", counters()), ("histograms", histograms())] {
        for (format, accept, encoding) in [
            ("text", "text/plain", "identity"),
            ("text, gzip", "text/plain", "gzip"),
            ("OpenMetrics", "application/openmetrics-text", "identity"),
            ("… and gzip", "application/openmetrics-text", "gzip"),
        ] {
            let mut times: Vec<Duration> = Vec::new();
            let mut bytes = 0;
            for _ in 0..rounds {
                let started = now();
                bytes = scrape(&telemetry, accept, encoding);
                times.push(now() - started);
            }
            times.sort();
            let median = times[rounds / 2].as_secs_f64() * 1e3;
            println!("{kind:<12} {format:<14} {median:>8.1} {bytes:>12}");
        }
    }
}

/// The time that this thread has had: others may be at work on the machine.
#[cfg(target_os = "linux")]
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

#[cfg(not(target_os = "linux"))]
fn now() -> Duration {
    static STARTED: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    STARTED.get_or_init(std::time::Instant::now).elapsed()
}

fn telemetry() -> Telemetry {
    Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .service_name("thumbs")
        .prometheus(true)
        .series_limit(SERIES)
        .build()
        .unwrap()
}

/// What requests have, and a tenant.
fn attributes(number: usize) -> [KeyValue; 6] {
    [
        KeyValue::new("http.request.method", "GET"),
        KeyValue::new("url.scheme", "https"),
        KeyValue::new("network.protocol.version", "1.1"),
        KeyValue::new("http.response.status_code", 200),
        KeyValue::new("http.route", "/resize/{options}/{source}"),
        KeyValue::new("thumbs.tenant", format!("tenant-{number}")),
    ]
}

fn counters() -> Telemetry {
    let telemetry = telemetry();
    let meter = telemetry.meter_provider().meter("bench");
    let counter = meter.u64_counter("requests");
    let counter = counter.with_unit("{request}").build();
    (0..SERIES).for_each(|number| counter.add(number as u64, &attributes(number)));
    telemetry
}

fn histograms() -> Telemetry {
    let telemetry = telemetry();
    let meter = telemetry.meter_provider().meter("bench");
    let histogram = meter.f64_histogram("requests");
    let boundaries = vec![
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    let histogram = histogram.with_unit("s").with_boundaries(boundaries).build();
    for number in 0..SERIES / LINES {
        (1..20).for_each(|time| histogram.record(f64::from(time) * 0.013, &attributes(number)));
    }
    telemetry
}

/// Outside of a runtime, so that the service works on this thread. Returns the bytes of the answer.
fn scrape(telemetry: &Telemetry, accept: &str, encoding: &str) -> usize {
    let request = Request::get("/metrics")
        .header(header::ACCEPT, accept)
        .header(header::ACCEPT_ENCODING, encoding);
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let answer = async {
        let response = telemetry.prometheus().oneshot(request).await.unwrap();
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .len()
    };
    futures_util::FutureExt::now_or_never(answer).unwrap()
}
