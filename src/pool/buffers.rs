use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry::{KeyValue, metrics::Histogram};

use crate::metrics::{Gauges, Metric, SIZE_BUCKETS};

/// Sizes are told apart by powers of two, from 64 bytes to 32 MiB.
const SMALLEST: usize = 64;
const CLASSES: usize = 20;
const LARGEST: usize = SMALLEST << (CLASSES - 1);

/// imgproxy's default for `IMGPROXY_BUFFER_POOL_CALIBRATION_THRESHOLD`.
const CALIBRATE_EVERY: u64 = 1_024;

/// Reusable buffers, calibrated to the sizes in use as imgproxy 3 does it. Clones share them.
///
/// After every 1,024 returned buffers the pool looks at how much was in them. The median becomes the
/// *default size*, with which a new buffer starts; the 95th percentile becomes the *maximum size*, and
/// larger buffers are freed instead of kept. So the memory that the pool keeps is bounded by its number
/// of buffers times the maximum size, which is never more than 32 MiB.
///
/// ```
/// use tower_image_trace::pool::BufferPool;
///
/// let pool = BufferPool::new("download", 8);
/// let mut buffer = pool.get(11);
/// buffer.extend_from_slice(b"some source");
/// assert_eq!(buffer.len(), 11);
/// let bytes = bytes::Bytes::from_owner(buffer); // goes back with the last clone of the bytes
/// # drop(bytes);
/// ```
#[derive(Clone, Debug)]
pub struct BufferPool {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    name: &'static str,
    most: usize,
    calibrate_every: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: Vec<Vec<u8>>,
    /// The returned buffers of each class since the last calibration.
    returned: [u64; CLASSES],
    default_size: usize,
    max_size: usize,
    sizes: Option<Histogram<u64>>,
}

/// A buffer of a [`BufferPool`], to which it returns when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl BufferPool {
    /// A pool that keeps at most `most` unused buffers. The name becomes the attribute `type` of its
    /// metrics.
    #[must_use]
    pub fn new(name: &'static str, most: usize) -> Self {
        Self::calibrated_every(name, most, CALIBRATE_EVERY)
    }

    /// A pool that is calibrated after every `returns` buffers.
    #[must_use]
    pub fn calibrated_every(name: &'static str, most: usize, returns: u64) -> Self {
        let state = State {
            free: Vec::new(),
            returned: [0; CLASSES],
            default_size: 0,
            max_size: LARGEST,
            sizes: None,
        };
        Self {
            pool: Arc::new(Pool {
                name,
                most,
                calibrate_every: returns,
                state: Mutex::new(state),
            }),
        }
    }

    /// An empty buffer with room for `size` bytes, or for the usual number when `size` is 0 (unknown).
    /// Limit a size that a client announces before passing it here.
    #[must_use]
    pub fn get(&self, size: usize) -> Buffer {
        let mut state = self.pool.state();
        let free = state.free.iter().enumerate();
        let best = if size == 0 {
            free.max_by_key(|(_, buffer)| buffer.capacity())
        } else {
            // The smallest that is large enough, or else the smallest, which makes room for a larger one.
            free.min_by_key(|(_, buffer)| (buffer.capacity() < size, buffer.capacity()))
        };
        let best = best.map(|(index, _)| index);
        let kept = best.map(|index| state.free.swap_remove(index));
        let (least, room) = match size {
            0 => (state.default_size, state.default_size),
            _ => (size, class_size(size).max(size).max(state.default_size)),
        };
        drop(state);
        let bytes = kept
            .filter(|bytes| bytes.capacity() >= least)
            .unwrap_or_else(|| Vec::with_capacity(room));
        Buffer {
            bytes,
            pool: Arc::clone(&self.pool),
        }
    }

    /// The least room of a new buffer, in bytes; 0 before the first calibration.
    #[must_use]
    pub fn default_size(&self) -> usize {
        self.pool.state().default_size
    }

    /// The largest buffer that is kept, in bytes.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.pool.state().max_size
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut bytes: Vec<u8>) {
        let (used, size) = (bytes.len(), bytes.capacity());
        bytes.clear();
        let mut state = self.state();
        if used > 0 {
            state.returned[class(used)] += 1;
            if state.returned.iter().sum::<u64>() >= self.calibrate_every {
                state.calibrate();
            }
        }
        let excess = if size > 0 && size <= state.max_size && state.free.len() < self.most {
            state.free.push(bytes);
            None
        } else {
            Some(bytes)
        };
        let sizes = state.sizes.clone().filter(|_| used > 0);
        drop(state);
        // Freed after the lock is released, so that no caller waits for it.
        drop(excess);
        if let Some(sizes) = sizes {
            sizes.record(size as u64, &[KeyValue::new("type", self.name)]);
        }
    }
}

impl State {
    fn calibrate(&mut self) {
        self.default_size = self.percentile(50);
        self.max_size = self.percentile(95);
        self.returned = [0; CLASSES];
        let max_size = self.max_size;
        self.free.retain(|buffer| buffer.capacity() <= max_size);
    }

