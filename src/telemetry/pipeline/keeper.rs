//! Holds the spans of each request until it ends, and then exports all of them or none.
//!
//! A decision is remembered by the ids of the spans that it was made about, so that what ends after its root
//! follows it. What a caller has sampled, or what is forced, is decided from the start and waits for nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use opentelemetry::{
    InstrumentationScope,
    trace::{SpanContext, SpanId, TraceId},
};
use tokio::sync::Notify;

use super::{
    decided::{Decided, Decision},
    ended::{Ended, Outcome, Part, Trace},
    head::Head,
    queue::Queue,
    waiting::WaitingTraces,
};
use crate::{
    propagation::is_forced,
    telemetry::{
        event::{Sink, TelemetryEvent},
        keep::{EndedRequest, Keep, Reason, Threshold, rewritten},
        otlp::Batch,
    },
};

/// The decisions of a minute of the busiest services need no more memory. It is taken at once.
const MOST_FOR_DECISIONS: usize = 16 << 20;

/// Decides which traces are exported.
pub(crate) struct Keeper {
    keep: Keep,
    head: Head,
    waiting: WaitingTraces,
    decided: Decided,
    queue: Arc<Queue<Batch>>,
    is_closed: AtomicBool,
    /// The memory was out.
    full: Notify,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("keep", &self.keep)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    pub(crate) fn new(keep: Keep, head: Head, queue: Arc<Queue<Batch>>) -> Self {
        let max_bytes = keep.most_bytes();
        let for_decisions = (max_bytes / 8).min(MOST_FOR_DECISIONS);
        Self {
            keep,
            head,
            waiting: WaitingTraces::new(max_bytes - for_decisions),
            decided: Decided::new(for_decisions),
            queue,
            is_closed: AtomicBool::new(false),
            full: Notify::new(),
        }
    }

    /// Says once when the memory is out.
    pub(crate) async fn tell(self: Arc<Self>, events: Sink) {
        self.full.notified().await;
        events.emit(&TelemetryEvent::KeepMemory {
            max_bytes: self.keep.most_bytes(),
        });
    }

    /// Takes note of a span that has started: what is known of its trace is decided already.
    pub(crate) fn started(&self, span: &SpanContext, parent: &SpanContext) {
        let follows = self.head.follows_callers && !self.head.records_unsampled_callers;
        if is_forced() {
            self.decided.set(span.span_id(), Decision::Forced);
        } else if follows && parent.is_remote() && parent.is_sampled() {
            self.decided.set(span.span_id(), Decision::Parent);
        } else if !span.is_sampled() {
            self.decided.set(span.span_id(), Decision::Open);
        }
    }

    /// Whether the trace of this span is kept, or may be.
    pub(super) fn keeps(&self, id: SpanId) -> bool {
        let known = self.decided.known(id);
        known.is_some_and(|decision| decision != Decision::Dropped)
    }

    /// Takes a span that has ended: the one way in. Says in the root of a request whether it is kept, and why.
    pub(crate) fn ended(&self, span: &mut Ended<'_>) {
        let reason = self.take(span);
        span.is_kept = reason.is_some();
        span.reason = reason.map(Reason::name);
    }

    fn take(&self, span: &Ended<'_>) -> Option<Reason> {
        let id = span.span_id();
        if self.is_closed.load(Relaxed) {
            // The queue counts it.
            if span.span.context.is_sampled() {
                self.push(span.scope, span.entry);
            }
            return None;
        }
        let own = self.decided.get(id);
        if span.is_local_root() {
            return self.root_ended(span, own);
        }
        if let Some(decision) = own.or_else(|| self.decided.get(span.span.parent)) {
            self.decided.set(id, decision);
            if own.is_some() {
                // It was decided before its end, as what is around it.
                self.decided.set(span.span.parent, decision);
            }
            self.emit(span.scope, span.entry, decision, None);
            self.settle(span.trace_id());
            return None;
        }
        self.wait(span);
        if self.is_closed.load(Relaxed) {
            self.close();
        }
        // Its trace may have been decided meanwhile, on another thread: see `settle`.
        fence(SeqCst);
        if self.decided.get(span.span.parent).is_some() {
            self.settle(span.trace_id());
        }
        None
    }

    fn root_ended(&self, root: &Ended<'_>, known: Option<Decision>) -> Option<Reason> {
        let (trace_id, id) = (root.trace_id(), root.span_id());
        let trace = self.waiting.take_out(trace_id, id);
        let (decision, reason) = match known {
            Some(Decision::Dropped) => (Decision::Dropped, None),
            Some(Decision::Forced) => (Decision::Forced, Some(Reason::Forced)),
            Some(Decision::Parent) => (Decision::Parent, Some(Reason::Parent)),
            // By the dice, before its end.
            Some(_) => (Decision::Ratio, Some(self.of_sampled(root))),
            None => self.decide(root, &trace),
        };
        self.decided.set(id, decision);
        self.give_out(trace, decision);
        self.emit(root.scope, root.entry, decision, reason);
        self.settle(trace_id);
        reason
    }

