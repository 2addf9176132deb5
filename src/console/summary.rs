//! For a busy service: a line a request, in full only what failed or was slow, and percentiles every so often.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::trace::{Status, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::{
    assembly::{Block, Heading},
    describe::{self, Outcome},
    text::{cut, duration, fill, pad, time_of_day, width},
    waterfall::{Waterfall, elapsed},
};

/// How often percentiles are shown, while there are requests.
const EVERY: Duration = Duration::from_secs(10);
/// The most routes and stages that a table tells apart; later ones share a row.
const MOST_ROWS: usize = 64;
const OTHERS: &str = "(others)";
/// The durations of a row that its percentiles are made from: the latest ones.
const MOST_DURATIONS: usize = 10_000;
/// The cancelled requests that are remembered, because their work may end after them.
const MOST_LEFT: usize = 1024;
/// Columns that a long status leaves to the duration and the title of a request.
const FOR_TITLE: usize = 24;
/// Columns of a number in a table.
const NUMBER: usize = 9;

#[derive(Debug)]
pub(super) struct Summary {
    slower_than: Duration,
    since: Instant,
    requests: u64,
    failed: u64,
    cancelled: u64,
    /// What stages took after their request had been cancelled.
    wasted: Duration,
    /// The ends of cancelled requests, oldest first.
    left: VecDeque<(TraceId, SystemTime)>,
    rows: BTreeMap<(Of, String), Durations>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Route,
    Stage,
}

#[derive(Debug, Default)]
struct Durations {
    count: u64,
    /// The latest ones, in no order.
    latest: Vec<Duration>,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        match self.latest.len() {
            MOST_DURATIONS => {
                let oldest = (self.count % MOST_DURATIONS as u64) as usize;
                self.latest[oldest] = duration;
            }
            _ => self.latest.push(duration),
        }
        self.count += 1;
    }

    /// Nearest-rank percentiles.
    fn percentiles<const N: usize>(&mut self, of: [usize; N]) -> [Duration; N] {
        self.latest.sort_unstable();
        let last = self.latest.len().saturating_sub(1);
        let rank = |percent: usize| {
            (self.latest.len() * percent)
                .div_ceil(100)
                .saturating_sub(1)
        };
        of.map(|percent| self.latest[rank(percent).min(last)])
    }
}

impl Summary {
    pub(super) fn new(slower_than: Duration) -> Self {
        Self {
            slower_than,
            since: Instant::now(),
            requests: 0,
            failed: 0,
            cancelled: 0,
            wasted: Duration::ZERO,
            left: VecDeque::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Counts a block, and says how it is shown.
    pub(super) fn draw(&mut self, block: &Block, waterfall: Waterfall) -> String {
        let root = match &block.heading {
            Heading::Request(root) => root,
            Heading::Late => {
                let left = self.left.iter().find(|(id, _)| *id == block.trace_id);
                self.wasted += left.map_or(Duration::ZERO, |(_, end)| after(block, *end));
                return String::new();
            }
            Heading::Unfinished => return waterfall.draw(block),
        };
        let outcome = describe::outcome(root);
        let stages = || block.stages.iter().map(|(_, stage)| stage);
        let is_failed = |span: &SpanData| matches!(span.status, Status::Error { .. });
        let failed = is_failed(root) || stages().any(is_failed);
        let took = elapsed(root.start_time, root.end_time);
        self.requests += 1;
        self.failed += u64::from(failed);
        if matches!(outcome, Outcome::Cancelled) {
            self.cancelled += 1;
            self.wasted += after(block, root.end_time);
            if self.left.len() == MOST_LEFT {
                self.left.pop_front();
            }
            self.left.push_back((block.trace_id, root.end_time));
        }
        self.add(Of::Route, describe::route(root), took);
        for stage in stages() {
            let time = elapsed(stage.start_time, stage.end_time);
            self.add(Of::Stage, describe::name(stage), time);
        }
        match failed || took > self.slower_than {
            true => waterfall.draw(block),
            false => line(root, &outcome, took, block, waterfall),
        }
    }

    fn add(&mut self, of: Of, name: String, duration: Duration) {
        let mut key = (of, name);
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&key) {
            key.1 = OTHERS.to_owned();
        }
        self.rows.entry(key).or_default().add(duration);
    }

    /// The table of what came since the last one, when it is time for it.
    pub(super) fn table_if_due(&mut self, columns: usize) -> String {
        match self.since.elapsed() < EVERY {
            true => String::new(),
            false => self.table(columns),
        }
    }

    /// The table of what came since the last one.
    pub(super) fn table(&mut self, columns: usize) -> String {
        let since = std::mem::replace(&mut self.since, Instant::now());
        let mut rows = std::mem::take(&mut self.rows);
        let counts = [&mut self.requests, &mut self.failed, &mut self.cancelled];
        let [requests, failed, cancelled] = counts.map(std::mem::take);
        let wasted = std::mem::take(&mut self.wasted);
        if rows.is_empty() && wasted.is_zero() {
            return String::new();
        }
        let seconds = since.elapsed().as_secs();
        let mut head = vec![
            format!("{seconds} s: {requests} requests"),
            format!("{failed} failed"),
            format!("{cancelled} cancelled"),
        ];
        if !wasted.is_zero() {
            let wasted = wasted.as_secs_f64();
            head.push(format!("{wasted:.1} s of work for clients that had left"));
        }
        let widest = rows.keys().map(|(_, name)| width(name)).max().unwrap_or(0);
        let name = widest.min(columns.saturating_sub(2 + 4 * NUMBER));
        let head = fill(head.iter().map(String::as_str), ", ", columns);
        let mut text = head.join("\n") + "\n";
        let titles = ["count", "p50", "p95", "p99"].map(|title| format!("{title:>NUMBER$}"));
        text.push_str(&format!("  {}{}\n", " ".repeat(name), titles.concat()));
        for ((_, route), durations) in &mut rows {
            let count = durations.count;
            let times = durations.percentiles([50, 95, 99]);
            let times = times.map(|time| format!("{:>NUMBER$}", duration(time)));
            let route = pad(&cut(route, name), name);
            text.push_str(&format!("  {route}{count:>NUMBER$}{}\n", times.concat()));
        }
        text + "\n"
    }
}

/// How long the uppermost stages of a block went on after `end`.
fn after(block: &Block, end: SystemTime) -> Duration {
    let uppermost = block.stages.iter().filter(|(depth, _)| *depth == 0);
    uppermost
        .map(|(_, stage)| elapsed(end.max(stage.start_time), stage.end_time))
        .sum()
}

/// A request in a line, with its uppermost stages.
fn line(
    root: &SpanData,
    outcome: &Outcome,
    took: Duration,
    block: &Block,
    waterfall: Waterfall,
) -> String {
    let (style, status) = waterfall.status(outcome);
    let time = time_of_day(root.start_time);
    let columns = waterfall.columns();
    let for_status = columns.saturating_sub(width(&time) + FOR_TITLE);
    let status = cut(&status, for_status.max(columns / 4));
    let took = duration(took);
    let stages = block.stages.iter().filter(|(depth, _)| *depth == 0);
    let stages = stages.map(|(_, stage)| {
        let time = elapsed(stage.start_time, stage.end_time);
        format!(" · {} {}", describe::name(stage), duration(time))
    });
    let rest = format!(
        " {took:>7} {}{}",
        describe::title(root),
        stages.collect::<String>()
    );
    let left = columns.saturating_sub(width(&time) + 1 + width(&status));
    format!(
        "{time} {}{}\n",
        waterfall.painted(style, &status),
        cut(&rest, left)
    )
}
