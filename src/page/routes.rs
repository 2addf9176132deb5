//! What is counted of each route, whatever becomes of its samples.

use std::{
    cell::Cell,
    mem::size_of,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::latency::{Latencies, MOST_BANDS, band};
use crate::{
    instrument::beginning,
    intern::{Table, hash},
    telemetry::{Ended, Outcome, Trace, span_name},
};

/// Further routes are counted as [`OTHER`].
const MOST_ROUTES: usize = 200;
const OTHER: &str = "(other)";
/// Further stages of a route are not counted.
const MOST_STAGES: usize = 16;
/// The samples of a slot: the latest ones.
pub(super) const SAMPLES: usize = 16;
/// A slot that has had enough samples takes one in this time. A flood pays for no more.
const PAUSE: Duration = Duration::from_millis(10);
/// Longer names are cut.
const LONGEST_NAME: usize = 256;

/// What a route takes beside its name, its stages and its histograms, about.
const ROUTE_BYTES: usize = size_of::<Route>() + 64;

/// Threads count in parts of their own: what two of them change in turn goes back and forth between cores.
const PARTS: usize = 4;

/// One slot of a route for each outcome and latency band.
pub(super) const SLOTS: usize = 3 * MOST_BANDS;

/// The slot of a trace in its route.
pub(super) fn slot(outcome: Outcome, duration: Duration) -> usize {
    outcome_index(outcome) * MOST_BANDS + band(duration)
}

/// The order of the contract with the browser: ok, failed, cancelled.
pub(super) const fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Failed => 1,
        Outcome::Cancelled => 2,
    }
}

#[derive(Debug)]
pub(super) struct Routes {
    by_name: Box<Table<Known, PLACES>>,
    number: AtomicUsize,
    /// Those that have no place.
    other: Arc<Route>,
    max_bytes: usize,
    /// The memory that may still be taken, in bytes.
    left: AtomicUsize,
}

/// Several for each route, so that few names meet.
const PLACES: usize = 512;

/// `None`: a place that no route can have any more.
#[derive(Debug)]
struct Known(Option<Arc<Route>>);

/// What is known of the traces whose root has this name.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Box<str>,
    parts: [Part; PARTS],
    slots: [Slot; SLOTS],
}

/// What some threads have counted, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(Mutex<Counts>);

impl Part {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static PART: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The part that this thread counts in.
fn part() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    PART.get().unwrap_or_else(|| {
        let part = THREADS.fetch_add(1, Relaxed) % PARTS;
        PART.set(Some(part));
        part
    })
}

#[derive(Debug, Default)]
struct Slot {
    held: AtomicU32,
    /// How many samples were wanted at once.
    taken: AtomicU32,
    /// When the last sample was wanted after those, in milliseconds since the start.
    wanted: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) count: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    /// By latency band, of those that have not failed.
    pub(super) bands: [u64; MOST_BANDS],
    pub(super) latencies: Option<Box<Latencies>>,
    pub(super) stages: Vec<StageCounts>,
}

impl Counts {
    fn add(&mut self, other: &mut Self, now: Duration) {
        self.count += other.count;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        let bands = self.bands.iter_mut().zip(other.bands);
        bands.for_each(|(sum, count)| *sum += count);
        add_latencies(&mut self.latencies, &mut other.latencies, now);
        for stage in &mut other.stages {
            let found = self.stages.iter().position(|sum| sum.name == stage.name);
            let index = found.unwrap_or_else(|| {
                self.stages.push(StageCounts::new(&stage.name));
                self.stages.len() - 1
            });
            let sum = &mut self.stages[index];
            sum.count += stage.count;
            sum.failed += stage.failed;
            add_latencies(&mut sum.latencies, &mut stage.latencies, now);
        }
    }
}

fn add_latencies(
    sum: &mut Option<Box<Latencies>>,
    other: &mut Option<Box<Latencies>>,
    now: Duration,
) {
    if let Some(other) = other {
        let sum = sum.get_or_insert_with(Latencies::new);
        sum.add_all(other, now);
    }
}

#[derive(Debug)]
pub(super) struct StageCounts {
    pub(super) name: Box<str>,
    pub(super) count: u64,
    pub(super) failed: u64,
    pub(super) latencies: Option<Box<Latencies>>,
}

impl Routes {
    /// `max_bytes`: all together takes so much memory at most.
    pub(super) fn new(max_bytes: usize) -> Self {
        let routes = Self {
            by_name: Box::default(),
            number: AtomicUsize::new(1),
            other: Arc::new(Route::new(OTHER)),
            max_bytes,
            left: AtomicUsize::new(max_bytes),
        };
        routes.claim(ROUTE_BYTES + PLACES * size_of::<OnceLock<Known>>());
        routes
    }

