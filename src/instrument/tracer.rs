use std::time::{Duration, SystemTime};

use opentelemetry::{
    Context,
    trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer},
};

use crate::propagation::{RANDOM, RandomRoot, with_flags};

/// A tracer of any provider. Unlike the API's `BoxedTracer` it puts the span into a context while the
/// span's type is known, which saves one allocation a span.
pub(crate) trait StartSpan: Send + Sync {
    /// Returns a context with the new span in it, and whether that span records. A root span with a
    /// random trace id has the random flag.
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Context,
        has_random_id: bool,
    ) -> (Context, bool);

    /// [`start_root`](Self::start_root) for a span of a trace that has begun.
    fn start(&self, span: SpanBuilder, parent: &Context) -> (Context, bool) {
        self.start_root(span, parent, false)
    }

    /// Records a span that began at its start time and took `elapsed`.
    fn record(&self, span: SpanBuilder, parent: &Context, status: Status, elapsed: Duration);
}

impl<T> StartSpan for T
where
    T: Tracer + Send + Sync,
    T::Span: Send + Sync + 'static,
{
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Context,
        has_random_id: bool,
    ) -> (Context, bool) {
        let span = self.build_with_context(span, parent);
        if span.is_recording() {
            let context = match has_random_id {
                true => parent.with_span(RandomRoot::new(span)),
                false => parent.with_span(span),
            };
            (context, true)
        } else {
            // Its ids are all that is left of it; they need no allocation.
            let span = match has_random_id {
                true => with_flags(span.span_context(), RANDOM),
                false => span.span_context().clone(),
            };
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
