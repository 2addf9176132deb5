//! Measures what the layer adds to a request: time as a ratio to a hand-written floor, and allocations.
//!
//! Run it with `cargo bench --bench overhead`, or `cargo bench --bench overhead -- 500` for 500 rounds.
//! `benches/overhead/layouts` shows medians over builds with different layouts.
//!
//! In each round every mode serves a batch of requests, one mode after the other, so that noise hits
//! all modes alike. The results are medians over the rounds. "Over" is the time above the baseline,
//! which serves the same requests without a layer. "× floor" is "over" divided by the "over" of the
//! mode's floor. Allocations and bytes are also those above the baseline.
//!
//! Nothing is exported: ended spans are dropped where an exporter would take them.
//!
//! `cargo bench --bench overhead -- --serve 1000 "traces"` only serves 1,000 requests in one mode, for
//! tools that count instructions (`benches/instructions/run`).

mod floor;
mod measure;
mod modes;
mod requests;

use measure::{Allocations, runs};
use modes::{Mode, POLLS, STAGES, modes};
use requests::request;

/// The default number of rounds. On a busy machine, its medians differ by a few percent between runs.
const ROUNDS: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, requests, mode, ..] = &arguments[..]
        && option == "--serve"
    {
        let requests = requests.parse().expect("a number of requests");
        return serve(requests, mode);
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
    // `cargo test --benches` also runs this, only to see that it works.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let rounds = rounds.unwrap_or(if is_bench { ROUNDS } else { 1 });

    let modes = modes();
    runs(&modes, rounds, |run, times, allocated| {
        println!("\n{run}");
        print_table(&modes, times, allocated);
    });
}

fn serve(requests: usize, mode: &str) {
    let modes = modes();
    let mode = modes.iter().find(|known| known.name == mode);
    let mut request = (mode.expect("the name of a mode").start)(&request(false));
    (0..requests).for_each(|_| request());
}

fn print_table(modes: &[Mode], times: &[f64], allocated: &[Allocations]) {
    let index = |name: &str| {
        let found = modes.iter().position(|mode| mode.name == name);
        found.expect("baselines and floors are modes")
    };
    let over = |name: &str| {
        let (mode, baseline) = (index(name), index(modes[index(name)].baseline));
        times[mode] - times[baseline]
    };
    println!(
        "{:<40} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "", "ns", "over", "× floor", "allocs", "bytes"
    );
    for (number, mode) in modes.iter().enumerate() {
        let baseline = index(mode.baseline);
        let ratio = mode.floor.map_or(String::new(), |floor| {
            format!("{:.2}", over(mode.name) / over(floor))
        });
        println!(
            "{:<40} {:>8.0} {:>8.0} {ratio:>8} {:>7.1} {:>7.0}",
            mode.name,
            times[number],
            over(mode.name),
            allocated[number].count - allocated[baseline].count,
            allocated[number].bytes - allocated[baseline].bytes,
        );
    }

    for (what, more, ours, floors_more, floor) in [
        (
            "each stage",
            "traces, metrics, three stages",
            "traces and metrics",
            "floor: three child spans",
            "floor: traces and metrics",
        ),
        (
            "each stage, bound",
            "traces, metrics, three stages, bound",
            "traces and metrics, bound",
            "floor: three child spans",
            "floor: traces and metrics",
        ),
        (
            "each further poll",
            "traces and metrics, further polls",
            "traces and metrics",
            "floor: further polls",
            "floor: traces and metrics",
        ),
    ] {
        let parts = if what == "each further poll" {
            POLLS
        } else {
            STAGES
        };
        let each = |more, less| (over(more) - over(less)) / f64::from(parts);
        let counts = |more, less| {
            let count = allocated[index(more)].count - allocated[index(less)].count;
            count / f64::from(parts)
        };
        let (ns, floor_ns) = (each(more, ours), each(floors_more, floor));
        println!(
            "{what:<40} {:>8} {ns:>8.1} {:>8.2} {:>7.1}   (floor: {floor_ns:.1} ns, {:.1} allocs)",
            "",
            ns / floor_ns,
            counts(more, ours),
            counts(floors_more, floor),
        );
    }
}
