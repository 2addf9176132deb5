//! The spans that the page gathers by their requests.
//!
//! Every span that ends comes here with its bytes ([`Gathered::ended`]). When the root of its request ends,
//! a [`Taker`] decides what becomes of all of them.

use std::{fmt, sync::Arc};

use opentelemetry::{
    InstrumentationScope,
    trace::{SpanId, TraceId},
};

#[cfg(feature = "logs")]
use super::ended::Line;
use super::{
    ended::{Ended, Part, Trace},
    waiting::WaitingTraces,
};

/// What becomes of traces when their root ends. Called by the threads that end spans: it must be quick.
pub(crate) trait Taker: fmt::Debug + Send + Sync {
    /// Counts the trace, and says whether its spans are wanted. The root is not among them yet.
    fn wants(&self, root: &Ended<'_>, trace: &Trace) -> bool;

    /// Takes a trace that was wanted, root included.
    fn take(&self, root: &Ended<'_>, trace: Trace);

    /// Whether this span is held: what is below it has no root to wait for.
    fn holds(&self, trace_id: TraceId, span_id: SpanId) -> bool;

    /// Takes what came after its root has ended.
    fn join(&self, trace_id: TraceId, later: &Trace);
}

/// The spans that wait for their root, and who takes them then.
pub(crate) struct Gathered {
    waiting: WaitingTraces,
    taker: Arc<dyn Taker>,
}

impl Gathered {
    /// `max_bytes`: what waits takes so much memory at most.
    pub(crate) fn new(max_bytes: usize, taker: Arc<dyn Taker>) -> Self {
        Self {
            waiting: WaitingTraces::new(max_bytes),
            taker,
        }
    }

    /// Takes a span that has ended: the one way in.
    pub(crate) fn ended(&self, span: &Ended<'_>) {
        if !self.waiting.takes(span.entry.len()) {
            return;
        }
        let part = self.waiting.part(span);
        let id = span.trace_id();
        if span.is_local_root() {
            let mut trace = self.waiting.take_out(id, part.span_id);
            if self.taker.wants(span, &trace) {
                trace.push(part, span.entry);
                self.taker.take(span, trace);
            } else {
                trace.give_back();
            }
        } else if self.taker.holds(id, part.parent_id) {
            let mut trace = self.waiting.take_out(id, part.span_id);
            trace.push(part, span.entry);
            self.join(id, trace);
        } else {
            self.wait(id, |trace| trace.push(part, span.entry));
        }
    }

    /// Takes a log record of a trace.
    #[cfg(feature = "logs")]
    pub(crate) fn logged(&self, trace_id: TraceId, line: Line) {
        if !self.waiting.takes(line.memory()) {
            return;
        }
        if self.taker.holds(trace_id, line.span_id) {
            let mut trace = Trace::reused();
            trace.push_line(line);
            self.join(trace_id, trace);
        } else {
            self.wait(trace_id, |trace| trace.push_line(line));
        }
    }

    /// The scope of a span.
    pub(crate) fn scope(&self, part: &Part) -> Option<&InstrumentationScope> {
        self.waiting.scope(part)
    }

    /// The memory that is in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.bytes()
    }

    fn join(&self, id: TraceId, later: Trace) {
        self.taker.join(id, &later);
        later.give_back();
    }

    fn wait(&self, id: TraceId, add: impl FnOnce(&mut Trace)) {
        // What is late and not held is mostly of no use.
        let is_late = self.waiting.has_ended(id);
        self.waiting.add(id, is_late, add, |_, _| ());
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered")
            .field("bytes", &self.bytes())
            .field("taker", &self.taker)
            .finish_non_exhaustive()
    }
}
