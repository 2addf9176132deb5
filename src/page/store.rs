//! Samples of traces by route, outcome and latency band, in bounded memory.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    fmt,
    mem::size_of,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::trace::{SpanId, TraceId};

use super::{
    latency::{MOST_BANDS, band},
    routes::{Route, Routes, SAMPLES, slot},
};
use crate::telemetry::{Ended, Outcome, Taker, Trace};

/// What a sample takes beside its spans, about.
const OVERHEAD: usize = size_of::<Sample>() + 160;

/// The buckets of the filter in front of the samples.
const FILTER: usize = 1 << 14;

fn bucket(held: &[AtomicU16], id: TraceId) -> &AtomicU16 {
    &held[u128::from_be_bytes(id.to_bytes()) as usize % FILTER]
}

/// The traces that the page shows.
pub(crate) struct Store {
    started: Instant,
    pub(super) routes: Routes,
    samples: Mutex<Samples>,
    /// How many samples are held, by bits of their trace ids: most late spans need no lock to find none.
    held: Box<[AtomicU16]>,
    /// Samples take so much memory at most.
    max_bytes: usize,
    version: AtomicU64,
}

/// Counts, not what is held.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (traces, bytes) = self.size();
        f.debug_struct("Store")
            .field("traces", &traces)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

/// A trace whose root has ended.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) trace_id: TraceId,
    pub(super) root: SpanId,
    pub(super) route: Arc<Route>,
    pub(super) outcome: Outcome,
    pub(super) started_at: SystemTime,
    pub(super) duration: Duration,
    pub(super) is_kept: bool,
    /// Why, where that is decided at the end.
    pub(super) reason: Option<&'static str>,
    pub(super) trace: Trace,
    /// The spans and log records that were too many.
    pub(super) left_out: usize,
    number: u64,
}

impl Sample {
    fn slot(&self) -> usize {
        slot(self.outcome, self.duration)
    }

    pub(super) fn band(&self) -> usize {
        band(self.duration)
    }

    /// Whether this span is among those that are held.
    fn has(&self, span_id: SpanId) -> bool {
        let mut parts = self.trace.parts().iter();
        parts.any(|part| part.span_id == span_id)
    }

    fn memory(&self) -> usize {
        OVERHEAD + self.trace.memory()
    }
}

#[derive(Default)]
struct Samples {
    by_id: HashMap<TraceId, Arc<Sample>>,
    slots: HashMap<(Box<str>, usize), VecDeque<TraceId>>,
    bytes: usize,
    /// How many samples there were.
    count: u64,
}

impl Samples {
    fn insert(&mut self, sample: Sample, held: &[AtomicU16]) {
        bucket(held, sample.trace_id).fetch_add(1, Relaxed);
        let place = (sample.route.name.clone(), sample.slot());
        let slot = self.slots.entry(place).or_default();
        slot.push_back(sample.trace_id);
        let oldest = (slot.len() > SAMPLES).then(|| slot[0]);
        sample.route.set_held(sample.slot(), slot.len());
        self.bytes += sample.memory();
        self.by_id.insert(sample.trace_id, Arc::new(sample));
        if let Some(oldest) = oldest {
            self.remove(oldest, held);
        }
    }

    fn remove(&mut self, id: TraceId, held: &[AtomicU16]) -> Option<Arc<Sample>> {
        let sample = self.by_id.remove(&id)?;
        bucket(held, id).fetch_sub(1, Relaxed);
        self.bytes -= sample.memory();
        let place = (sample.route.name.clone(), sample.slot());
        if let Some(slot) = self.slots.get_mut(&place) {
            slot.retain(|other| *other != id);
            sample.route.set_held(sample.slot(), slot.len());
            if slot.is_empty() {
                self.slots.remove(&place);
            }
        }
        Some(sample)
    }

    /// The sample that is missed least: the oldest of the fullest slot, of ordinary requests first. The
    /// last sample of a slot goes when all slots have one.
    fn least(&self) -> Option<TraceId> {
        let worth = |((_, slot), ids): &(&(Box<str>, usize), &VecDeque<TraceId>)| {
            let is_ordinary = *slot < MOST_BANDS;
            (ids.len() > 1, is_ordinary, ids.len(), Reverse(*slot))
        };
        let (_, ids) = self.slots.iter().max_by_key(worth)?;
        ids.front().copied()
    }
}

