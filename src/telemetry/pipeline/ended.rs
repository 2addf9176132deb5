//! Encoded spans that have ended, and what is known of them without decoding them.
//!
//! What is never asked for costs a copy of the bytes into memory that the thread uses again.

use std::{cell::RefCell, mem::size_of, time::Duration};

#[cfg(feature = "_otlp")]
use opentelemetry::trace::SpanKind;
use opentelemetry::{
    InstrumentationScope,
    trace::{SpanId, Status, TraceId},
};

use crate::telemetry::otlp::encode::Recorded;

/// The memory that a thread keeps for the next trace: of so many traces, each of at most so many bytes.
const KEPT_TRACES: usize = 2;
const KEPT_BYTES: usize = 4 << 10;

/// How a span ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Outcome {
    #[default]
    Ok,
    Cancelled,
    Failed,
}

/// A span that has ended and is encoded.
pub(crate) struct Ended<'a> {
    pub(crate) span: &'a Recorded<'a>,
    /// The span, or what it is about, was cancelled.
    pub(crate) is_cancelled: bool,
    /// It was in no context, so that nothing has begun below it.
    #[cfg(feature = "_otlp")]
    pub(crate) is_leaf: bool,
    pub(crate) scope: &'a InstrumentationScope,
    /// Tag, length and message of one element of `ScopeSpans.spans`.
    pub(crate) entry: &'a [u8],
    /// It is exported, where there is an exporter.
    pub(crate) is_kept: bool,
    /// Why a local root is kept, where that is decided at its end.
    pub(crate) reason: Option<&'static str>,
}

impl<'a> Ended<'a> {
    pub(crate) fn new(
        span: &'a Recorded<'a>,
        is_cancelled: bool,
        scope: &'a InstrumentationScope,
        entry: &'a [u8],
    ) -> Self {
        Self {
            span,
            is_cancelled,
            #[cfg(feature = "_otlp")]
            is_leaf: false,
            scope,
            entry,
            is_kept: span.context.is_sampled(),
            reason: None,
        }
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.span.context.trace_id()
    }

    pub(crate) fn span_id(&self) -> SpanId {
        self.span.context.span_id()
    }

    /// Whether the parent is in another process, or there is none.
    pub(crate) fn is_local_root(&self) -> bool {
        self.span.is_local_root()
    }

    /// Whether it is the span of a request, made by a layer of this crate.
    #[cfg(feature = "_otlp")]
    pub(crate) fn is_request(&self) -> bool {
        *self.span.kind == SpanKind::Server && self.scope.name() == env!("CARGO_PKG_NAME")
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self.span.status {
            Status::Error { .. } => Outcome::Failed,
            _ if self.is_cancelled => Outcome::Cancelled,
            _ => Outcome::Ok,
        }
    }

    pub(crate) fn duration(&self) -> Duration {
        let duration = self.span.end.duration_since(self.span.start);
        duration.unwrap_or_default()
    }
}

/// A log record of a trace, encoded.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) span_id: SpanId,
    pub(crate) target: Box<str>,
    /// Tag, length and message of one element of `ScopeLogs.log_records`.
    pub(crate) entry: Box<[u8]>,
}

impl Line {
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.target.len() + self.entry.len()
    }
}

/// What is known of a span without decoding it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) span_id: SpanId,
    pub(crate) parent_id: SpanId,
    #[cfg(feature = "page")]
    pub(crate) duration: Duration,
    pub(super) len: u32,
    pub(crate) outcome: Outcome,
    /// Whether the request was cancelled, if it is the span of one.
    #[cfg(feature = "_otlp")]
    pub(super) cancelled_request: Option<bool>,
    #[cfg(feature = "_otlp")]
    pub(super) is_sampled: bool,
    /// Nothing has begun below it.
    #[cfg(feature = "_otlp")]
    pub(super) is_leaf: bool,
    pub(super) scope: u8,
}

/// Spans and log records of one trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// The entries of the spans, one after the other.
    entries: Vec<u8>,
    parts: Vec<Part>,
    lines: Vec<Line>,
}

