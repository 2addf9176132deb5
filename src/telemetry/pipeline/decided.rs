//! What was decided about traces, by the ids of their spans.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// The low bits of an entry hold the decision. The place of an entry says what they are in the id.
const DECISION: u64 = 7;

const ALL: [Decision; 7] = [
    Decision::Dropped,
    Decision::Parent,
    Decision::Forced,
    Decision::Ratio,
    Decision::Recorded,
    Decision::All,
    Decision::Open,
];

/// So many ids share a place, the latest first.
const WAYS: usize = 4;

/// The latest decisions. Later ones take the place of the oldest one beside them.
#[derive(Debug)]
pub(super) struct Decided(Box<[[AtomicU64; WAYS]]>);

impl Decided {
    /// Takes so many bytes at most, and at least 256.
    pub(super) fn new(max_bytes: usize) -> Self {
        let places = (max_bytes / size_of::<[AtomicU64; WAYS]>()).max(8);
        // The greatest power of two that is not greater.
        let places = 1_usize << places.ilog2();
        let place = |_| std::array::from_fn(|_| AtomicU64::new(0));
        Self((0..places).map(place).collect())
    }

    fn place(&self, id: u64) -> &[AtomicU64; WAYS] {
        &self.0[id as usize % self.0.len()]
    }

    pub(super) fn set(&self, id: SpanId, decision: Decision) {
        let id = number(id);
        let mut entry = id & !DECISION | decision as u64;
        // Two threads that do this at once in one place may lose an entry.
        for way in self.place(id) {
            let before = way.load(Relaxed);
            way.store(entry, Relaxed);
            if before & !DECISION == id & !DECISION {
                return;
            }
            entry = before;
        }
    }

    /// The decision, if there is one already.
    pub(super) fn get(&self, id: SpanId) -> Option<Decision> {
        self.known(id).filter(|known| *known != Decision::Open)
    }

    /// What is known of a span, decided or not.
    pub(super) fn known(&self, id: SpanId) -> Option<Decision> {
        let id = number(id);
        let mut entries = self.place(id).iter().map(|way| way.load(Relaxed));
        let entry = entries.find(|entry| entry & !DECISION == id & !DECISION)?;
        let mut decisions = ALL.into_iter();
        decisions.find(|decision| *decision as u64 == entry & DECISION)
    }
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
        assert_eq!(decided.0.len(), 16);
        let id = |number: u64| SpanId::from(number);
        for (number, decision) in (1_u64..).zip(ALL) {
            decided.set(id(0x1234_5678_9abc_de00 + number), decision);
        }
        for (number, decision) in (1_u64..).zip(ALL) {
            let known = decided.known(id(0x1234_5678_9abc_de00 + number));
            assert_eq!(known, Some(decision));
            assert_eq!(decided.get(id(0x1234_5678_9abd_de00 + number)), None);
        }
        assert_eq!(decided.get(SpanId::INVALID), None);
        let first = id(0x1234_5678_9abc_de01);
        for later in 1..WAYS as u64 {
            decided.set(id(0x1234_5678_9abc_de01 + (later << 32)), Decision::Ratio);
            decided.set(id(0x1234_5678_9abc_de01 + (later << 32)), Decision::Parent);
        }
        assert_eq!(decided.get(first), Some(Decision::Dropped));
        decided.set(first, Decision::Forced);
        assert_eq!(decided.get(first), Some(Decision::Forced));
        for later in 4..4 + WAYS as u64 {
            decided.set(id(0x1234_5678_9abc_de01 + (later << 32)), Decision::Ratio);
        }
        assert_eq!(decided.get(first), None);
    }
}
