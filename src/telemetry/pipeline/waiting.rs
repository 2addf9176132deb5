//! Encoded spans that wait for the end of their request, in bounded memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    mem::size_of,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use opentelemetry::{
    InstrumentationScope,
    trace::{SpanId, TraceId},
};

use super::ended::{Ended, Part, Trace};

/// The parts of the memory, each with a lock of its own.
const SHARDS: usize = 16;
/// The latest traces whose root has ended.
const ENDED: usize = 2048;
/// The buckets that say whether anything waits.
const BUCKETS: usize = 2048;
/// The most scopes that spans are told apart by.
const SCOPES: usize = 64;
/// What a trace takes beside its spans, in a map that is half full.
const OVERHEAD: usize = 2 * size_of::<(TraceId, Waiting)>();

/// The spans that wait for their root.
pub(crate) struct WaitingTraces {
    shards: [Mutex<Shard>; SHARDS],
    /// How many traces wait, by bits of their ids: most requests have a span alone and need no lock.
    counts: Box<[AtomicU32]>,
    /// Low bits of the ids of traces whose root has ended, at the place of their lowest bits.
    ended: Box<[AtomicU64]>,
    scopes: Scopes,
    bytes: AtomicUsize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    waiting: HashMap<TraceId, Waiting, Seeded>,
    /// How many traces have begun to wait.
    begun: u64,
}

#[derive(Debug)]
struct Waiting {
    trace: Trace,
    /// All of it came after the root had ended. It is given up first.
    is_late: bool,
    begun: u64,
}

/// Hashes trace ids, most of which are random. Callers may choose theirs, but do not know the seed.
struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(RandomState::new().hash_one(()))
    }
}

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeded")
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }

    fn write_u128(&mut self, number: u128) {
        let (high, low) = ((number >> 64) as u64, number as u64);
        // The halves of a product of secret numbers, folded into one.
        let product = u128::from(high ^ self.0) * u128::from(low ^ self.0.rotate_left(32) | 1);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn low(id: TraceId) -> u64 {
    u128::from_be_bytes(id.to_bytes()) as u64
}

impl WaitingTraces {
    /// `max_bytes`: what waits takes so much memory at most.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            counts: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            ended: (0..ENDED).map(|_| AtomicU64::new(0)).collect(),
            scopes: Scopes::new(),
            bytes: AtomicUsize::new(0),
            max_bytes,
        }
    }

    /// Whether something of that size may wait.
    pub(crate) const fn takes(&self, size: usize) -> bool {
        size <= self.max_bytes / 2
    }

    /// What is remembered of a span beside its bytes.
    pub(crate) fn part(&self, span: &Ended<'_>) -> Part {
        Part {
            span_id: span.span_id(),
            parent_id: span.span.parent,
            #[cfg(feature = "page")]
            duration: span.duration(),
            len: u32::try_from(span.entry.len()).unwrap_or(u32::MAX),
            outcome: span.outcome(),
            #[cfg(feature = "_otlp")]
            cancelled_request: span.is_request().then_some(span.is_cancelled),
            #[cfg(feature = "_otlp")]
            is_sampled: span.span.context.is_sampled(),
            #[cfg(feature = "_otlp")]
            is_leaf: span.is_leaf,
            scope: self.scopes.index(span.scope),
        }
    }

    /// The scope of a span; `None` when there were too many others.
    pub(crate) fn scope(&self, part: &Part) -> Option<&InstrumentationScope> {
        self.scopes.get(part.scope)
    }

    /// The memory that is in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let fixed = BUCKETS * size_of::<AtomicU32>() + ENDED * size_of::<AtomicU64>();
        self.bytes.load(Relaxed) + fixed
    }

    fn count(&self, id: TraceId) -> &AtomicU32 {
        &self.counts[low(id) as usize % BUCKETS]
    }

    /// Whether a root of the trace has ended lately. Another request of the trace may be running.
    #[cfg(feature = "page")]
    pub(crate) fn has_ended(&self, id: TraceId) -> bool {
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

    /// Takes out what waits for the end of this span.
    pub(crate) fn take_out(&self, id: TraceId, root: SpanId) -> Trace {
        self.note_end(id);
        // A span that has ended before its root, on whatever thread, is known here.
        if self.count(id).load(Relaxed) == 0 {
            return Trace::reused();
        }
        let mut shard = self.shard(id);
        let Some(mut waiting) = shard.waiting.remove(&id) else {
            drop(shard);
            return Trace::reused();
        };
        let before = waiting.trace.memory();
        let Some(others) = waiting.trace.split_off(root) else {
            self.gone(id, before);
            return waiting.trace;
        };
        let own = std::mem::replace(&mut waiting.trace, others);
        self.resized(before, &waiting.trace);
        shard.waiting.insert(id, waiting);
        own
    }

    /// Lets what `add` adds to a trace wait. What is late gives way first, and then what has waited longest, to
    /// `give_up`, which is told whether it was late.
    ///
    /// Both are called while a part of the memory is locked: they must not come back here.
    pub(crate) fn add(
        &self,
        id: TraceId,
        is_late: bool,
        add: impl FnOnce(&mut Trace),
        give_up: impl FnMut(Trace, bool),
    ) {
        let mut shard = self.shard(id);
        let Shard { waiting, begun, .. } = &mut *shard;
        match waiting.entry(id) {
            Entry::Occupied(mut place) => {
                let waiting = place.get_mut();
                waiting.is_late &= is_late;
                let trace = &mut waiting.trace;
                let before = trace.memory();
                add(trace);
                if trace.memory() == before {
                    return;
                }
                self.resized(before, trace);
            }
            Entry::Vacant(place) => {
                let mut trace = Trace::reused();
                add(&mut trace);
                self.came(id, &trace);
                *begun += 1;
                place.insert(Waiting {
                    trace,
                    is_late,
                    begun: *begun,
                });
            }
        }
        self.make_room(&mut shard, give_up);
    }

    fn came(&self, id: TraceId, trace: &Trace) {
        self.count(id).fetch_add(1, Relaxed);
        self.bytes.fetch_add(trace.memory() + OVERHEAD, Relaxed);
    }

    /// Counts what has become of a trace that still waits.
    fn resized(&self, before: usize, trace: &Trace) {
        let after = trace.memory();
        match after.checked_sub(before) {
            Some(more) => self.bytes.fetch_add(more, Relaxed),
            None => self.bytes.fetch_sub(before - after, Relaxed),
        };
    }

    fn gone(&self, id: TraceId, memory: usize) {
        self.count(id).fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(memory + OVERHEAD, Relaxed);
    }

    /// Gives up what has waited longest.
    fn make_room(&self, shard: &mut Shard, mut give_up: impl FnMut(Trace, bool)) {
        while self.bytes() > self.max_bytes {
            let oldest = shard.waiting.iter();
            let oldest = oldest.min_by_key(|(_, waiting)| (!waiting.is_late, waiting.begun));
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            if let Some(waiting) = shard.waiting.remove(&id) {
                self.gone(id, waiting.trace.memory());
                give_up(waiting.trace, waiting.is_late);
            }
        }
    }
}

