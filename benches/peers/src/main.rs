//! Measures what this layer and other crates' layers add to the same request.
//!
//! Run it with `cargo run --release --manifest-path benches/peers/Cargo.toml`, and `-- 500` for 500
//! rounds. Each crate is used in its newest version and set up as its README or its docs say.
//!
//! In each round every mode serves a batch of requests, one mode after the other, so that noise hits
//! all modes alike. The results are medians over the rounds. "Over" is the time above that of the same
//! requests without a layer. "× ours" is "over" divided by this crate's "over". Allocations and bytes
//! are also those above the requests without a layer.
//!
//! Nothing is exported: ended spans are dropped where an exporter would take them.

mod check;
#[path = "../../overhead/measure.rs"]
mod measure;
mod modes;
mod pipeline;
#[path = "../../overhead/requests.rs"]
mod requests;

use std::fmt;

use measure::{Allocations, runs};
use modes::{Mode, OURS, Served, Signals, Table, modes};
use pipeline::Pipeline;

/// The default number of rounds. On a busy machine, its medians differ by a few percent between runs.
const ROUNDS: usize = 200;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(ROUNDS, |rounds| {
        rounds.parse().expect("the number of rounds")
    });

    let pipeline = Pipeline::install();
    let modes = modes(&pipeline);
    check::check(&pipeline, &modes);

    let mut faster = Vec::new();
    runs(&modes, rounds, |run, times, allocated| {
        let rows: Vec<_> = modes.iter().zip(times).zip(allocated).collect();
        for table in rows.chunk_by(|((one, _), _), ((next, _), _)| one.table == next.table) {
            let name = table[0].0.0.table;
            println!("\n{name}: {run}");
            let beaten = print_table(table);
            faster.extend(beaten.map(|peer| format!("{name}: {run}: {peer}")));
        }
    });
    match &faster[..] {
        [] => println!("\n{OURS} adds the least in every table"),
        faster => println!("\nadds less than {OURS}:\n{}", faster.join("\n")),
    }
}

type Row<'a> = ((&'a Mode, &'a f64), &'a Allocations);

/// Prints a table, and returns the peers that add less time than this crate.
fn print_table<'a>(table: &'a [Row]) -> impl Iterator<Item = &'static str> + use<'a> {
    let [((_, baseline), without), ((_, ours), _), ..] = table else {
        panic!("the baseline and ours come first");
    };
    println!(
        "{:<38} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "", "ns", "over", "× ours", "allocs", "bytes"
    );
    let ratio = move |time: f64| (time - *baseline) / (*ours - *baseline);
    for (number, ((mode, time), allocated)) in table.iter().enumerate() {
        let times = if number == 0 {
            String::new()
        } else {
            format!("{:.2}", ratio(**time))
        };
        println!(
            "{:<38} {:>8.0} {:>8.0} {times:>8} {:>7.1} {:>7.0}",
            mode.name,
            time,
            *time - *baseline,
            allocated.count - without.count,
            allocated.bytes - without.bytes,
        );
    }
    let peers = table.iter().skip(2);
    peers.filter_map(move |((mode, time), _)| (ratio(**time) <= 1.0).then_some(mode.name))
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self.signals {
            Signals::SampledOut => "sampled out",
            Signals::Traces => "traces",
            Signals::TracesAndMetrics => "traces and metrics",
        })?;
        formatter.write_str(match self.served {
            Served::Router => ", axum router",
            Served::Bare => ", plain service",
        })
    }
}
