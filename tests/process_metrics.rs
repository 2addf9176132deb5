//! The metrics of the process are those that the kernel shows of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use tower_image_trace::metrics::Gauges;

use crate::support::Recorder;

/// What Linux counts CPU time in, on every platform that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

fn recorder() -> (Recorder, Gauges) {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    gauges.process();
    (recorder, gauges)
}

/// Seconds in user and in system mode, from `/proc/self/stat`.
fn cpu_times() -> [f64; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may have blanks in it, comes field 3.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    [14, 15].map(|field: usize| fields[field - 3].parse::<f64>().unwrap() / TICKS_PER_SECOND)
}

/// A line of `/proc/self/status`.
fn status(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

/// Other tests come and go, so that what is right may be wrong a moment later, and the other way
/// round; but hardly three times in a row.
fn assert_soon_equal(mut pair: impl FnMut() -> (f64, f64)) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut equal = 0;
    while equal < 3 {
        let (seen, expected) = pair();
        equal = if seen == expected { equal + 1 } else { 0 };
        assert!(Instant::now() < deadline, "{seen} for {expected}");
    }
}

#[test]
fn cpu_time_is_told_apart_by_mode() {
    let (recorder, _gauges) = recorder();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {
        std::hint::black_box(start);
    }
    for (index, mode) in ["user", "system"].into_iter().enumerate() {
        let before = cpu_times()[index];
        let time = recorder.only_series_of("process.cpu.time", "cpu.mode", mode);
        let after = cpu_times()[index];
        let sum = time.sum;
        assert!(
            (before..=after).contains(&sum),
            "{mode}: {before} {sum} {after}"
        );
    }
}

#[test]
fn memory_is_in_bytes() {
    let (recorder, _gauges) = recorder();
    for (name, line) in [
        ("process.memory.usage", "VmRSS"),
        ("process.memory.virtual", "VmSize"),
    ] {
        let bytes = recorder.only_series(name).sum;
        let expected = status(line) * 1024.0;
        let ratio = bytes / expected;
        // Other tests need memory too.
        assert!(
            (0.5..2.0).contains(&ratio),
            "{name}: {bytes} for {expected}"
        );
    }
}

#[test]
fn threads_and_files_are_counted() {
    let (recorder, _gauges) = recorder();
    assert_soon_equal(|| {
        let threads = recorder.only_series("process.thread.count").sum;
        (threads, status("Threads"))
    });
    assert_soon_equal(|| {
        let files = recorder
            .only_series("process.unix.file_descriptor.count")
            .sum;
        // Whoever looks has the folder open, here as there.
        (files, fs::read_dir("/proc/self/fd").unwrap().count() as f64)
    });
}
