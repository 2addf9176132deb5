//! Samples of traces by route, outcome and latency band, in bounded memory.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::trace::{SpanId, TraceId};

use super::{
    latency::{MOST_BANDS, band},
    routes::{Route, Routes, slot},
};
use crate::telemetry::{Ended, Outcome, Taker, Trace};

/// The samples of a slot: the latest ones.
const SAMPLES: usize = 16;
/// A slot that has enough takes one sample in this time. A flood pays for no more.
const PAUSE: Duration = Duration::from_millis(10);
/// What a sample takes beside its spans, about.
const OVERHEAD: usize = size_of::<Sample>() + 160;

/// The buckets of the filter in front of the samples.
const FILTER: usize = 1 << 14;

fn bucket(held: &[AtomicU16], id: TraceId) -> &AtomicU16 {
    &held[u128::from_be_bytes(id.to_bytes()) as usize % FILTER]
}

/// The traces that the page shows.
#[derive(Debug)]
pub(crate) struct Store {
    started: Instant,
    pub(super) routes: Routes,
    samples: Mutex<Samples>,
    /// How many samples are held, by bits of their trace ids: most late spans need no lock to find none.
    held: Box<[AtomicU16]>,
    /// Samples take so much memory at most.
    max_bytes: usize,
    /// Samples had to give way to others.
    is_tight: AtomicBool,
    version: AtomicU64,
}

/// A trace whose root has ended.
#[derive(Clone, Debug)]
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
    number: u64,
}

impl Sample {
    fn slot(&self) -> usize {
        slot(self.outcome, self.duration)
    }

    pub(super) fn band(&self) -> usize {
        band(self.duration)
    }

    fn memory(&self) -> usize {
        OVERHEAD + self.trace.memory()
    }
}

#[derive(Debug, Default)]
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
            is_tight: AtomicBool::new(false),
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

    fn make_room(&self, samples: &mut Samples) {
        let is_tight = samples.bytes > self.max_bytes;
        if is_tight {
            self.is_tight.store(true, Relaxed);
        }
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
        let enough = match self.is_tight.load(Relaxed) {
            true => 0,
            false => SAMPLES as u32,
        };
        route.wants(slot(root.outcome(), root.duration()), enough, PAUSE, now)
    }

    fn take(&self, root: &Ended<'_>, mut trace: Trace) {
        trace.shrink();
        if trace.memory() > self.max_bytes / 8 {
            return;
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
            trace,
            number: 0,
        };
        let mut samples = self.samples();
        if let Some(other) = samples.remove(root.trace_id(), &self.held) {
            // Another request of the same trace: the one that went worse, or took longer, stands for both.
            let weight = |sample: &Sample| (sample.outcome, sample.duration);
            sample = match weight(&other) > weight(&sample) {
                true => {
                    let mut other = Arc::unwrap_or_clone(other);
                    other.trace.extend(&sample.trace);
                    other
                }
                false => {
                    sample.trace.extend(&other.trace);
                    sample
                }
            };
        }
        samples.count += 1;
        sample.number = samples.count;
        samples.insert(sample, &self.held);
        self.make_room(&mut samples);
        self.version.fetch_add(1, Relaxed);
    }

    fn join(&self, trace_id: TraceId, later: &Trace) -> bool {
        if bucket(&self.held, trace_id).load(Relaxed) == 0 {
            return false;
        }
        let mut samples = self.samples();
        let Some(sample) = samples.by_id.get_mut(&trace_id) else {
            return false;
        };
        let before = sample.memory();
        if before + later.memory() < self.max_bytes / 8 {
            let sample = Arc::make_mut(sample);
            sample.trace.extend(later);
            let after = sample.memory();
            samples.bytes = samples.bytes + after - before;
            self.make_room(&mut samples);
            self.version.fetch_add(1, Relaxed);
        }
        true
    }
}
