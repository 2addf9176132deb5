//! Reads a body of unknown length in chunks of 16 KiB, into a pooled buffer, a `Vec` and a `BytesMut`.
//!
//! Run it with `cargo bench --bench buffers`. glibc's allocator keeps freed memory, so the pool is
//! faster only where a vector would grow from a small capacity. Its other benefits are a bound on the
//! memory that is kept, and its metrics.

use std::{hint::black_box, time::Duration};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tower_image_trace::pool::BufferPool;

const CHUNK: usize = 16 * 1024;

fn take_in(size: usize, mut extend: impl FnMut(&[u8])) {
    let chunk = [7; CHUNK];
    let mut left = size;
    while left > 0 {
        let length = left.min(CHUNK);
        extend(black_box(&chunk[..length]));
        left -= length;
    }
}

fn downloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("download");
    group.measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(500));
    for size in [20_000, 200_000, 2_000_000, 8_000_000] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("Vec", size), &size, |bencher, &size| {
            bencher.iter(|| {
                let mut bytes = Vec::new();
                take_in(size, |chunk| bytes.extend_from_slice(chunk));
                bytes
            });
        });
        group.bench_with_input(
            BenchmarkId::new("BytesMut", size),
            &size,
            |bencher, &size| {
                bencher.iter(|| {
                    let mut bytes = BytesMut::new();
                    take_in(size, |chunk| bytes.extend_from_slice(chunk));
                    bytes
                });
            },
        );
        group.bench_with_input(
            BenchmarkId::new("Vec of known length", size),
            &size,
            |bencher, &size| {
                bencher.iter(|| {
                    let mut bytes = Vec::with_capacity(size);
                    take_in(size, |chunk| bytes.extend_from_slice(chunk));
                    bytes
                });
            },
        );
        let pool = BufferPool::new("bench", 4);
        group.bench_with_input(
            BenchmarkId::new("BufferPool", size),
            &size,
            |bencher, &size| {
                bencher.iter(|| {
                    let mut bytes = pool.get(0);
                    take_in(size, |chunk| bytes.extend_from_slice(chunk));
                    bytes
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, downloads);
criterion_main!(benches);
