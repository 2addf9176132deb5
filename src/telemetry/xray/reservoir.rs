//! How many traces a second are sampled before the fixed rate decides.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A token bucket that holds the tokens of one second, full at the beginning.
#[derive(Debug, Default)]
pub(super) struct Reservoir {
    /// The moment, in nanoseconds of the clock, at which the bucket is full again.
    full_at: AtomicU64,
}

impl Reservoir {
    /// Takes one of the tokens, of which there are `a_second`; whether there was one. `now` is the time of a
    /// clock that never goes back.
    pub(super) fn take(&self, now: Duration, a_second: u64) -> bool {
        const SECOND: u64 = 1_000_000_000;
        let Some(refill) = SECOND.checked_div(a_second) else {
            return false;
        };
        // The clock began with the sampler: 64 bits last for 584 years.
        let now = now.as_nanos() as u64;
        let take = |full_at: u64| {
            let full_at = full_at.max(now) + refill;
            (full_at <= now + SECOND).then_some(full_at)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of the calls at these milliseconds gets, with so many tokens a second.
    fn taken(reservoir: &Reservoir, calls: &[(u64, u64, usize)]) -> Vec<usize> {
        let times = |&(millis, a_second, times): &(u64, u64, usize)| {
            let now = Duration::from_millis(millis);
            (0..times).filter(|_| reservoir.take(now, a_second)).count()
        };
        calls.iter().map(times).collect()
    }

    /// The cases of the SDK for Go and of the rate limiter of the one for Java.
    #[test]
    fn a_reservoir_has_the_tokens_of_a_second() {
        for (what, calls, expected) in [
            (
                "borrows one a second",
                vec![(0, 1, 2), (1000, 1, 2), (1999, 1, 1), (2000, 1, 1)],
                vec![1, 1, 0, 1],
            ),
            (
                "borrows no more after a pause",
                vec![(0, 1, 1), (5000, 1, 3)],
                vec![1, 1],
            ),
            (
                "has a quota after it has borrowed",
                vec![(0, 1, 2), (1000, 1, 1), (2000, 2, 3)],
                vec![1, 1, 2],
            ),
            (
                "saves nothing up",
                vec![(0, 2, 3), (1000, 2, 3), (5000, 2, 3)],
                vec![2, 2, 2],
            ),
            (
                "is empty without capacity",
                vec![(0, 0, 1), (5000, 0, 1)],
                vec![0, 0],
            ),
            (
                "has its whole quota at once",
                vec![(0, 5, 6), (1000, 5, 6)],
                vec![5, 5],
            ),
            (
                "is refilled little by little",
                vec![(0, 6, 9), (500, 6, 9), (600, 6, 1), (667, 6, 1)],
                vec![6, 3, 0, 1],
            ),
            (
                "has quotas that do not divide a second",
                vec![(0, 3, 9), (1000, 3, 9), (2000, 3, 9)],
                vec![3, 3, 3],
            ),
        ] {
            assert_eq!(taken(&Reservoir::default(), &calls), expected, "{what}");
        }
    }

    #[test]
    fn threads_share_a_reservoir() {
        let reservoir = Reservoir::default();
        let take = || {
            (0..200)
                .filter(|_| reservoir.take(Duration::ZERO, 100))
                .count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 100);
    }
}
