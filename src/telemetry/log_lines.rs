//! Trace ids in the service's ordinary log lines.

use std::fmt;

use opentelemetry::{Context, trace::TraceContextExt};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Puts `trace_id=… span_id=…` of the current span before each line of another format.
///
/// ```
/// use tower_image_trace::telemetry::WithTraceIds;
/// use tracing_subscriber::fmt::format;
///
/// let subscriber = tracing_subscriber::fmt()
///     .event_format(WithTraceIds::new(format().compact()))
///     .finish();
/// # let _ = subscriber;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WithTraceIds<F> {
    inner: F,
}

impl<F> WithTraceIds<F> {
    /// Wraps a format.
    pub const fn new(inner: F) -> Self {
        Self { inner }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTraceIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let ids = Context::map_current(|cx| {
            let span = cx.span().span_context().clone();
            span.is_valid().then(|| (span.trace_id(), span.span_id()))
        });
        if let Some((trace, span)) = ids {
            write!(writer, "trace_id={trace} span_id={span} ")?;
        }
        self.inner.format_event(ctx, writer, event)
    }
}