impl Store {
    /// `max_bytes`: all together takes so much memory at most.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            started: Instant::now(),
            routes: Routes::new(max_bytes / 4),
            samples: Mutex::default(),
            held: (0..FILTER).map(|_| AtomicU16::new(0)).collect(),
            max_bytes: max_bytes / 2 - FILTER * size_of::<AtomicU16>(),
            version: AtomicU64::new(0),
        }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        // A panic elsewhere must not become one here; the data is whole after every statement.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All samples, the newest first.
    pub(super) fn newest_first(&self) -> Vec<Arc<Sample>> {
        let mut all: Vec<_> = self.samples().by_id.values().cloned().collect();
        all.sort_by_key(|sample| Reverse(sample.number));
        all
    }

    pub(super) fn find(&self, id: TraceId) -> Option<Arc<Sample>> {
        self.samples().by_id.get(&id).cloned()
    }

    /// Changes with every change of the samples.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// How many samples there are, and the memory that is in use, in bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let samples = self.samples();
        let (count, bytes) = (samples.by_id.len(), samples.bytes);
        drop(samples);
        let filter = FILTER * size_of::<AtomicU16>();
        (count, bytes + filter + self.routes.bytes())
    }

    /// No trace displaces all others.
    fn most_of_a_trace(&self) -> usize {
        self.max_bytes / 8
    }

    /// Of two requests of one trace the one that went worse, or took longer, stands for both. It stays alone
    /// when the two are too large together.
    fn merged(&self, mut one: Sample, mut other: Sample) -> Sample {
        let weight = |sample: &Sample| (sample.outcome, sample.duration);
        let fit = one.memory() + other.memory() <= self.most_of_a_trace();
        let both = fit.then(|| {
            let mut both = std::mem::take(&mut other.trace);
            both.extend(&one.trace);
            both
        });
        if weight(&other) > weight(&one) {
            std::mem::swap(&mut one, &mut other);
        }
        one.left_out += other.left_out;
        match both {
            Some(both) => one.trace = both,
            None => one.left_out += other.trace.count(),
        }
        one
    }

    fn make_room(&self, samples: &mut Samples) {
        while samples.bytes > self.max_bytes {
            match samples.least() {
                Some(least) => samples.remove(least, &self.held),
                None => return,
            };
        }
    }
}

impl Taker for Store {
    fn wants(&self, root: &Ended<'_>, trace: &Trace) -> bool {
        let route = self.routes.get(root.span.name);
        let now = self.now();
        self.routes.count(route, root, trace, now);
        route.wants(slot(root.outcome(), root.duration()), now)
    }

    fn take(&self, root: &Ended<'_>, mut trace: Trace) {
        let came = trace.count();
        match trace.memory() > self.most_of_a_trace() {
            true => trace.cut(root.span_id(), self.most_of_a_trace()),
            false => trace.shrink(),
        }
        let mut sample = Sample {
            trace_id: root.trace_id(),
            root: root.span_id(),
            route: Arc::clone(self.routes.get(root.span.name)),
            outcome: root.outcome(),
            started_at: root.span.start,
            duration: root.duration(),
            is_kept: root.is_kept,
            reason: root.reason,
            left_out: came - trace.count(),
            trace,
            number: 0,
        };
        let mut samples = self.samples();
        if let Some(other) = samples.remove(root.trace_id(), &self.held) {
            sample = self.merged(sample, Arc::unwrap_or_clone(other));
        }
        samples.count += 1;
        sample.number = samples.count;
        samples.insert(sample, &self.held);
        self.make_room(&mut samples);
        self.version.fetch_add(1, Relaxed);
    }

    fn holds(&self, trace_id: TraceId, span_id: SpanId) -> bool {
        if bucket(&self.held, trace_id).load(Relaxed) == 0 {
            return false;
        }
        let is_it = |sample: &Arc<Sample>| sample.has(span_id);
        self.samples().by_id.get(&trace_id).is_some_and(is_it)
    }

    fn join(&self, trace_id: TraceId, later: &Trace) {
        let mut samples = self.samples();
        let Some(sample) = samples.by_id.get_mut(&trace_id) else {
            return;
        };
        let sample = Arc::make_mut(sample);
        let before = sample.memory();
        if before + later.memory() <= self.most_of_a_trace() {
            sample.trace.extend(later);
        } else {
            sample.left_out += later.count();
        }
        let after = sample.memory();
        samples.bytes = samples.bytes + after - before;
        self.make_room(&mut samples);
        self.version.fetch_add(1, Relaxed);
    }
}
