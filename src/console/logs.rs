//! Prints log records as lines.

use std::{io::Write, time::UNIX_EPOCH};

use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter, SdkLogRecord},
};

use super::{
    output::Lines,
    text::{cut, pair, printable, time_of_day},
};

/// The longest message or attribute value, in terminal columns.
const MESSAGE: usize = 1_000;

/// Prints each log record as a line: time of day (UTC), severity, message, attributes, trace id.
///
/// ```text
/// 06:17:25.120 WARN  too many pixels pixels=42 trace_id=4bf92f3577b34da6a3ce929d0e0e4736
/// ```
#[derive(Debug)]
pub struct ConsoleLogExporter(Lines);

impl ConsoleLogExporter {
    /// Prints to standard output.
    pub fn stdout() -> Self {
        Self(Lines::stdout())
    }

    /// Prints to `writer`. Each batch is one `write_all` and one `flush`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Lines::new(writer))
    }
}

impl LogExporter for ConsoleLogExporter {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let lines: Vec<_> = batch.iter().map(|(record, _)| describe(record)).collect();
        self.0.print(&lines)
    }
}

fn describe(record: &SdkLogRecord) -> String {
    let time = record.timestamp().or(record.observed_timestamp());
    let severity = record.severity_text().unwrap_or_default();
    let message = record.body().map(text).unwrap_or_default();
    let message = cut(&printable(&message), MESSAGE);
    let time = time_of_day(time.unwrap_or(UNIX_EPOCH));
    let mut line = format!("{time} {severity:<5} {message}");
    for (key, value) in record.attributes_iter() {
        line.push(' ');
        line.push_str(&pair(key.as_str(), &text(value), MESSAGE));
    }
    if let Some(context) = record.trace_context() {
        line.push_str(&format!(" trace_id={}", context.trace_id));
    }
    line
}

fn text(value: &AnyValue) -> String {
    match value {
        AnyValue::String(text) => text.as_str().to_owned(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Double(number) => number.to_string(),
        AnyValue::Boolean(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
