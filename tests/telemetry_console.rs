//! A service without a collector shows its metrics and its log on the terminal.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::MeterProvider,
    trace::{TraceContextExt, Tracer, TracerProvider},
};
use tower_image_trace::{
    Telemetry,
    console::{ConsoleLogExporter, ConsoleMetricExporter},
    telemetry::Exporter,
};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::otlp::PATIENCE;

/// Sends each written text to a channel.
struct Page(Sender<String>);

impl Page {
    fn new() -> (Self, Receiver<String>) {
        let (sender, pages) = channel();
        (Self(sender), pages)
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        self.0.send(text).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn metrics_are_a_line_for_each_series() {
    let (page, pages) = Page::new();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_METRIC_EXPORT_INTERVAL", "20")])
        .console_metrics(ConsoleMetricExporter::new(page))
        .build()
        .unwrap();
    let meter = telemetry.meter_provider().meter("test");
    let pictures = meter.u64_counter("pictures").with_unit("{picture}").build();
    pictures.add(
        3,
        &[
            KeyValue::new("z", "\x1b[31m"),
            KeyValue::new("format", "webp"),
        ],
    );
    let time = meter.f64_histogram("time").with_unit("s").build();
    time.record(0.5, &[]);
    time.record(1.5, &[]);
    meter.i64_up_down_counter("balance").build().add(-2, &[]);
    meter
        .u64_gauge("memory")
        .with_unit("By")
        .build()
        .record(23_400, &[]);
    let ratio = meter.f64_gauge("ratio").with_unit("1").build();
    ratio.record(0.123_45, &[KeyValue::new("long", "x".repeat(1_000))]);

    let printed = |page: &str| {
        let own = ["pictures", "time", "balance", "memory", "ratio"];
        let lines = page
            .lines()
            .filter(|line| own.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [
        "balance -2".to_owned(),
        "memory 23.4 kB".to_owned(),
        "pictures{format=webp, z=\\u{1b}[31m} 3 picture".to_owned(),
        format!("ratio{{long={}…}} 0.123", "x".repeat(59)),
        "time count=2 sum=2.00 s mean=1.00 s".to_owned(),
    ];
    // A collection may come before everything was recorded, so the test waits for a complete page.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = pages.recv_timeout(PATIENCE).unwrap();
        if printed(&page) == expected {
            break;
        }
        assert!(Instant::now() < deadline, "{page}");
    }
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    assert!(telemetry.data_point_stats().exported >= 5);
}

#[test]
fn a_flush_prints_metrics_at_once() {
    let (page, pages) = Page::new();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_METRIC_EXPORT_INTERVAL", "3600000")])
        .console_metrics(ConsoleMetricExporter::new(page))
        .build()
        .unwrap();
    let meter = telemetry.meter_provider().meter("test");
    meter.u64_counter("pictures").build().add(1, &[]);
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    let page = pages.try_recv().unwrap();
    assert!(page.lines().any(|line| line == "pictures 1"), "{page}");
}

#[test]
fn the_environment_can_ask_for_both() {
    let vars = [
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_LOGS_EXPORTER", "Console"),
    ];
    let settings = Telemetry::builder().vars(vars).settings().unwrap();
    assert!(matches!(settings.metrics, Exporter::Console));
    assert!(matches!(settings.logs, Exporter::Console));
    assert!(matches!(settings.traces, Exporter::None));
}

#[test]
fn log_records_are_a_line_each() {
    let (page, pages) = Page::new();
    let telemetry = Telemetry::builder()
        .vars([("", ""); 0])
        .console_logs(ConsoleLogExporter::new(page))
        .build()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    let recorder = opentelemetry_sdk::trace::SdkTracerProvider::default();
    let span = recorder.tracer("test").start("span");
    let context = opentelemetry::Context::new().with_span(span);
    {
        let _default = tracing::subscriber::set_default(subscriber);
        tracing::info!("outside\nof \x1b[2J");
        let _current = context.clone().attach();
        tracing::warn!(pixels = 42, "in a span");
    }
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    let text: String = pages.try_iter().collect();
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let trace = context.span().span_context().trace_id();
    assert_eq!(lines[0].1, "INFO  outside of \\u{1b}[2J");
    assert_eq!(
        lines[1].1,
        format!("WARN  in a span pixels=42 trace_id={trace}")
    );
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0].0.len(), "06:17:25.120".len(), "{text}");
    assert_eq!(telemetry.log_record_stats().exported, 2);
}

// faults F15
#[test]
fn no_secret_is_printed_in_metrics_and_log_lines() {
    let secret = "https://user:SECRET@h/?sig=SECRET";
    let (page, pages) = Page::new();
    let (lines, logged) = Page::new();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_METRIC_EXPORT_INTERVAL", "3600000")])
        .console_metrics(ConsoleMetricExporter::new(page))
        .console_logs(ConsoleLogExporter::new(lines))
        .build()
        .unwrap();
    let meter = telemetry.meter_provider().meter("test");
    let attributes = [
        KeyValue::new("url", secret),
        KeyValue::new("token", "SECRET"),
    ];
    meter.u64_counter("pictures").build().add(1, &attributes);
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(url = secret, token = "SECRET", "{secret} failed");
    });
    telemetry.force_flush_blocking(PATIENCE).unwrap();
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    let printed: String = pages.try_iter().chain(logged.try_iter()).collect();
    assert!(!printed.contains("SECRET"), "{printed}");
    let redacted = "https://REDACTED:REDACTED@h/?sig=REDACTED";
    for shown in [
        &format!("pictures{{token=REDACTED, url={redacted}}} 1"),
        &format!("INFO  {redacted} failed url={redacted} token=REDACTED"),
    ] {
        assert!(printed.contains(shown), "{shown} in {printed}");
    }
}

/// A writer that panics.
struct Panicking;

impl Write for Panicking {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("on purpose");
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// faults C13
#[test]
fn writers_that_panic_lose_what_they_were_given_and_end_nothing() {
    let telemetry = Telemetry::builder()
        .vars([("OTEL_METRIC_EXPORT_INTERVAL", "3600000")])
        .console_metrics(ConsoleMetricExporter::new(Panicking))
        .console_logs(ConsoleLogExporter::new(Panicking))
        .build()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    let _default = tracing::subscriber::set_default(subscriber);
    for round in 1..3 {
        let meter = telemetry.meter_provider().meter("test");
        meter.u64_counter("pictures").build().add(1, &[]);
        tracing::info!("line");
        telemetry.force_flush_blocking(PATIENCE).unwrap_err();
        assert_eq!(telemetry.log_record_stats().failed, round);
        assert!(telemetry.data_point_stats().failed >= round);
    }
    telemetry.shutdown_blocking(PATIENCE).unwrap_err();
}

/// A blocked terminal, as after Ctrl-S.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// This test would not end if logging waited for the terminal.
#[test]
fn a_terminal_that_stands_still_holds_up_nobody() {
    let (go_on, stuck) = channel();
    let telemetry = Telemetry::builder()
        .vars([("OTEL_BLRP_MAX_QUEUE_SIZE", "100")])
        .console_logs(ConsoleLogExporter::new(Stuck(stuck)))
        .build()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    tracing::subscriber::with_default(subscriber, || {
        (0..1_000).for_each(|n| tracing::info!(n, "line"));
    });
    assert_eq!(telemetry.log_record_stats().dropped, 900);
    telemetry
        .force_flush_blocking(Duration::from_millis(50))
        .unwrap_err();
    drop(go_on);
    telemetry.shutdown_blocking(PATIENCE).unwrap();
    assert_eq!(telemetry.log_record_stats().exported, 100);
}
