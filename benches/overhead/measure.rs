use std::{sync::Barrier, thread, time::Instant};

use http::Request;

use super::{
    modes::Mode,
    requests::{Start, request},
};

/// Requests per mode and round.
const BATCH: u32 = 500;

/// Means over many requests.
pub(crate) struct Allocations {
    pub(crate) count: f64,
    pub(crate) bytes: f64,
}

/// The allocations of one request after a warm-up.
pub(crate) fn allocations(start: &Start, sent: &Request<()>) -> Allocations {
    const REQUESTS: u32 = 100;
    let mut request = start(sent);
    (0..REQUESTS).for_each(|_| request());
    let measured = allocation_counter::measure(|| (0..REQUESTS).for_each(|_| request()));
    Allocations {
        count: measured.count_total as f64 / f64::from(REQUESTS),
        bytes: measured.bytes_total as f64 / f64::from(REQUESTS),
    }
}

/// Runs all modes without and with `tracestate`, on one thread and on two. `show` gets a title, and the
/// median nanoseconds and the allocations of each mode.
pub(crate) fn runs(
    modes: &[Mode],
    rounds: usize,
    mut show: impl FnMut(&str, &[f64], &[Allocations]),
) {
    for tracestate in [false, true] {
        let sent = request(tracestate);
        let allocated = modes.iter().map(|mode| allocations(&*mode.start, &sent));
        let allocated: Vec<_> = allocated.collect();
        for threads in [1, 2] {
            let with = if tracestate { "with" } else { "without" };
            let run = format!("{threads} thread(s), {with} tracestate, {rounds} rounds");
            let times = median_times(modes, &sent, threads, rounds);
            show(&run, &times, &allocated);
        }
    }
}

/// The median nanoseconds of a request in each mode, with `threads` threads at once.
fn median_times(modes: &[Mode], sent: &Request<()>, threads: usize, rounds: usize) -> Vec<f64> {
    let barrier = Barrier::new(threads);
    let of_threads: Vec<Vec<Vec<f64>>> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| times(modes, sent, rounds, &barrier)))
            .collect();
        let joined = all.into_iter().map(|thread| thread.join());
        joined.map(|times| times.expect("no panic")).collect()
    });
    (0..modes.len())
        .map(|mode| median(of_threads.iter().flat_map(|times| times[mode].clone())))
        .collect()
}

/// The nanoseconds of a request, for each mode and round.
fn times(modes: &[Mode], sent: &Request<()>, rounds: usize, barrier: &Barrier) -> Vec<Vec<f64>> {
    let mut requests: Vec<_> = modes.iter().map(|mode| (mode.start)(sent)).collect();
    let mut times = vec![Vec::with_capacity(rounds); modes.len()];
    // Allocations are not counted here: counting takes time.
    allocation_counter::opt_out(|| {
        for round in 0..=rounds {
            for turn in 0..modes.len() {
                // Each round begins with another mode, so that no mode always follows the same one.
                let mode = (turn + round) % modes.len();
                barrier.wait();
                let started = Instant::now();
                (0..BATCH).for_each(|_| requests[mode]());
                let elapsed = started.elapsed().as_nanos() as f64 / f64::from(BATCH);
                // The first round warms up.
                if round > 0 {
                    times[mode].push(elapsed);
                }
            }
        }
    });
    times
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