    /// Why a trace is kept that was sampled at its start.
    fn of_sampled(&self, root: &Ended<'_>) -> Reason {
        match root.span.parent_is_remote && self.head.follows_callers {
            true => Reason::Parent,
            false => Reason::Ratio,
        }
    }

    fn decide(&self, root: &Ended<'_>, trace: &Trace) -> (Decision, Option<Reason>) {
        let is_sampled = root.span.context.is_sampled();
        let mut parts = trace.parts().iter();
        let has_failed_part = parts.any(|part| part.outcome == Outcome::Failed);
        let request = EndedRequest {
            name: root.span.name,
            duration: root.duration(),
            failed: root.outcome() == Outcome::Failed || has_failed_part,
            cancelled: root.is_cancelled,
            entry: root.entry,
        };
        let by_dice = match is_sampled {
            true => (Decision::Ratio, Some(self.of_sampled(root))),
            false => (Decision::Dropped, None),
        };
        if root.span.parent_is_remote && self.head.follows_callers {
            // Then all that have failed are kept, whatever their callers have sampled.
            return match self.head.records_unsampled_callers && request.failed() {
                true if is_sampled => (Decision::All, Some(Reason::Parent)),
                true => (Decision::All, Some(Reason::Errors)),
                false => by_dice,
            };
        }
        if !is_sampled && !self.head.records(root.span.context) {
            // It was recorded for the live page.
            return (Decision::Dropped, None);
        }
        match self.keep.reason(&request) {
            Some(reason) => (Decision::Recorded, Some(reason)),
            None => by_dice,
        }
    }

    /// Gives out what waits below spans about which something was decided, at whatever depth: a span may have
    /// begun to wait on another thread after its parent was given out.
    ///
    /// A thread lets its span wait and then looks at the decisions, another one decides and then looks at what
    /// waits, each with a fence between the two. So one of them sees what the other has done.
    fn settle(&self, trace_id: TraceId) {
        fence(SeqCst);
        let decide = |part: &Part| {
            let decision = self.decided.get(part.parent_id)?;
            self.decided.set(part.span_id, decision);
            Some(decision)
        };
        self.waiting
            .settle(trace_id, decide, |part, entry, decision| {
                if let Some(scope) = self.waiting.scope(part) {
                    self.emit(scope, entry, decision, None);
                }
            });
    }

    fn give_out(&self, trace: Trace, decision: Decision) {
        for part in trace.parts() {
            self.decided.set(part.span_id, decision);
        }
        let kept = trace.spans().filter(|_| decision != Decision::Dropped);
        for (part, entry) in kept {
            if let Some(scope) = self.waiting.scope(part) {
                self.emit(scope, entry, decision, None);
            }
        }
        trace.give_back();
    }

    fn wait(&self, span: &Ended<'_>) {
        let part = self.waiting.part(span);
        if !self.waiting.takes(span.entry.len()) || self.waiting.scope(&part).is_none() {
            return self.by_dice(span.span.context.is_sampled(), span.scope, span.entry);
        }
        let add = |trace: &mut Trace| trace.push(part, span.entry);
        let id = span.trace_id();
        self.waiting
            .add(id, add, |_| false, |trace| self.give_up(&trace));
    }

    /// Decides about a trace by the dice before its end.
    fn give_up(&self, trace: &Trace) {
        for (part, entry) in trace.spans() {
            let decision = match part.is_sampled {
                true => Decision::Ratio,
                false => Decision::Dropped,
            };
            // Its root ends later, or a span between them, and maybe spans below it.
            self.decided.set(part.parent_id, decision);
            self.decided.set(part.span_id, decision);
            if let Some(scope) = self.waiting.scope(part) {
                self.by_dice(part.is_sampled, scope, entry);
            }
        }
    }

    fn by_dice(&self, is_sampled: bool, scope: &InstrumentationScope, entry: &[u8]) {
        match is_sampled {
            true => self.push(scope, entry),
            false => self.queue.report().count_undecided(1),
        }
        if !self.is_closed.load(Relaxed) {
            self.full.notify_one();
        }
    }

    fn emit(
        &self,
        scope: &InstrumentationScope,
        entry: &[u8],
        decision: Decision,
        reason: Option<Reason>,
    ) {
        let threshold = match decision {
            Decision::Dropped => return,
            Decision::Recorded => Some(self.head.recorded),
            Decision::Forced | Decision::All => Some(Threshold::NONE),
            Decision::Parent | Decision::Ratio | Decision::Open => None,
        };
        match (threshold, reason) {
            (None, None) => self.push(scope, entry),
            _ => self.push(scope, &rewritten(entry, threshold, reason)),
        }
    }

    fn push(&self, scope: &InstrumentationScope, entry: &[u8]) {
        let add = |batch: &mut Batch| batch.push(scope, None, entry);
        self.queue.push(1, entry.len(), add);
    }

    /// Decides by the dice about all that waits. The queue is closed after it.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Relaxed);
        self.waiting.clear(|trace| self.give_up(&trace));
    }
}
