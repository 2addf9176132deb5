//! Encoded spans of traces whose root in this process has not ended.
//!
//! Every span that ends comes here with its bytes ([`Gathered::ended`]). When the root of its request ends,
//! a [`Taker`] decides what becomes of all of them. What is never asked for costs a copy of the bytes into
//! memory that the thread uses again.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    mem::size_of,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope,
    trace::{SpanId, TraceId},
};

/// The parts of the memory, each with a lock of its own.
const SHARDS: usize = 16;
/// The latest traces whose root has ended.
const ENDED: usize = 2048;
/// The buckets that say whether anything waits.
const BUCKETS: usize = 2048;
/// The most scopes that spans are told apart by.
const SCOPES: usize = 64;
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
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    /// [`SpanId::INVALID`] for a span without a parent.
    pub(crate) parent_id: SpanId,
    /// The span's parent is in another process, or there is none.
    pub(crate) is_local_root: bool,
    /// The sampler keeps the span: it is exported, where there is an exporter.
    pub(crate) is_sampled: bool,
    pub(crate) outcome: Outcome,
    pub(crate) started_at: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) name: &'a str,
    pub(crate) scope: &'a InstrumentationScope,
    /// Tag, length and message of one element of `ScopeSpans.spans`.
    pub(crate) entry: &'a [u8],
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
    fn memory(&self) -> usize {
        size_of::<Self>() + self.target.len() + self.entry.len()
    }
}

