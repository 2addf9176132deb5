//! Holds the spans of each request until it ends, and then exports all of them or none.
//!
//! A decision is remembered by the ids of the spans that it was made about, so that what ends after its root
//! follows it. What a caller has sampled, or what is forced, is decided from the start and waits for nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32,
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
        otlp::{
            Batch,
            encode::{span_duration, span_name},
        },
    },
};

/// This memory is taken at once, and more of it is of no use to the busiest services.
const MOST_FOR_DECISIONS: usize = 16 << 20;
const MOST_FOR_ROOTS: usize = 1 << 20;

/// Decides which traces are exported.
pub(crate) struct Keeper {
    keep: Keep,
    head: Head,
    waiting: WaitingTraces,
    decided: Decided,
    open: OpenRoots,
    queue: Arc<Queue<Batch>>,
    is_closed: AtomicBool,
    /// The memory was out.
    full: Notify,
}

impl Part {
    /// What becomes of it when its trace is not known to its end.
    const fn by_dice(&self) -> Decision {
        match self.is_sampled {
            true => Decision::Ratio,
            false => Decision::Dropped,
        }
    }
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
        let for_roots = (max_bytes / 32).min(MOST_FOR_ROOTS);
        Self {
            keep,
            head,
            waiting: WaitingTraces::new(max_bytes - for_decisions - for_roots),
            decided: Decided::new(for_decisions),
            open: OpenRoots::new(for_roots),
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
        if !parent.is_valid() || parent.is_remote() {
            self.open.add(span.trace_id());
        }
        let follows = self.head.follows_callers && !self.head.records_unsampled_callers;
        if is_forced() {
            self.decided.set(span.span_id(), Decision::Forced);
        } else if follows && parent.is_remote() && parent.is_sampled() {
            self.decided.set(span.span_id(), Decision::Parent);
        } else {
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
        if span.is_local_root() {
            self.open.remove(span.trace_id());
            return self.root_ended(span, self.decided.get(id));
        }
        let own = match span.is_leaf {
            // Nobody else knows of it.
            true => None,
            false => self.decided.get(id),
        };
        let of_parent = self.decided.known(span.span.parent);
        if of_parent.is_none() && span.is_request() {
            // Its parent has not started here: it is of another provider, and its end will not be known.
            return self.root_ended(span, own);
        }
        // What was decided about its trace is forgotten, or another provider has begun it.
        let is_late = of_parent.is_none() && !self.open.has(span.trace_id());
        let by_dice = || (is_late && span.span.context.is_sampled()).then_some(Decision::Ratio);
        let decision = own.or_else(|| of_parent?.made()).or_else(by_dice);
        if let Some(decision) = decision {
            if !span.is_leaf {
                self.decided.set(id, decision);
            }
            if own.is_some() && of_parent.is_some() {
                // It was decided before its end, as what is around it.
                self.decided.set(span.span.parent, decision);
            }
            self.emit(span.scope, span.entry, decision, None);
            self.settle(span.trace_id());
            return None;
        }
        self.wait(span, is_late);
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
            Some(Decision::Dropped) => {
                // Its spans were given up.
                self.queue.report().count_undecided(1);
                (Decision::Dropped, None)
            }
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
        let by_caller = root.span.parent_is_remote && self.head.follows_callers;
        match by_caller || !root.is_local_root() {
            true => Reason::Parent,
            false => Reason::Ratio,
        }
    }

    fn decide(&self, root: &Ended<'_>, trace: &Trace) -> (Decision, Option<Reason>) {
        let is_sampled = root.span.context.is_sampled();
        let mut parts = trace.parts().iter();
        let has_failed_part = parts.any(|part| part.outcome == Outcome::Failed);
        let has_failed = root.outcome() == Outcome::Failed || has_failed_part;
        let by_dice = match is_sampled {
            true => (Decision::Ratio, Some(self.of_sampled(root))),
            false => (Decision::Dropped, None),
        };
        if root.span.parent_is_remote && self.head.follows_callers {
            // Then all that have failed are kept, whatever their callers have sampled.
            return match self.head.records_unsampled_callers && has_failed {
                true if is_sampled => (Decision::All, Some(Reason::Parent)),
                true => (Decision::All, Some(Reason::Errors)),
                false => by_dice,
            };
        }
        if !is_sampled && !self.head.records(root.span.context) {
            // It was recorded for the live page.
            return (Decision::Dropped, None);
        }
        if is_sampled && !root.is_local_root() {
            // Another provider has sampled it, by rules of its own.
            return by_dice;
        }
        match self.reason(root, trace, has_failed) {
            Some(reason) => (Decision::Recorded, Some(reason)),
            None => by_dice,
        }
    }

    /// Why a trace is kept that neither its caller nor the dice have sampled. The requests below a span of the
    /// service's own count in its place.
    fn reason(&self, root: &Ended<'_>, trace: &Trace, failed: bool) -> Option<Reason> {
        if !root.is_request() {
            let requests = trace.spans().filter_map(|(part, entry)| {
                Some(EndedRequest {
                    name: span_name(entry),
                    duration: span_duration(entry),
                    failed,
                    cancelled: part.cancelled_request?,
                    entry,
                })
            });
            let mut requests = requests.peekable();
            if requests.peek().is_some() {
                return requests.find_map(|request| self.keep.reason(&request));
            }
        }
        self.keep.reason(&EndedRequest {
            name: root.span.name,
            duration: root.duration(),
            failed,
            cancelled: root.is_cancelled,
            entry: root.entry,
        })
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
            self.decide_below(part, decision);
            Some(decision)
        };
        self.waiting
            .settle(trace_id, decide, |part, entry, decision| {
                if let Some(scope) = self.waiting.scope(part) {
                    self.emit(scope, entry, decision, None);
                }
            });
    }

