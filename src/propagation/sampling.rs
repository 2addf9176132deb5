//! The sampling states of B3 and Jaeger that `TraceFlags` cannot hold.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceId},
};

/// Stored in the context by extraction and read by injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Accept or deny, which `TraceFlags` holds.
    Decided,
    /// No decision yet. Holds for this parent only, because the next span in the trace decides.
    Deferred(SpanId),
    /// Accept at every hop. Holds for the whole trace, or for the trace that starts in this context
    /// if the header named none.
    Debug(TraceId),
}

impl Sampling {
    /// Stores the state. [`Decided`](Self::Decided) replaces an earlier state too, which must not
    /// outlive its header.
    pub(super) fn store(self, cx: &mut Context) {
        if self != Self::Decided || cx.get::<Self>().is_some() {
            *cx = cx.with_value(self);
        }
    }

    /// The state of the span in `cx`.
    pub(super) fn of(cx: &Context) -> Self {
        let span = cx.span();
        let belongs = |span: &SpanContext, state: &Self| match *state {
            Self::Decided => false,
            Self::Deferred(span_id) => span_id == span.span_id(),
            Self::Debug(trace_id) => trace_id == TraceId::INVALID || trace_id == span.trace_id(),
        };
        cx.get::<Self>()
            .copied()
            .filter(|state| belongs(span.span_context(), state))
            .unwrap_or(Self::Decided)
    }
}