/// What is known of a span without decoding it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    span_id: SpanId,
    parent_id: SpanId,
    pub(crate) duration: Duration,
    len: u32,
    pub(crate) outcome: Outcome,
    scope: u8,
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

    #[cfg(feature = "logs")]
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let lines: usize = self.lines.iter().map(Line::memory).sum();
        self.entries.capacity() + self.parts.capacity() * size_of::<Part>() + lines
    }

    /// Adds what came later.
    pub(crate) fn extend(&mut self, later: &Self) {
        self.entries.extend_from_slice(&later.entries);
        self.parts.extend_from_slice(&later.parts);
        self.lines.extend_from_slice(&later.lines);
    }

    /// Gives back the memory that nothing came for.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.parts.shrink_to_fit();
        self.lines.shrink_to_fit();
    }

    fn push(&mut self, part: Part, entry: &[u8]) {
        self.entries.extend_from_slice(entry);
        self.parts.push(part);
    }

    /// Takes out what does not belong to the request of `root`: another request of the trace may be running.
    fn split_off(&mut self, root: SpanId) -> Option<Self> {
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

    /// The empty memory of an earlier trace.
    fn reused() -> Self {
        let kept = REUSED.try_with(|kept| kept.borrow_mut().pop());
        kept.ok().flatten().unwrap_or_default()
    }

    /// Keeps the memory for the next trace.
    fn give_back(mut self) {
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

/// What becomes of traces when their root ends. Called by the threads that end spans: it must be quick.
pub(crate) trait Taker: fmt::Debug + Send + Sync {
    /// Counts the trace, and says whether its spans are wanted. The root is not among them yet.
    fn wants(&self, root: &Ended<'_>, trace: &Trace) -> bool;

    /// Takes a trace that was wanted, root included.
    fn take(&self, root: &Ended<'_>, trace: Trace);

    /// Takes what came after its root has ended; false when the trace is not held.
    fn join(&self, trace_id: TraceId, later: &Trace) -> bool;
}

/// The spans that wait for their root, in bounded memory.
pub(crate) struct Gathered {
    shards: [Mutex<Shard>; SHARDS],
    /// How many traces wait, by bits of their ids: most requests have a span alone and need no lock.
    waiting: Box<[AtomicU32]>,
    /// Low bits of the ids of traces whose root has ended, at the place of their lowest bits.
    ended: Box<[AtomicU64]>,
    scopes: Scopes,
    bytes: AtomicUsize,
    max_bytes: usize,
    taker: Arc<dyn Taker>,
}

#[derive(Debug, Default)]
struct Shard {
    waiting: HashMap<TraceId, Waiting>,
    /// How many traces have begun to wait.
    begun: u64,
}

#[derive(Debug)]
struct Waiting {
    trace: Trace,
    /// What came after a root had ended is given up first.
    is_late: bool,
    begun: u64,
}

fn low(id: TraceId) -> u64 {
    u128::from_be_bytes(id.to_bytes()) as u64
}

impl Gathered {
    /// `max_bytes`: what waits takes so much memory at most.
    pub(crate) fn new(max_bytes: usize, taker: Arc<dyn Taker>) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            waiting: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            ended: (0..ENDED).map(|_| AtomicU64::new(0)).collect(),
            scopes: Scopes::new(),
            bytes: AtomicUsize::new(0),
            max_bytes,
            taker,
        }
    }

    /// Takes a span that has ended: the one way in.
    pub(crate) fn ended(&self, span: &Ended<'_>) {
        let part = Part {
            span_id: span.span_id,
            parent_id: span.parent_id,
            duration: span.duration,
            len: u32::try_from(span.entry.len()).unwrap_or(u32::MAX),
            outcome: span.outcome,
            scope: self.scopes.index(span.scope),
        };
        if span.entry.len() > self.max_bytes / 2 {
            return;
        }
        if span.is_local_root {
            let mut trace = self.take_out(span.trace_id, span.span_id);
            if self.taker.wants(span, &trace) {
                trace.push(part, span.entry);
                self.taker.take(span, trace);
            } else {
                trace.give_back();
            }
        } else {
            self.add(span.trace_id, |trace| trace.push(part, span.entry));
        }
    }

    /// Takes a log record of a trace.
    #[cfg(feature = "logs")]
    pub(crate) fn logged(&self, trace_id: TraceId, line: Line) {
        if line.memory() < self.max_bytes / 2 {
            self.add(trace_id, |trace| trace.lines.push(line));
        }
    }

    /// The scope of a span.
    pub(crate) fn scope(&self, part: &Part) -> Option<&InstrumentationScope> {
        self.scopes.get(part.scope)
    }

    /// The memory that is in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let fixed = BUCKETS * size_of::<AtomicU32>() + ENDED * size_of::<AtomicU64>();
        self.bytes.load(Relaxed) + fixed
    }

    fn bucket(&self, id: TraceId) -> &AtomicU32 {
        &self.waiting[low(id) as usize % BUCKETS]
    }

    fn has_ended(&self, id: TraceId) -> bool {
        let low = low(id);
        self.ended[low as usize % ENDED].load(Relaxed) == low
    }

    fn note_end(&self, id: TraceId) {
        let low = low(id);
        self.ended[low as usize % ENDED].store(low, Relaxed);
    }

    fn shard(&self, id: TraceId) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(low(id) >> 32) as usize % SHARDS];
        // A panic elsewhere must not become one here; the data is whole after every statement.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace of a root that has ended.
    fn take_out(&self, id: TraceId, root: SpanId) -> Trace {
        self.note_end(id);
        // A span that has ended before its root, on whatever thread, is known here.
        if self.bucket(id).load(Relaxed) == 0 {
            return Trace::reused();
        }
        let mut shard = self.shard(id);
        let Some(mut waiting) = self.remove(&mut shard, id) else {
            drop(shard);
            return Trace::reused();
        };
        self.bytes.fetch_sub(waiting.trace.memory(), Relaxed);
        if let Some(others) = waiting.trace.split_off(root) {
            let own = std::mem::replace(&mut waiting.trace, others);
            self.bytes.fetch_add(waiting.trace.memory(), Relaxed);
            self.insert(&mut shard, id, waiting);
            return own;
        }
        waiting.trace
    }

    fn insert(&self, shard: &mut Shard, id: TraceId, waiting: Waiting) {
        self.bucket(id).fetch_add(1, Relaxed);
        shard.waiting.insert(id, waiting);
    }

    fn remove(&self, shard: &mut Shard, id: TraceId) -> Option<Waiting> {
        let waiting = shard.waiting.remove(&id)?;
        self.bucket(id).fetch_sub(1, Relaxed);
        Some(waiting)
    }

    fn add(&self, id: TraceId, add: impl FnOnce(&mut Trace)) {
        let mut shard = self.shard(id);
        if let Some(waiting) = shard.waiting.get_mut(&id) {
            let before = waiting.trace.memory();
            add(&mut waiting.trace);
            let more = waiting.trace.memory() - before;
            if more > 0 {
                self.bytes.fetch_add(more, Relaxed);
                self.make_room(&mut shard);
            }
            return;
        }
        let mut trace = Trace::reused();
        add(&mut trace);
        // Locked in this order: a taker never comes back here.
        if self.taker.join(id, &trace) {
            drop(shard);
            return trace.give_back();
        }
        // What is late and not held is mostly of no use, but another request of the trace may be running.
        let is_late = self.has_ended(id);
        self.bytes.fetch_add(trace.memory(), Relaxed);
        shard.begun += 1;
        let begun = shard.begun;
        let waiting = Waiting {
            trace,
            is_late,
            begun,
        };
        self.insert(&mut shard, id, waiting);
        self.make_room(&mut shard);
    }

    /// Gives up what has waited longest.
    fn make_room(&self, shard: &mut Shard) {
        while self.bytes() > self.max_bytes {
            let oldest = shard.waiting.iter();
            let oldest = oldest.min_by_key(|(_, waiting)| (!waiting.is_late, waiting.begun));
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            if let Some(waiting) = self.remove(shard, id) {
                self.bytes.fetch_sub(waiting.trace.memory(), Relaxed);
            }
        }
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

/// The scopes of all spans, read without a lock.
struct Scopes([OnceLock<InstrumentationScope>; SCOPES]);

impl Scopes {
    const fn new() -> Self {
        Self([const { OnceLock::new() }; SCOPES])
    }

    /// The place of the scope; one behind the last when all are taken.
    fn index(&self, scope: &InstrumentationScope) -> u8 {
        let mut places = self.0.iter();
        let place = places.position(|place| place.get_or_init(|| scope.clone()) == scope);
        place.unwrap_or(SCOPES) as u8
    }

    fn get(&self, index: u8) -> Option<&InstrumentationScope> {
        self.0.get(usize::from(index))?.get()
    }
}
