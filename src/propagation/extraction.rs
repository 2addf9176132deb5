//! The context that the formats read into, one after the other.

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt, TraceId},
};

use super::{
    random,
    sampling::{Sampling, is_debug},
    undecided::Undecided,
};

/// A context and the kind of parent that the formats have found so far.
#[derive(Debug)]
pub(super) struct Extraction {
    pub(super) cx: Context,
    found: Found,
    /// Whether a trace that begins here is one that someone debugs by a header without a parent.
    is_debugged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A parent without a sampling decision.
    Undecided,
    /// A parent with a sampling decision.
    Whole,
}

impl Extraction {
    pub(super) fn new(cx: &Context) -> Self {
        Self {
            cx: cx.clone(),
            found: Found::Nothing,
            is_debugged: false,
        }
    }

    /// Makes `parent` the parent. Returns `false` if it has no sampling decision and an earlier
    /// format had a whole parent, which stays.
    ///
    /// Of whole parents the last one counts. If it is the same span, it keeps the tracestate, the
    /// random flag and the upper half of the trace id of the earlier one, which its own format may not have.
    pub(super) fn set_parent(&mut self, parent: SpanContext, is_decided: bool) -> bool {
        if self.found == Found::Whole && !is_decided {
            return false;
        }
        let parent = match self.found {
            Found::Nothing => parent,
            Found::Undecided | Found::Whole => with_state_of(parent, self.cx.span().span_context()),
        };
        let with_parent = self.cx.with_remote_span_context(parent);
        if is_decided {
            self.set_context(with_parent);
        } else {
            self.cx = with_parent;
            self.found = Found::Undecided;
        }
        true
    }

    /// [`set_parent`](Self::set_parent) for a context that has a parent with a decision already.
    pub(super) fn set_context(&mut self, with_parent: Context) {
        self.cx = with_parent;
        if self.found == Found::Undecided {
            // It may be the same span, and then this is the decision on it.
            Undecided::clear(&mut self.cx);
            Sampling::Decided.store(&mut self.cx);
        }
        self.found = Found::Whole;
        self.forget_debugging();
    }

    /// Stores the sampling state of the parent that was just set.
    pub(super) fn set_sampling(&mut self, sampling: Sampling) {
        let sampling = match sampling {
            // An earlier format may have had the whole id.
            Sampling::Debug(_) => Sampling::Debug(self.cx.span().span_context().trace_id()),
            other => other,
        };
        sampling.store(&mut self.cx);
    }

    /// Samples the trace if it begins here.
    pub(super) fn debug(&mut self) {
        if !is_debug(&self.cx) {
            Sampling::Debug(TraceId::INVALID).store(&mut self.cx);
            self.is_debugged = true;
        }
    }

    /// There is a parent with a decision, so that the trace does not begin here.
    fn forget_debugging(&mut self) {
        let is_debugged = std::mem::take(&mut self.is_debugged);
        if is_debugged && self.cx.get() == Some(&Sampling::Debug(TraceId::INVALID)) {
            Sampling::Decided.store(&mut self.cx);
        }
    }

    /// Whether a sampling decision without ids decides on the trace: `cx` has no parent with a
    /// decision, and no span from before.
    pub(super) fn is_undecided(&self) -> bool {
        match self.found {
            Found::Nothing => !self.cx.span().span_context().is_valid(),
            Found::Undecided => true,
            Found::Whole => false,
        }
    }
}

fn with_state_of(parent: SpanContext, earlier: &SpanContext) -> SpanContext {
    let (id, whole) = (number(parent.trace_id()), number(earlier.trace_id()));
    // OT Trace sends the lower half of an id only.
    let is_same_trace = id == whole || id == whole & u128::from(u64::MAX);
    if !is_same_trace || parent.span_id() != earlier.span_id() {
        return parent;
    }
    SpanContext::new(
        earlier.trace_id(),
        parent.span_id(),
        parent.trace_flags() | (earlier.trace_flags() & random::RANDOM),
        true,
        earlier.trace_state().clone(),
    )
}

fn number(id: TraceId) -> u128 {
    u128::from_be_bytes(id.to_bytes())
}
