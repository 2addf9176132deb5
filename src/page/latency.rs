//! Latencies of the last minute, in a bounded histogram.

use std::time::Duration;

/// The latency bands of zPages, by their lower bounds.
const BANDS: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_micros(10),
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(100),
];

pub(super) const MOST_BANDS: usize = BANDS.len();

/// The band in which a latency lies.
pub(super) fn band(latency: Duration) -> usize {
    let above = BANDS.iter().rposition(|bound| latency > *bound);
    above.unwrap_or_default()
}

/// Buckets for each power of two of microseconds: a quantile is off by 10 % at most.
const STEPS: usize = 4;
/// Up to 2²⁸ µs, about 4½ minutes; the last bucket takes what is longer.
const POWERS: usize = 28;
const BUCKETS: usize = STEPS * POWERS;

/// The latest windows are looked at: the one that goes on, and those of the minute before.
const WINDOWS: usize = 4;
const WINDOW: Duration = Duration::from_secs(20);

type Counts = [u32; BUCKETS];

/// How often each latency came, in the last minute and since the start.
#[derive(Debug)]
pub(super) struct Latencies {
    windows: [Counts; WINDOWS],
    all: Counts,
    /// The number of the window that goes on, since the start.
    now: u64,
}

/// What a reader sees of [`Latencies`].
#[derive(Debug)]
pub(super) struct Recent {
    counts: Counts,
    /// In the last minute.
    pub(super) per_second: f64,
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let power = micros.max(1).ilog2() as usize;
    // The two bits below the highest one.
    let step = match power {
        0 | 1 => (micros << (2 - power)) as usize,
        _ => (micros >> (power - 2)) as usize,
    } % STEPS;
    (power * STEPS + step).min(BUCKETS - 1)
}

/// The lower bound of a bucket, in microseconds.
fn bound(bucket: usize) -> f64 {
    let (power, step) = (bucket / STEPS, bucket % STEPS);
    2_f64.powi(power as i32) * (1.0 + step as f64 / STEPS as f64)
}

impl Latencies {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            windows: [[0; BUCKETS]; WINDOWS],
            all: [0; BUCKETS],
            now: 0,
        })
    }

    /// Forgets the windows that are over, `now` after the start.
    fn turn(&mut self, now: Duration) {
        let now = now.as_secs() / WINDOW.as_secs();
        let over = now.saturating_sub(self.now).min(WINDOWS as u64);
        for window in 0..over {
            self.windows[(now - window) as usize % WINDOWS] = [0; BUCKETS];
        }
        self.now = self.now.max(now);
    }

    pub(super) fn add(&mut self, latency: Duration, now: Duration) {
        self.turn(now);
        let bucket = bucket(latency);
        let window = &mut self.windows[self.now as usize % WINDOWS];
        for counts in [window, &mut self.all] {
            counts[bucket] = counts[bucket].saturating_add(1);
        }
    }

    /// Adds all that others have counted, `now` after the start.
    pub(super) fn add_all(&mut self, others: &mut Self, now: Duration) {
        self.turn(now);
        others.turn(now);
        let sums = self.windows.iter_mut().chain([&mut self.all]);
        for (sums, others) in sums.zip(others.windows.iter().chain([&others.all])) {
            let sums = sums.iter_mut().zip(others);
            sums.for_each(|(sum, count)| *sum = sum.saturating_add(*count));
        }
    }

    /// The last minute, or all since the start when nothing came in it.
    pub(super) fn recent(&mut self, now: Duration) -> Recent {
        self.turn(now);
        let mut counts = [0; BUCKETS];
        for window in &self.windows {
            let sums = counts.iter_mut().zip(window);
            sums.for_each(|(sum, count): (&mut u32, _)| *sum = sum.saturating_add(*count));
        }
        let count = sum(&counts);
        let complete = WINDOW * (WINDOWS as u32 - 1);
        let current = now.saturating_sub(WINDOW * self.now as u32);
        let seconds = (complete + current).min(now).as_secs_f64();
        Recent {
            counts: if count > 0 { counts } else { self.all },
            per_second: count as f64 / seconds.max(1.0),
        }
    }
}

fn sum(counts: &Counts) -> u64 {
    counts.iter().map(|count| u64::from(*count)).sum()
}

impl Recent {
    /// A quantile in milliseconds; `None` when nothing came at all.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = sum(&self.counts);
        if count == 0 {
            return None;
        }
        let rank = (quantile * count as f64).max(1.0);
        let mut below = 0.0;
        for (bucket, here) in self.counts.iter().enumerate() {
            let here = f64::from(*here);
            if below + here >= rank {
                let (low, high) = (bound(bucket), bound(bucket + 1));
                let within = (rank - below) / here;
                return Some((low + (high - low) * within) / 1e3);
            }
            below += here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_those_of_zpages() {
        for (nanos, expected) in [
            (0, 0),
            (1, 0),
            (10_000, 0),
            (10_001, 1),
            (999_999, 2),
            (1_000_001, 3),
            (150_000_000, 5),
            (3_000_000_000, 6),
            (100_000_000_001, 8),
        ] {
            assert_eq!(band(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
    }

    #[test]
    fn buckets_hold_what_lies_between_their_bounds() {
        for micros in (1..5_000).chain([1_000_000, 200_000_000]) {
            let bucket = bucket(Duration::from_micros(micros));
            let micros = micros as f64;
            assert!(
                bound(bucket) <= micros && micros < bound(bucket + 1),
                "{micros}"
            );
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_last_minute() {
        let mut latencies = Latencies::new();
        let near = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            assert!(
                (found / expected - 1.0).abs() < 0.13,
                "{found} is not {expected}"
            );
        };
        let at = Duration::from_secs;
        assert_eq!(latencies.recent(at(5)).quantile(0.5), None);
        for millis in 1..=1000 {
            latencies.add(Duration::from_millis(millis), at(10));
        }
        let recent = latencies.recent(at(10));
        near(recent.quantile(0.5), 500.0);
        near(recent.quantile(0.95), 950.0);
        near(recent.quantile(0.99), 990.0);
        near(Some(recent.per_second), 100.0);
        latencies.add(Duration::from_secs(5), at(75));
        near(latencies.recent(at(75)).quantile(0.5), 500.0);
        let later = latencies.recent(at(100));
        near(later.quantile(0.5), 5000.0);
        assert!(later.per_second < 0.02);
        // Nothing came in the last minute.
        let much_later = latencies.recent(at(1000));
        near(much_later.quantile(0.5), 500.0);
        assert_eq!(much_later.per_second, 0.0);
    }
}
