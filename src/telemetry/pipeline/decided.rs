//! What was decided about traces, by the ids of their spans.

use std::sync::{
    Mutex, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use opentelemetry::trace::SpanId;

/// What becomes of a span whose trace was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Decision {
    Dropped = 1,
    /// The caller has sampled it.
    Parent,
    Forced,
    /// The dice have sampled it.
    Ratio,
    /// As every trace like it that the sampler records.
    Recorded,
    /// As every trace like it.
    All,
    /// It has started, is not sampled, and may be kept.
    Open,
}

impl Decision {
    /// The decision itself, unless there is none yet.
    pub(super) fn made(self) -> Option<Self> {
        (self != Self::Open).then_some(self)
    }
}

/// The low bits of an entry hold the decision. The place of an entry says what they are in the id.
const DECISION: u64 = 7;

/// In the order of their numbers.
const ALL: [Decision; 7] = [
    Decision::Dropped,
    Decision::Parent,
    Decision::Forced,
    Decision::Ratio,
    Decision::Recorded,
    Decision::All,
    Decision::Open,
];

/// So many ids share a place: last those to keep, and before them the others, which are more; of each the
/// latest to start first. No id is in both for longer than it takes to move it.
const WAYS: usize = 4;
const OTHER_WAYS: usize = 2;
const LOCKS: usize = 64;

/// The latest decisions. Later ones take the place of the oldest one beside them.
///
/// Most spans are dropped, so the decisions to keep, which are few, have places of their own and are remembered
/// much longer.
#[derive(Debug)]
pub(super) struct Decided {
    places: Box<[[AtomicU64; WAYS]]>,
    /// For those who change a place, each for many places.
    locks: [Mutex<()>; LOCKS],
}

impl Decided {
    /// Takes so many bytes at most, and at least 256.
    pub(super) fn new(max_bytes: usize) -> Self {
        let places = (max_bytes / size_of::<[AtomicU64; WAYS]>()).max(8);
        // The greatest power of two that is not greater.
        let places = 1_usize << places.ilog2();
        let place = |_| std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            places: (0..places).map(place).collect(),
            locks: [const { Mutex::new(()) }; LOCKS],
        }
    }

    fn place(&self, id: u64) -> usize {
        id as usize % self.places.len()
    }

    pub(super) fn set(&self, id: SpanId, decision: Decision) {
        let id = number(id);
        let place = self.place(id);
        // A panic elsewhere must not become one here.
        let lock = self.locks[place % LOCKS].lock();
        let _changing = lock.unwrap_or_else(PoisonError::into_inner);
        let (others, kept) = self.places[place].split_at(OTHER_WAYS);
        let entry = id & !DECISION | decision as u64;
        match decision {
            // What is kept stays so.
            Decision::Dropped | Decision::Open if kept.iter().any(|way| is_of(way, id)) => {}
            Decision::Dropped | Decision::Open => put(others, entry),
            _ => {
                put(kept, entry);
                // Not before: what starts below it in between must find it.
                let open = others.iter().filter(|way| is_of(way, id));
                open.for_each(|way| way.store(0, Release));
            }
        }
    }

    /// The decision, if there is one already.
    pub(super) fn get(&self, id: SpanId) -> Option<Decision> {
        self.known(id).and_then(Decision::made)
    }

    /// What is known of a span, decided or not.
    pub(super) fn known(&self, id: SpanId) -> Option<Decision> {
        let id = number(id);
        let ways = &self.places[self.place(id)];
        let mut entries = ways.iter().map(|way| way.load(Acquire));
        let entry = entries.find(|entry| entry & !DECISION == id & !DECISION)?;
        // Their numbers begin with 1.
        let place = (entry & DECISION).checked_sub(1)?;
        ALL.get(place as usize).copied()
    }
}

