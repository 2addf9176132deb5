//! The sampling states of B3, Jaeger and X-Ray that `TraceFlags` cannot hold.

use std::cell::Cell;

#[cfg(feature = "_export")]
use opentelemetry::trace::TraceState;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceId},
};

use super::undecided::continued_trace_id;

/// Stored in the context by extraction and read by injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Accept or deny, which `TraceFlags` holds.
    Decided,
    /// Deny without ids: the trace that starts in this context is not sampled.
    Denied,
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
            Self::Decided | Self::Denied => false,
            Self::Deferred(span_id) => span_id == span.span_id(),
            Self::Debug(trace_id) => trace_id == TraceId::INVALID || trace_id == span.trace_id(),
        };
        cx.get::<Self>()
            .copied()
            .filter(|state| belongs(span.span_context(), state))
            .unwrap_or(Self::Decided)
    }
}

/// Whether the header of the trace in `cx`, or of the one that starts there, asks for it to be sampled
/// whatever the sampler says: the debug flag of B3 and Jaeger, or `jaeger-debug-id`.
pub(crate) fn is_debug(cx: &Context) -> bool {
    matches!(Sampling::of(cx), Sampling::Debug(_))
}

thread_local! {
    static IS_FORCED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `start`, in which the samplers of `Telemetry` sample every root span.
pub(crate) fn with_forced_sampling<R>(start: impl FnOnce() -> R) -> R {
    // A guard: a panic must not force the next trace of this thread.
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_FORCED.set(self.0);
        }
    }
    let _reset = Reset(IS_FORCED.replace(true));
    start()
}

/// Whether this thread starts a span that is to be sampled.
#[cfg(feature = "_export")]
pub(crate) fn is_forced() -> bool {
    IS_FORCED.get()
}

/// The state without the threshold (`th`) of OpenTelemetry's member: it says how likely the decision of the
/// caller was, and is wrong about any other decision. The member's other fields stay.
#[cfg(feature = "_export")]
pub(crate) fn without_threshold(state: TraceState) -> TraceState {
    let Some(member) = state.get("ot") else {
        return state;
    };
    let is_threshold = |field: &str| field.starts_with("th:");
    if !member.split(';').any(is_threshold) {
        return state;
    }
    let others = member.split(';').filter(|field| !is_threshold(field));
    let others = others.collect::<Vec<_>>().join(";");
    let changed = match others.is_empty() {
        true => state.delete("ot"),
        false => state.insert("ot", others),
    };
    // The key is valid, and so is a part of a valid value.
    changed.unwrap_or(state)
}

/// Whether the trace that starts in `cx` must not be sampled, because a header denied sampling
/// without naming a parent: `b3: 0`, `x-b3-sampled: 0`, or `Root=…;Sampled=0` of X-Ray.
///
/// [`ImageTraceLayer`](crate::ImageTraceLayer) begins such a trace as one that its caller did not
/// sample. `false` if `cx` has a parent with a sampling decision, or a span of this process.
///
/// ```
/// use opentelemetry::Context;
/// use tower_image_trace::propagation::{Propagators, is_denied};
///
/// let propagators: Propagators = "b3".parse()?;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("b3", "0".parse()?);
/// assert!(is_denied(&propagators.extract_headers(&Context::new(), &headers)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn is_denied(cx: &Context) -> bool {
    cx.get() == Some(&Sampling::Denied)
        && (!cx.span().span_context().is_valid() || continued_trace_id(cx).is_some())
}
