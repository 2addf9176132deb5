//! A buffer pool learns from the sizes that it sees, and says what it has learnt.

use tower_image_trace::{metrics::Gauges, pool::BufferPool};

use crate::support::Recorder;

fn take_in(pool: &BufferPool, bytes: usize) {
    pool.get(bytes).resize(bytes, 0);
}

#[test]
fn each_calibration_is_of_the_buffers_since_the_last_one() {
    let pool = BufferPool::calibrated_every("download", 4, 10);
    let sizes = || (pool.default_size(), pool.max_size());
    (0..10).for_each(|_| take_in(&pool, 100_000));
    assert_eq!(sizes(), (131_072, 131_072));
    (0..9).for_each(|_| take_in(&pool, 100));
    assert_eq!(sizes(), (131_072, 131_072));
    take_in(&pool, 100);
    assert_eq!(sizes(), (128, 128));
}

#[test]
fn without_a_size_there_is_room_for_the_usual_one() {
    let pool = BufferPool::calibrated_every("download", 8, 10);
    let small = [(); 3].map(|()| pool.get(1));
    (0..10).for_each(|_| take_in(&pool, 100_000));
    assert_eq!(pool.default_size(), 131_072);
    drop(small);
    let buffers = [(); 4].map(|()| pool.get(0));
    assert!(buffers.iter().all(|buffer| buffer.capacity() >= 131_072));
}

#[test]
fn a_buffer_that_nothing_was_in_says_nothing_about_sizes() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let pool = BufferPool::calibrated_every("download", 4, 2);
    gauges.buffers(&pool);
    let largest = pool.max_size();
    (0..4).for_each(|_| drop(pool.get(1_000)));
    assert_eq!((pool.default_size(), pool.max_size()), (0, largest));
    assert_eq!(recorder.series("buffer_size_bytes"), []);
}

#[test]
fn what_is_recorded_is_the_memory_that_a_buffer_takes() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let pool = BufferPool::new("download", 4);
    gauges.buffers(&pool);
    let mut buffer = pool.get(1_000);
    buffer.push(1);
    let size = buffer.capacity();
    drop(buffer);
    let sizes = recorder.only_series_of("buffer_size_bytes", "type", "download");
    assert_eq!((sizes.count, sizes.sum), (1, size as f64));
}

#[test]
fn the_buffer_that_fits_best_is_used_again() {
    let pool = BufferPool::new("download", 3);
    drop([100, 10_000, 1_000].map(|size| pool.get(size)));
    let largest = pool.get(0);
    assert!(largest.capacity() >= 10_000, "the size is not known");
    drop(largest);
    let fitting = pool.get(500);
    assert!((1_000..10_000).contains(&fitting.capacity()));
    let _new = pool.get(20_000);
    let left = pool.get(50);
    assert!(left.capacity() >= 10_000, "the smallest has made room");
}

#[test]
fn a_new_buffer_has_the_default_size_at_least() {
    let pool = BufferPool::calibrated_every("download", 0, 10);
    (0..10).for_each(|_| take_in(&pool, 100_000));
    assert_eq!(pool.default_size(), 131_072);
    for size in [0, 100] {
        assert!(pool.get(size).capacity() >= 131_072, "{size}");
    }
    assert!(pool.get(200_000).capacity() >= 200_000);
}