/// Puts an entry in place of the one of its id, or else before the others, of which the oldest goes. All others
/// can be found at every moment.
fn put(ways: &[AtomicU64], entry: u64) {
    if let Some(way) = ways.iter().find(|way| is_of(way, entry)) {
        return way.store(entry, Release);
    }
    for pair in ways.windows(2).rev() {
        pair[1].store(pair[0].load(Relaxed), Release);
    }
    ways[0].store(entry, Release);
}

/// Whether an entry of this id is there, whatever the decision.
fn is_of(way: &AtomicU64, id: u64) -> bool {
    way.load(Relaxed) & !DECISION == id & !DECISION
}

fn number(id: SpanId) -> u64 {
    u64::from_be_bytes(id.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_found_by_its_id_alone_until_later_ones_take_its_place() {
        let decided = Decided::new(1000);
        assert_eq!(decided.places.len(), 16);
        let id = |number: u64| SpanId::from(0x1234_5678_9abc_de00 + number);
        for (number, decision) in (1_u64..).zip(ALL) {
            decided.set(id(number), decision);
        }
        for (number, decision) in (1_u64..).zip(ALL) {
            assert_eq!(decided.known(id(number)), Some(decision));
            assert_eq!(decided.get(id(number + (1 << 16))), None);
        }
        assert_eq!(decided.get(id(7)), None, "it has only started");
        assert_eq!(decided.get(SpanId::INVALID), None);
        // All of these share a place.
        let later = |number: u64| id(2 + (number << 32));
        decided.set(later(1), Decision::Ratio);
        decided.set(later(1), Decision::Forced);
        assert_eq!(decided.get(id(2)), Some(Decision::Parent));
        for number in 2..1000 {
            decided.set(later(number), Decision::Open);
            decided.set(later(number), Decision::Dropped);
        }
        assert_eq!(decided.get(id(2)), Some(Decision::Parent));
        assert_eq!(decided.get(later(998)), Some(Decision::Dropped));
        assert_eq!(decided.get(later(997)), None);
        decided.set(later(1000), Decision::Ratio);
        assert_eq!(decided.get(id(2)), None);
    }

    /// A span below it may start in between, and would not be recorded.
    #[test]
    fn what_has_started_is_known_while_it_is_decided() {
        const IDS: u64 = if cfg!(miri) { 50 } else { 200_000 };
        let decided = Decided::new(1000);
        let latest = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=IDS {
                    let id = SpanId::from(number << 8);
                    decided.set(id, Decision::Open);
                    latest.store(number << 8, Release);
                    decided.set(id, Decision::Recorded);
                }
                latest.store(u64::MAX, Release);
            });
            loop {
                let before = latest.load(Acquire);
                let is_known = decided.known(SpanId::from(before)).is_some();
                let after = latest.load(Acquire);
                if after == u64::MAX {
                    break;
                }
                // Later ones may have taken its place meanwhile.
                assert!(is_known || before != after || before == 0, "{before}");
            }
        });
    }

    #[test]
    fn what_two_threads_decide_in_one_place_at_once_is_known() {
        const ROUNDS: u64 = if cfg!(miri) { 50 } else { 50_000 };
        let decided = Decided::new(256);
        let at_once = std::sync::Barrier::new(2);
        let lost = AtomicU64::new(0);
        let decide = |of: u64| {
            for round in 1..=ROUNDS {
                let id = |of: u64| SpanId::from(round << 16 | of << 8);
                at_once.wait();
                decided.set(id(of), Decision::Recorded);
                at_once.wait();
                let is_lost = decided.known(id(of)).is_none();
                lost.fetch_add(is_lost.into(), Relaxed);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| decide(0));
            decide(1);
        });
        assert_eq!(lost.into_inner(), 0);
    }

    #[test]
    fn what_is_kept_counts_whatever_else_is_known() {
        let decided = Decided::new(1000);
        let id = SpanId::from(0x1234_5678_9abc_de00_u64);
        decided.set(id, Decision::Open);
        decided.set(id, Decision::Recorded);
        decided.set(id, Decision::Dropped);
        assert_eq!(decided.get(id), Some(Decision::Recorded));
    }
}