impl Trace {
    /// The spans in the order in which they ended, with their entries.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (&Part, &[u8])> {
        let mut rest = self.entries.as_slice();
        self.parts.iter().map(move |part| {
            let (entry, after) = rest.split_at(part.len as usize);
            rest = after;
            (part, entry)
        })
    }

    /// What is known of the spans.
    #[cfg(any(feature = "_otlp", feature = "page"))]
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    #[cfg(all(feature = "logs", feature = "page"))]
    pub(crate) fn push_line(&mut self, line: Line) {
        self.lines.push(line);
    }

    #[cfg(all(feature = "logs", feature = "page"))]
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    #[cfg(feature = "_otlp")]
    pub(super) const fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.lines.is_empty()
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let lines: usize = self.lines.iter().map(Line::memory).sum();
        self.entries.capacity() + self.parts.capacity() * size_of::<Part>() + lines
    }

    /// How many spans and log records there are.
    #[cfg(feature = "page")]
    pub(crate) fn count(&self) -> usize {
        self.parts.len() + self.lines.len()
    }

    /// Adds what came later.
    #[cfg(feature = "page")]
    pub(crate) fn extend(&mut self, later: &Self) {
        self.entries.extend_from_slice(&later.entries);
        self.parts.extend_from_slice(&later.parts);
        self.lines.extend_from_slice(&later.lines);
    }

    /// Gives back the memory that nothing came for.
    #[cfg(feature = "page")]
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.parts.shrink_to_fit();
        self.lines.shrink_to_fit();
    }

    /// Leaves out what does not fit into `most` bytes. The root stays, then failed spans, other spans and log
    /// records, of each the latest: a span mostly ends after those below it.
    #[cfg(feature = "page")]
    pub(crate) fn cut(&mut self, root: SpanId, most: usize) {
        let mut left = most;
        let mut fits = |bytes: usize| match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let rank = |part: &Part| match part.outcome {
            _ if part.span_id == root => 0,
            Outcome::Failed => 1,
            _ => 2,
        };
        let mut stays = vec![false; self.parts.len()];
        for wanted in 0..=2 {
            for (part, stays) in self.parts.iter().zip(&mut stays).rev() {
                if rank(part) == wanted {
                    let has_place = fits(size_of::<Part>() + part.len as usize);
                    *stays = has_place || wanted == 0;
                }
            }
        }
        let mut cut = Self::default();
        for ((part, entry), _) in self.spans().zip(stays).filter(|(_, stays)| *stays) {
            cut.push(*part, entry);
        }
        cut.lines = std::mem::take(&mut self.lines);
        cut.lines.reverse();
        cut.lines.retain(|line| fits(line.memory()));
        cut.lines.reverse();
        cut.shrink();
        *self = cut;
    }

    pub(crate) fn push(&mut self, part: Part, entry: &[u8]) {
        self.entries.extend_from_slice(entry);
        self.parts.push(part);
    }

    /// Takes out what does not belong to the request of `root`: another request of the trace may be running.
    pub(super) fn split_off(&mut self, root: SpanId) -> Option<Self> {
        if self.parts.iter().all(|part| part.parent_id == root) {
            return None;
        }
        let mut belongs = vec![false; self.parts.len()];
        let mut ids = vec![root];
        // Spans mostly end before their parents, so that one pass backwards finds all of them.
        loop {
            let known = ids.len();
            for (part, belongs) in self.parts.iter().zip(&mut belongs).rev() {
                if !*belongs && ids.contains(&part.parent_id) {
                    *belongs = true;
                    ids.push(part.span_id);
                }
            }
            if ids.len() == known || ids.len() > self.parts.len() {
                break;
            }
        }
        if belongs.iter().all(|belongs| *belongs) {
            return None;
        }
        let (mut own, mut others) = (Self::default(), Self::default());
        for ((part, entry), belongs) in self.spans().zip(belongs) {
            let to = if belongs { &mut own } else { &mut others };
            to.push(*part, entry);
        }
        let is_own = |line: &Line| ids.contains(&line.span_id);
        (own.lines, others.lines) = std::mem::take(&mut self.lines)
            .into_iter()
            .partition(is_own);
        *self = own;
        Some(others)
    }

    /// Takes out the parts about which `decide` says something. It is asked again about the others when it has
    /// said something about one.
    #[cfg(feature = "_otlp")]
    pub(super) fn settle<D: Copy>(
        &mut self,
        mut decide: impl FnMut(&Part) -> Option<D>,
        mut take: impl FnMut(&Part, &[u8], D),
    ) {
        let mut decisions = vec![None; self.parts.len()];
        let mut is_done = false;
        // Spans mostly end before their parents, so that one pass backwards finds all of them.
        while !is_done {
            is_done = true;
            let parts = self.parts.iter().zip(&mut decisions).rev();
            for (part, decision) in parts.filter(|(_, decision)| decision.is_none()) {
                *decision = decide(part);
                is_done &= decision.is_none();
            }
        }
        let mut others = Self {
            lines: std::mem::take(&mut self.lines),
            ..Self::default()
        };
        for ((part, entry), decision) in self.spans().zip(decisions) {
            match decision {
                Some(decision) => take(part, entry, decision),
                None => others.push(*part, entry),
            }
        }
        *self = others;
    }

    /// The empty memory of an earlier trace.
    pub(super) fn reused() -> Self {
        let kept = REUSED.try_with(|kept| kept.borrow_mut().pop());
        kept.ok().flatten().unwrap_or_default()
    }

    /// Keeps the memory for the next trace.
    pub(crate) fn give_back(mut self) {
        if self.memory() > KEPT_BYTES {
            return;
        }
        self.entries.clear();
        self.parts.clear();
        self.lines.clear();
        // A thread that ends keeps nothing.
        let _ = REUSED.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_TRACES {
                kept.push(self);
            }
        });
    }
}

thread_local! {
    static REUSED: RefCell<Vec<Trace>> = const { RefCell::new(Vec::new()) };
}
