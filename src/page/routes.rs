//! What is counted of each route, whatever becomes of its samples.

use std::{
    collections::HashMap,
    mem::size_of,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::latency::{Latencies, MOST_BANDS, band};
use crate::{
    instrument::beginning,
    telemetry::{Ended, Outcome, Trace, span_name},
};

/// Further routes are counted as [`OTHER`].
const MOST_ROUTES: usize = 200;
const OTHER: &str = "(other)";
/// Further stages of a route are not counted.
const MOST_STAGES: usize = 16;
/// Longer names are cut.
const LONGEST_NAME: usize = 256;

/// What a route takes beside its name, its stages and its histograms, about.
const ROUTE_BYTES: usize = size_of::<Route>() + 128;

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
    by_name: RwLock<HashMap<Box<str>, Arc<Route>>>,
    max_bytes: usize,
    /// The memory that may still be taken, in bytes.
    left: AtomicUsize,
}

/// What is known of the traces whose root has this name.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Box<str>,
    counts: Mutex<Counts>,
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    held: AtomicU32,
    /// When the last sample was wanted, in milliseconds since the start and one more.
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
            by_name: RwLock::default(),
            max_bytes,
            left: AtomicUsize::new(max_bytes),
        };
        // There is always a place for what has none of its own.
        routes.claim(ROUTE_BYTES);
        routes
    }

    /// Whether there is so much memory left, which is then taken.
    fn claim(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    /// The route of that name, made on first use.
    pub(super) fn get(&self, name: &str) -> Arc<Route> {
        let name = beginning(name, LONGEST_NAME);
        let routes = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(name) {
            return Arc::clone(route);
        }
        drop(routes);
        let mut routes = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = routes.contains_key(name);
        let has_place =
            is_known || routes.len() < MOST_ROUTES - 1 && self.claim(ROUTE_BYTES + 2 * name.len());
        let name = if has_place { name } else { OTHER };
        let route = routes.entry(name.into());
        Arc::clone(route.or_insert_with(|| Arc::new(Route::new(name))))
    }

    /// All routes, by name.
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        let routes = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = routes.values().cloned().collect();
        drop(routes);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The memory that is in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.max_bytes - self.left.load(Relaxed)
    }

    /// Counts a trace, `now` after the start.
    pub(super) fn count(&self, route: &Route, root: &Ended<'_>, trace: &Trace, now: Duration) {
        let mut counts = route.counts();
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
        has_place.then(|| StageCounts {
            name: name.into(),
            count: 0,
            failed: 0,
            latencies: None,
        })
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

impl Route {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            counts: Mutex::default(),
            slots: std::array::from_fn(|_| Slot::default()),
        }
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the slot wants a sample now: at most one every `pause` once it has `enough`.
    pub(super) fn wants(&self, slot: usize, enough: u32, pause: Duration, now: Duration) -> bool {
        let slot = &self.slots[slot];
        let now = now.as_millis() as u64 + 1;
        let last = slot.wanted.load(Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= pause.as_millis() as u64;
        if slot.held.load(Relaxed) >= enough && !is_due {
            return false;
        }
        // Of several threads one is first.
        let first = slot
            .wanted
            .compare_exchange(last, now, Relaxed, Relaxed)
            .is_ok();
        first || slot.held.load(Relaxed) < enough
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