    /// Whether there is so much memory left, which is then taken.
    fn claim(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    /// The route of that name, made on first use.
    pub(super) fn get(&self, name: &str) -> &Arc<Route> {
        let name = beginning(name, LONGEST_NAME);
        let is_it = |known: &Known| known.0.as_ref().is_some_and(|route| *route.name == *name);
        let make = || {
            let has_place =
                self.number.load(Relaxed) < MOST_ROUTES && self.claim(ROUTE_BYTES + 2 * name.len());
            Known(has_place.then(|| {
                self.number.fetch_add(1, Relaxed);
                Arc::new(Route::new(name))
            }))
        };
        let known = self.by_name.find(hash(name), is_it, make);
        known
            .and_then(|known| known.0.as_ref())
            .unwrap_or(&self.other)
    }

    /// All routes, by name.
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        let known = self.by_name.iter().filter_map(|known| known.0.as_ref());
        let other = Some(&self.other).filter(|other| other.is_counted());
        let mut all: Vec<_> = known.chain(other).cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The memory that is in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.max_bytes - self.left.load(Relaxed)
    }

    /// Counts a trace, `now` after the start.
    pub(super) fn count(&self, route: &Route, root: &Ended<'_>, trace: &Trace, now: Duration) {
        let mut counts = route.parts[part()].counts();
        counts.count += 1;
        counts.failed += u64::from(root.outcome() == Outcome::Failed);
        counts.cancelled += u64::from(root.outcome() == Outcome::Cancelled);
        if root.outcome() != Outcome::Failed {
            counts.bands[band(root.duration())] += 1;
        }
        self.add(&mut counts.latencies, root.duration(), now);
        for (part, entry) in trace.spans() {
            let name = span_name(entry);
            let found = counts.stages.iter().position(|stage| *stage.name == *name);
            let stage = match found {
                Some(index) => &mut counts.stages[index],
                None => match self.stage(name, counts.stages.len()) {
                    Some(stage) => {
                        counts.stages.push(stage);
                        let last = counts.stages.len() - 1;
                        &mut counts.stages[last]
                    }
                    None => continue,
                },
            };
            stage.count += 1;
            stage.failed += u64::from(part.outcome == Outcome::Failed);
            self.add(&mut stage.latencies, part.duration, now);
        }
    }

    /// The counts of a further stage of a route that has so many.
    fn stage(&self, name: &str, stages: usize) -> Option<StageCounts> {
        let name = beginning(name, LONGEST_NAME);
        let bytes = 2 * size_of::<StageCounts>() + name.len();
        let has_place = stages < MOST_STAGES && self.claim(bytes);
        has_place.then(|| StageCounts::new(name))
    }

    fn add(&self, latencies: &mut Option<Box<Latencies>>, latency: Duration, now: Duration) {
        if latencies.is_none() && self.claim(size_of::<Latencies>()) {
            *latencies = Some(Latencies::new());
        }
        if let Some(latencies) = latencies {
            latencies.add(latency, now);
        }
    }
}

impl StageCounts {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            count: 0,
            failed: 0,
            latencies: None,
        }
    }
}

impl Route {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            parts: std::array::from_fn(|_| Part::default()),
            slots: std::array::from_fn(|_| Slot::default()),
        }
    }

    fn is_counted(&self) -> bool {
        self.parts.iter().any(|part| part.counts().count > 0)
    }

    /// What all threads have counted, `now` after the start.
    pub(super) fn counts(&self, now: Duration) -> Counts {
        let mut all = Counts::default();
        for part in &self.parts {
            all.add(&mut part.counts(), now);
        }
        all
    }

    /// Whether the slot wants a sample now: its first ones at once, and then one in each [`PAUSE`], however
    /// few of them it still holds.
    pub(super) fn wants(&self, slot: usize, now: Duration) -> bool {
        let slot = &self.slots[slot];
        if slot.taken.load(Relaxed) < SAMPLES as u32 {
            slot.taken.fetch_add(1, Relaxed);
            return true;
        }
        let now = now.as_millis() as u64;
        let last = slot.wanted.load(Relaxed);
        // Of several threads one is first.
        now.saturating_sub(last) >= PAUSE.as_millis() as u64
            && slot
                .wanted
                .compare_exchange(last, now, Relaxed, Relaxed)
                .is_ok()
    }

    pub(super) fn set_held(&self, slot: usize, held: usize) {
        self.slots[slot].held.store(held as u32, Relaxed);
    }

    /// How many samples are held, by outcome and latency band.
    pub(super) fn held(&self) -> Vec<Vec<u32>> {
        let held: Vec<_> = self
            .slots
            .iter()
            .map(|slot| slot.held.load(Relaxed))
            .collect();
        held.chunks(MOST_BANDS).map(<[u32]>::to_vec).collect()
    }
}
