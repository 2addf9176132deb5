//! The trace that a new root span continues.

use opentelemetry::{
    Context,
    trace::{SpanId, TraceContextExt, TraceId},
};

/// A trace from upstream without a parent or without a sampling decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecided {
    pub(super) trace_id: TraceId,
    pub(super) parent: Option<SpanId>,
}

impl Undecided {
    pub(super) fn store(self, cx: &mut Context) {
        *cx = cx.with_value(self);
    }

    pub(super) fn clear(cx: &mut Context) {
        if cx.get::<Self>().is_some() {
            let none = Self {
                trace_id: TraceId::INVALID,
                parent: None,
            };
            none.store(cx);
        }
    }
}

/// The id of the trace that a new root span in `cx` continues, if an X-Ray header named a trace
/// without a parent, or a parent without a sampling decision.
///
/// The receiver starts a root span with this trace id and lets its sampler decide, which continues
/// the trace of an AWS load balancer. A parent without a decision is in `cx`, but its unset sampled
/// flag does not mean "not sampled": link to it at most. `None` if `cx` has a valid parent from
/// another format, or a span of this process.
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::trace::{TraceContextExt, TraceId};
/// use tower_image_trace::propagation::{Propagators, continued_trace_id};
///
/// let propagators: Propagators = "xray".parse()?;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-amzn-trace-id", "Root=1-8a3c60f7-d188f8fa79d48a391a778fa6".parse()?);
/// let cx = propagators.extract_headers(&Context::new(), &headers);
///
/// assert!(!cx.span().span_context().is_valid());
/// let id = TraceId::from(0x8a3c60f7_d188f8fa79d48a391a778fa6);
/// assert_eq!(continued_trace_id(&cx), Some(id));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn continued_trace_id(cx: &Context) -> Option<TraceId> {
    let undecided = cx.get::<Undecided>()?;
    if undecided.trace_id == TraceId::INVALID {
        return None;
    }
    let span = cx.span();
    let parent = span.span_context();
    let is_its_own = parent.trace_id() == undecided.trace_id
        && Some(parent.span_id()) == undecided.parent
        && !parent.is_sampled();
    (!parent.is_valid() || is_its_own).then_some(undecided.trace_id)
}
