use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer},
};

/// A tracer of any provider. Unlike the API's `BoxedTracer` it puts the span into its context
/// while its type is still known, which saves a box a span.
pub(crate) trait StartSpan: Send + Sync {
    /// A context with the new span in it, and whether that span records. Only if it does, it gets
    /// the `late` attributes.
    fn start(
        &self,
        span: SpanBuilder,
        parent: &Context,
        late: Option<&Attributes<'_>>,
    ) -> (Context, bool);

    /// Records a span that has a start time and is over after so long.
    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration);
}

/// Adds attributes.
pub(crate) type Attributes<'a> = dyn Fn(&mut Vec<KeyValue>) + 'a;

thread_local! {
    /// Where the late attributes of a span are, one span at a time.
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
                // Only while the thread is ending there is none to be had.
                let kept = LATE_ATTRIBUTES.try_with(Cell::take);
                let mut attributes = kept.unwrap_or_default();
                late(&mut attributes);
                span.set_attributes(attributes.drain(..));
                let _ = LATE_ATTRIBUTES.try_with(|kept| kept.set(attributes));
            }
            (parent.with_span(span), true)
        } else {
            // All that is left of it, without the box that a span is kept in.
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