/// What only those who decide about traces ask for.
#[cfg(feature = "_otlp")]
impl WaitingTraces {
    /// Hands out the waiting spans of a trace about which `decide` says something, as [`Trace::settle`] does.
    ///
    /// Both closures are called while a part of the memory is locked: they must not come back here.
    pub(crate) fn settle<D: Copy>(
        &self,
        id: TraceId,
        decide: impl FnMut(&Part) -> Option<D>,
        take: impl FnMut(&Part, &[u8], D),
    ) {
        if self.count(id).load(Relaxed) == 0 {
            return;
        }
        let mut shard = self.shard(id);
        let Entry::Occupied(mut place) = shard.waiting.entry(id) else {
            return;
        };
        let trace = &mut place.get_mut().trace;
        let before = trace.memory();
        trace.settle(decide, take);
        match trace.is_empty() {
            true => {
                place.remove();
                self.gone(id, before);
            }
            false => self.resized(before, trace),
        }
    }

    /// Gives up everything.
    pub(crate) fn clear(&self, mut give_up: impl FnMut(Trace, bool)) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, waiting) in shard.waiting.drain() {
                self.gone(id, waiting.trace.memory());
                give_up(waiting.trace, waiting.is_late);
            }
        }
    }
}

impl fmt::Debug for WaitingTraces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingTraces")
            .field("bytes", &self.bytes())
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Whether two scopes are equal. Those of one library mostly hold the very same texts.
fn is_same(one: &InstrumentationScope, other: &InstrumentationScope) -> bool {
    let is_text = |one: Option<&str>, other: Option<&str>| match (one, other) {
        (Some(one), Some(other)) => std::ptr::eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    let has_attributes = |scope: &InstrumentationScope| scope.attributes().next().is_some();
    std::ptr::eq(one.name(), other.name())
        && is_text(one.version(), other.version())
        && is_text(one.schema_url(), other.schema_url())
        && !has_attributes(one)
        && !has_attributes(other)
        || one == other
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
        let place = places.position(|place| is_same(place.get_or_init(|| scope.clone()), scope));
        place.unwrap_or(SCOPES) as u8
    }

    fn get(&self, index: u8) -> Option<&InstrumentationScope> {
        self.0.get(usize::from(index))?.get()
    }
}
