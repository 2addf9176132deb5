//! The random flag of W3C Trace Context level 2 (§3.2.2.5): 56 bits of the trace id are random.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanContext, Status, TraceContextExt, TraceFlags, TraceId},
};

pub(crate) const RANDOM: TraceFlags = TraceFlags::new(0x02);

/// The trace that came with the flag. The SDK drops the flag of a span that is not sampled, so the
/// context keeps it.
#[derive(Debug)]
struct RandomTrace(TraceId);

/// Stores or clears the flag of the parent that was read into `cx`.
pub(super) fn store(cx: &mut Context) {
    let span = cx.span();
    let parent = span.span_context();
    let trace_id = parent.trace_id();
    let is_random = parent.trace_flags() & RANDOM == RANDOM;
    let was_random = is_random_trace(cx, trace_id);
    if is_random != was_random {
        *cx = cx.with_value(RandomTrace(if is_random {
            trace_id
        } else {
            TraceId::INVALID
        }));
    }
}

/// Whether a context says of any trace that it has the flag.
pub(super) fn is_stored(cx: &Context) -> bool {
    cx.get::<RandomTrace>().is_some()
}

/// The trace flags to send with the span in `cx`: its own, and the random flag of its trace.
pub(crate) fn trace_flags(cx: &Context) -> TraceFlags {
    let span = cx.span();
    let span = span.span_context();
    if is_random_trace(cx, span.trace_id()) {
        span.trace_flags() | RANDOM
    } else {
        span.trace_flags()
    }
}

fn is_random_trace(cx: &Context, trace_id: TraceId) -> bool {
    trace_id != TraceId::INVALID
        && cx
            .get::<RandomTrace>()
            .is_some_and(|random| random.0 == trace_id)
}

/// `span` with more trace flags than its tracer gave it.
pub(crate) fn with_flags(span: &SpanContext, more: TraceFlags) -> SpanContext {
    SpanContext::new(
        span.trace_id(),
        span.span_id(),
        span.trace_flags() | more,
        span.is_remote(),
        span.trace_state().clone(),
    )
}

/// The root span of a trace with a random id. No tracer of the SDK sets the flag.
#[derive(Debug)]
pub(crate) struct RandomRoot<S> {
    span: S,
    span_context: SpanContext,
}

impl<S: Span> RandomRoot<S> {
    pub(crate) fn new(span: S) -> Self {
        Self {
            span_context: with_flags(span.span_context(), RANDOM),
            span,
        }
    }
}

impl<S: Span> Span for RandomRoot<S> {
    fn span_context(&self) -> &SpanContext {
        &self.span_context
    }

    fn is_recording(&self) -> bool {
        self.span.is_recording()
    }

    fn add_event_with_timestamp<T>(
        &mut self,
        name: T,
        timestamp: SystemTime,
        attributes: Vec<KeyValue>,
    ) where
        T: Into<Cow<'static, str>>,
    {
        self.span
            .add_event_with_timestamp(name, timestamp, attributes);
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        self.span.set_attribute(attribute);
    }

    fn set_attributes(&mut self, attributes: impl IntoIterator<Item = KeyValue>) {
        self.span.set_attributes(attributes);
    }

    fn set_status(&mut self, status: Status) {
        self.span.set_status(status);
    }

    fn update_name<T>(&mut self, name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        self.span.update_name(name);
    }

    fn add_link(&mut self, span_context: SpanContext, attributes: Vec<KeyValue>) {
        self.span.add_link(span_context, attributes);
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        self.span.end_with_timestamp(timestamp);
    }
}