    /// The smallest class size that was enough for `percent` of the buffers.
    fn percentile(&self, percent: u64) -> usize {
        let all: u64 = self.returned.iter().sum();
        let mut enough = 0;
        let class = self.returned.iter().position(|returned| {
            enough += returned;
            enough * 100 >= all * percent
        });
        class.map_or(LARGEST, |class| SMALLEST << class)
    }
}

fn class(size: usize) -> usize {
    let class = size.div_ceil(SMALLEST).next_power_of_two().ilog2() as usize;
    class.min(CLASSES - 1)
}

fn class_size(size: usize) -> usize {
    SMALLEST << class(size)
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}

impl Gauges {
    /// `buffer_size_bytes`, `buffer_default_size_bytes` and `buffer_max_size_bytes` of the pool.
    ///
    /// The sizes of buffers are recorded with the provider that the pool was last given to.
    pub fn buffers(&self, pool: &BufferPool) {
        let sizes = self
            .meter()
            .u64_histogram("buffer_size_bytes")
            .with_unit("By")
            .with_description("The sizes of buffers when they are returned.")
            .with_boundaries(SIZE_BUCKETS.to_vec())
            .build();
        pool.pool.state().sizes = Some(sizes);
        let attributes = vec![KeyValue::new("type", pool.pool.name)];
        let default_size = pool.clone();
        self.int_gauge(
            Metric {
                name: "buffer_default_size_bytes",
                unit: "By",
                description: "The calibrated default size of buffers.",
            },
            attributes.clone(),
            move || default_size.default_size().try_into().ok(),
        );
        let max_size = pool.clone();
        self.int_gauge(
            Metric {
                name: "buffer_max_size_bytes",
                unit: "By",
                description: "The calibrated maximum size of buffers.",
            },
            attributes,
            move || max_size.max_size().try_into().ok(),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn classes_are_powers_of_two() {
        let cases = [
            (0, 64),
            (1, 64),
            (64, 64),
            (65, 128),
            (128, 128),
            (129, 256),
            (LARGEST - 1, LARGEST),
            (LARGEST, LARGEST),
            (LARGEST + 1, LARGEST),
            (usize::MAX, LARGEST),
        ];
        for (size, expected) in cases {
            assert_eq!(class_size(size), expected, "{size}");
        }
    }

    #[test]
    fn calibrated_from_the_sizes_seen() {
        let pool = BufferPool::calibrated_every("test", 4, 100);
        assert_eq!((pool.default_size(), pool.max_size()), (0, LARGEST));
        for number in 0..100 {
            let size = match number {
                0..50 => 100,
                50..95 => 1_000,
                _ => 100_000,
            };
            pool.get(size).resize(size, 0);
        }
        assert_eq!((pool.default_size(), pool.max_size()), (128, 1_024));
        assert!(pool.get(0).capacity() >= 128);
        assert!(
            pool.pool
                .state()
                .free
                .iter()
                .all(|kept| kept.capacity() <= 1_024)
        );
    }

    #[test]
    fn the_median_and_the_95th_percentile_decide_to_the_buffer() {
        for (small, large, expected) in [
            (50, 5, (64, 512)),
            (49, 5, (512, 512)),
            (50, 6, (64, 4_096)),
        ] {
            let pool = BufferPool::calibrated_every("test", 0, 100);
            let sizes = [(60, small), (500, 100 - small - large), (4_000, large)];
            for size in sizes.map(|(size, count)| vec![size; count]).concat() {
                pool.get(size).resize(size, 0);
            }
            assert_eq!(
                (pool.default_size(), pool.max_size()),
                expected,
                "{small} {large}"
            );
        }
    }

    #[test]
    fn buffers_are_used_again() {
        let pool = BufferPool::new("test", 2);
        let mut first = pool.get(1_000);
        first.push(1);
        let memory = first.as_ptr();
        drop(first);
        let again = pool.get(500);
        assert_eq!((again.as_ptr(), again.len()), (memory, 0));
    }

    #[test]
    fn a_buffer_may_end_on_another_thread() {
        let pool = BufferPool::new("test", 2);
        let mut buffer = pool.get(10);
        buffer.push(1);
        std::thread::spawn(move || drop(buffer)).join().unwrap();
        assert_eq!(pool.pool.state().free.len(), 1);
    }

    proptest! {
        /// Any order of gets, sizes and returns.
        #[test]
        fn empty_large_enough_and_bounded(
            most in 0_usize..5,
            steps in vec((0_usize..200_000, 0_usize..200_000, any::<bool>()), 1..200),
        ) {
            let pool = BufferPool::calibrated_every("test", most, 16);
            let mut held = Vec::new();
            for (asked, used, keep) in steps {
                let mut buffer = pool.get(asked);
                prop_assert!(buffer.is_empty());
                prop_assert!(buffer.capacity() >= asked);
                buffer.resize(used, 0);
                if keep {
                    held.push(buffer);
                } else if used % 3 == 0 {
                    held.clear();
                }
                let state = pool.pool.state();
                prop_assert!(state.free.len() <= most);
                prop_assert!(state.default_size <= state.max_size);
                for kept in &state.free {
                    prop_assert!(kept.is_empty());
                    prop_assert!(kept.capacity() > 0 && kept.capacity() <= state.max_size);
                }
            }
        }
    }
}
