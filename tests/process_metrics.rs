//! The metrics of the process are those that the kernel shows of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use tower_image_trace::metrics::Gauges;

use crate::support::{Recorder, process::run_alone};

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

/// Other tests need memory, threads and files too, so this is measured in a process of its own.
#[test]
fn memory_threads_and_files_are_counted() {
    run_alone("process_metrics::child_process", |command| command);
}

#[test]
#[ignore = "a part of another test"]
fn child_process() {
    let (recorder, _gauges) = recorder();
    for (name, line) in [
        ("process.memory.usage", "VmRSS"),
        ("process.memory.virtual", "VmSize"),
    ] {
        let bytes = recorder.only_series(name).sum;
        let ratio = bytes / (status(line) * 1024.0);
        assert!((0.5..2.0).contains(&ratio), "{name}: {ratio}");
    }
    let threads = recorder.only_series("process.thread.count").sum;
    assert_eq!(threads, status("Threads"));
    let files = recorder
        .only_series("process.unix.file_descriptor.count")
        .sum;
    // Whoever looks has the folder open, here as there.
    let expected = fs::read_dir("/proc/self/fd").unwrap().count() as f64;
    assert_eq!(files, expected);
}