    /// Remembers the decision for what may be below a span.
    fn decide_below(&self, part: &Part, decision: Decision) {
        if !part.is_leaf {
            self.decided.set(part.span_id, decision);
        }
    }

    fn give_out(&self, trace: Trace, decision: Decision) {
        for part in trace.parts() {
            self.decide_below(part, decision);
        }
        let kept = trace.spans().filter(|_| decision != Decision::Dropped);
        for (part, entry) in kept {
            if let Some(scope) = self.waiting.scope(part) {
                self.emit(scope, entry, decision, None);
            }
        }
        trace.give_back();
    }

    fn wait(&self, span: &Ended<'_>, is_late: bool) {
        let part = self.waiting.part(span);
        if !self.waiting.takes(span.entry.len()) || self.waiting.scope(&part).is_none() {
            // What waits below it does so no longer.
            self.decide_below(&part, part.by_dice());
            self.by_dice(part.is_sampled, span.scope, span.entry);
            return self.settle(span.trace_id());
        }
        let add = |trace: &mut Trace| trace.push(part, span.entry);
        let id = span.trace_id();
        let give_up = |trace: Trace, is_late| self.give_up(&trace, is_late);
        self.waiting.add(id, is_late, add, give_up);
    }

    /// Decides about a trace by the dice before its end.
    fn give_up(&self, trace: &Trace, is_late: bool) {
        for (part, entry) in trace.spans() {
            let decision = part.by_dice();
            // Its root ends later, or a span between them, and maybe spans below it.
            self.decided.set(part.parent_id, decision);
            self.decide_below(part, decision);
            // What is late and not sampled belongs to what was dropped, so nothing is lost.
            if let Some(scope) = self.waiting.scope(part).filter(|_| !is_late) {
                self.by_dice(part.is_sampled, scope, entry);
            }
        }
    }

    /// Exports a span, or counts it as lost.
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
        self.waiting
            .clear(|trace, is_late| self.give_up(&trace, is_late));
    }
}

/// How many local roots are open, by low bits of the ids of their traces: traces share a number now and then.
struct OpenRoots(Box<[AtomicU32]>);

impl OpenRoots {
    /// Takes so many bytes at most, and at least 4.
    fn new(max_bytes: usize) -> Self {
        let numbers = 1_usize << (max_bytes / size_of::<AtomicU32>()).max(1).ilog2();
        Self((0..numbers).map(|_| AtomicU32::new(0)).collect())
    }

    fn of(&self, id: TraceId) -> &AtomicU32 {
        &self.0[u128::from_be_bytes(id.to_bytes()) as usize % self.0.len()]
    }

    fn add(&self, id: TraceId) {
        self.of(id).fetch_add(1, Relaxed);
    }

    /// Stays at 0 for a root whose start was not seen.
    fn remove(&self, id: TraceId) {
        let number = self.of(id);
        let _ = number.fetch_update(Relaxed, Relaxed, |number| number.checked_sub(1));
    }

    /// Whether a root of the trace may be open.
    fn has(&self, id: TraceId) -> bool {
        self.of(id).load(Relaxed) > 0
    }
}
