use std::time::SystemTime;

use opentelemetry::{StringValue, trace::SpanContext};

/// Where exceptions are recorded: as events of spans, or as log records, or both.
///
/// Semconv is on its way from the one to the other (`OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`).
#[derive(Clone, Debug)]
pub(crate) struct Exceptions {
    /// Whether spans have `exception` events.
    pub(crate) on_spans: bool,
    #[cfg(feature = "logs")]
    logger: Option<opentelemetry_sdk::logs::SdkLogger>,
}

impl Default for Exceptions {
    fn default() -> Self {
        Self {
            on_spans: true,
            #[cfg(feature = "logs")]
            logger: None,
        }
    }
}

/// An exception as a log record (semconv exceptions-logs, http-exceptions, rpc-exceptions).
#[cfg_attr(not(feature = "logs"), allow(dead_code))]
pub(crate) struct Exception<'a> {
    pub(crate) event_name: &'static str,
    pub(crate) level: Level,
    pub(crate) at: SystemTime,
    pub(crate) span: &'a SpanContext,
    pub(crate) error_type: &'a StringValue,
    pub(crate) message: &'a StringValue,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// What was called failed; the request may go on without it.
    Warn,
    /// The request failed.
    Error,
}

impl Exceptions {
    #[cfg(feature = "logs")]
    pub(crate) fn logged(logger: opentelemetry_sdk::logs::SdkLogger, on_spans: bool) -> Self {
        Self {
            on_spans,
            logger: Some(logger),
        }
    }

    /// Whether exceptions are log records, also those of requests that are not sampled.
    pub(crate) fn are_logged(&self) -> bool {
        #[cfg(feature = "logs")]
        return self.logger.is_some();
        #[cfg(not(feature = "logs"))]
        false
    }

    /// Writes a log record, if exceptions are log records.
    #[cfg(feature = "logs")]
    pub(crate) fn log(&self, exception: &Exception<'_>) {
        use opentelemetry::logs::{LogRecord, Logger, Severity};

        let Some(logger) = &self.logger else { return };
        let mut record = logger.create_log_record();
        record.set_event_name(exception.event_name);
        record.set_timestamp(exception.at);
        let severity = match exception.level {
            Level::Warn => Severity::Warn,
            Level::Error => Severity::Error,
        };
        record.set_severity_number(severity);
        record.set_severity_text(severity.name());
        record.add_attribute("exception.type", exception.error_type.clone());
        record.add_attribute("exception.message", exception.message.clone());
        let span = exception.span;
        if span.is_valid() {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
        }
        logger.emit(record);
    }

    #[cfg(not(feature = "logs"))]
    pub(crate) fn log(&self, _: &Exception<'_>) {}
}
