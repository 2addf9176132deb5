//! A scrape of 100,000 series, from the request to the last byte of the answer: collected from the SDK,
//! written, compressed; and how much of that is the SDK's collection. Everything runs on one thread.
//!
//!     cargo bench --bench prometheus [-- rounds]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use opentelemetry::{KeyValue, metrics::MeterProvider};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
        data::ResourceMetrics, reader::MetricReader,
    },
};
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
    println!("{:<12} {:<18} {:>8} {:>12}", "", "", "CPU ms", "bytes");
    for (kind, record) in [
        ("counters", counters as fn(&SdkMeterProvider)),
        ("unordered", unordered),
        ("histograms", histograms),
    ] {
        let reader = Reader::default();
        let provider = SdkMeterProvider::builder()
            .with_reader(reader.clone())
            .with_view(|_: &Instrument| {
                Stream::builder()
                    .with_cardinality_limit(SERIES)
                    .build()
                    .ok()
            })
            .build();
        record(&provider);
        let mut collect = || {
            let mut metrics = ResourceMetrics::default();
            reader.collect(&mut metrics).unwrap();
            metrics.scope_metrics().count()
        };
        let (time, _) = median(rounds, &mut collect);
        println!("{kind:<12} {:<18} {time:>8.1}", "the SDK's part");
        drop(provider);

        let telemetry = Telemetry::builder()
            .vars([] as [(&str, &str); 0])
            .service_name("thumbs")
            .prometheus(true)
            .series_limit(SERIES)
            .build()
            .unwrap();
        record(&telemetry.meter_provider());
        for (format, accept, encoding) in [
            ("text", "text/plain", "identity"),
            ("text, gzip", "text/plain", "gzip"),
            ("OpenMetrics", "application/openmetrics-text", "identity"),
            ("OpenMetrics, gzip", "application/openmetrics-text", "gzip"),
        ] {
            let mut scrape = || scrape(&telemetry, accept, encoding);
            let (time, bytes) = median(rounds, &mut scrape);
            println!("{kind:<12} {format:<18} {time:>8.1} {bytes:>12}");
        }
    }
}

/// The median time in milliseconds, and the last result.
fn median(rounds: usize, work: &mut dyn FnMut() -> usize) -> (f64, usize) {
    let mut result = 0;
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let started = now();
            result = work();
            now() - started
        })
        .collect();
    times.sort();
    (times[rounds / 2].as_secs_f64() * 1e3, result)
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

/// What requests have, and a tenant, in the order of the keys as the crate measures them.
fn attributes(number: usize) -> [KeyValue; 6] {
    [
        KeyValue::new("http.request.method", "GET"),
        KeyValue::new("http.response.status_code", 200),
        KeyValue::new("http.route", "/resize/{options}/{source}"),
        KeyValue::new("network.protocol.version", "1.1"),
        KeyValue::new("thumbs.tenant", format!("tenant-{number}")),
        KeyValue::new("url.scheme", "https"),
    ]
}

fn counters(meters: &SdkMeterProvider) {
    let counter = meters.meter("bench").u64_counter("requests").build();
    (0..SERIES).for_each(|number| counter.add(number as u64, &attributes(number)));
}

/// In another order of the keys the SDK keeps each series twice.
fn unordered(meters: &SdkMeterProvider) {
    let counter = meters.meter("bench").u64_counter("requests").build();
    for number in 0..SERIES {
        let mut attributes = attributes(number);
        attributes.reverse();
        counter.add(number as u64, &attributes);
    }
}

fn histograms(meters: &SdkMeterProvider) {
    let boundaries = vec![
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    let meter = meters.meter("bench");
    let histogram = meter.f64_histogram("requests").with_unit("s");
    let histogram = histogram.with_boundaries(boundaries).build();
    for number in 0..SERIES / LINES {
        (1..20).for_each(|time| histogram.record(f64::from(time) * 0.013, &attributes(number)));
    }
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

/// The SDK's reader, which its provider wants to own.
#[derive(Clone, Debug, Default)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
