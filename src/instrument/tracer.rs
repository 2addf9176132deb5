use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer},
};

/// A tracer of any provider. Unlike the API's `BoxedTracer` it puts the span into a context while the
/// span's type is known, which saves one allocation a span.
pub(crate) trait StartSpan: Send + Sync {
    /// Returns a context with the new span in it, and whether that span records. A recording span gets
    /// the `late` attributes.
    fn start(
        &self,
        span: SpanBuilder,
        parent: &Context,
        late: Option<&Attributes<'_>>,
    ) -> (Context, bool);

    /// Records a span that began at its start time and took `elapsed`.
    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration);
}

/// Adds attributes.
pub(crate) type Attributes<'a> = dyn Fn(&mut Vec<KeyValue>) + 'a;

thread_local! {
    /// Reused for the late attributes of one span after the other.
    static LATE_ATTRIBUTES: Cell<Vec<KeyValue>> = const { Cell::new(Vec::new()) };
}

impl<T> StartSpan for T
where
    T: Tracer + Send + Sync,
    T::Span: Send + Sync + 'static,
{
    fn start(
        &self,
        span: SpanBuilder,
        parent: &Context,
        late: Option<&Attributes<'_>>,
    ) -> (Context, bool) {
        let mut span = self.build_with_context(span, parent);
        if span.is_recording() {
            if let Some(late) = late {
                // The list is only missing while the thread ends.
                let kept = LATE_ATTRIBUTES.try_with(Cell::take);
                let mut attributes = kept.unwrap_or_default();
                late(&mut attributes);
                span.set_attributes(attributes.drain(..));
                let _ = LATE_ATTRIBUTES.try_with(|kept| kept.set(attributes));
            }
            (parent.with_span(span), true)
        } else {
            // Its ids are all that is left of it; they need no allocation.
            let span = span.span_context().clone();
            (parent.with_remote_span_context(span), false)
        }
    }

    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration) {
        let started_at = span.start_time.unwrap_or_else(SystemTime::now);
        let mut span = self.build_with_context(span, parent);
        if status != Status::Unset {
            span.set_status(status);
        }
        span.end_with_timestamp(started_at + elapsed);
    }
}
