//! What B3 and Jaeger say about sampling beyond `TraceFlags`, on its way through a service.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};

/// Stored in a context at extraction, and looked for at injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Accept or deny: `TraceFlags` says it all.
    Decided,
    /// Nobody decided yet. Holds for this parent only: the next span in the trace is a decision.
    Deferred(SpanId),
    /// Accept at every hop. Holds for the whole trace, or, when the header named none, for the
    /// trace that this context starts.
    Debug(TraceId),
}

impl Sampling {
    /// Stores the state. An earlier one is replaced even by [`Decided`](Self::Decided), so that it
    /// does not outlive its header.
    pub(super) fn store(self, cx: &mut Context) {
        if self != Self::Decided || cx.get::<Self>().is_some() {
            *cx = cx.with_value(self);
        }
    }

    /// The state that belongs to the span in `cx`.
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
