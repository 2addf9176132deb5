use std::time::{Duration, SystemTime};

use opentelemetry::{
    Context,
    trace::{Span, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer},
};

use super::{AddAttributes, TextRules, attributes::WrittenSpans, clock::system_time};
use crate::propagation::{Parent, RANDOM, RandomRoot, with_flags};

/// A span that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// A context with the span in it.
    pub(crate) context: Context,
    pub(crate) is_recording: bool,
    /// When the span began, if that was read.
    pub(crate) started_at: Option<SystemTime>,
    /// What ends the span, if it is not one of the SDK.
    pub(crate) written: Option<&'static dyn WrittenSpans>,
}

impl Begun {
    #[inline]
    fn recorded(context: Context) -> Self {
        Self {
            context,
            is_recording: true,
            started_at: None,
            written: None,
        }
    }

    /// A span of which nothing but its ids is left; they need no allocation.
    pub(crate) fn unrecorded(span: SpanContext, parent: &Context) -> Self {
        Self {
            context: parent.with_remote_span_context(span),
            is_recording: false,
            started_at: None,
            written: None,
        }
    }
}

/// The attributes that a span begins with and its sampler does not see, cut as `texts` says.
#[cfg_attr(
    not(feature = "_otlp"),
    expect(dead_code, reason = "only written spans begin with them")
)]
#[derive(Clone, Copy)]
pub(crate) struct First<'a> {
    pub(crate) texts: &'a TextRules,
    pub(crate) add: &'a dyn Fn(&mut dyn AddAttributes),
}

/// A tracer of any provider. Unlike the API's `BoxedTracer` it puts the span into a context while the
/// span's type is known, which saves one allocation a span.
pub(crate) trait StartSpan: Send + Sync {
    /// Starts the span of a request now. A root span with a random trace id has the random flag. Only a span
    /// that is [written](Begun::written) begins with `first`.
    fn start_root(
        &self,
        span: SpanBuilder,
        parent: &Parent,
        has_random_id: bool,
        first: Option<First<'_>>,
    ) -> Begun;

    /// Starts a span of a trace that has begun.
    fn start(&self, span: SpanBuilder, parent: &Context) -> Begun;

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
        mut span: SpanBuilder,
        parent: &Parent,
        has_random_id: bool,
        _: Option<First<'_>>,
    ) -> Begun {
        let parent = &*parent.context();
        let started_at = system_time();
        span.start_time = Some(started_at);
        let span = self.build_with_context(span, parent);
        let mut begun = match (span.is_recording(), has_random_id) {
            (true, true) => Begun::recorded(parent.with_span(RandomRoot::new(span))),
            (true, false) => Begun::recorded(parent.with_span(span)),
            (false, true) => Begun::unrecorded(with_flags(span.span_context(), RANDOM), parent),
            (false, false) => Begun::unrecorded(span.span_context().clone(), parent),
        };
        begun.started_at = Some(started_at);
        begun
    }

    fn start(&self, span: SpanBuilder, parent: &Context) -> Begun {
        let span = self.build_with_context(span, parent);
        match span.is_recording() {
            true => Begun::recorded(parent.with_span(span)),
            false => Begun::unrecorded(span.span_context().clone(), parent),
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
