//! Draws a block as lines of text.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::{
    assembly::{Block, Heading},
    describe::{self, Outcome},
    text::{cut, duration, fill, pad, printable, time_of_day, width},
};

// ANSI "select graphic rendition" parameters.
const PLAIN: &str = "";
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BLUE: &str = "34";
const MAGENTA: &str = "35";
const CYAN: &str = "36";

const INDENT: usize = 2;
/// Columns of `+38.2 ms` and of `38.2 ms`. They are fixed, so that the bars of all blocks line up.
const OFFSET: usize = 8;
const DURATION: usize = 7;
/// Columns of the longest name among the crate's own four stages.
const STAGE_NAME: usize = "downloading_image".len();
/// If fewer columns than these are left for the title, the trace id goes to the next line.
const MIN_TITLE: usize = 16;
/// The most links shown per request. An untrusted upstream makes one.
const MAX_LINKS: usize = 3;

/// How blocks are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waterfall {
    columns: usize,
    color: bool,
}

impl Waterfall {
    pub(super) fn new(columns: usize, color: bool) -> Self {
        Self {
            columns: columns.clamp(40, 500),
            color,
        }
    }

    pub(super) fn columns(self) -> usize {
        self.columns
    }

    /// How a request ended, in a word, and its style.
    pub(super) fn status(self, outcome: &Outcome) -> (&'static str, String) {
        match outcome {
            Outcome::Status(code) => (status_style(*code), code.to_string()),
            Outcome::Code(code, true) => (RED, code.clone()),
            Outcome::Code(code, false) if code == "OK" => (GREEN, code.clone()),
            Outcome::Code(code, false) => (YELLOW, code.clone()),
            Outcome::Cancelled => (YELLOW, "cancelled".to_owned()),
            Outcome::Failed => (RED, "failed".to_owned()),
            Outcome::Ended => (PLAIN, String::new()),
        }
    }

    pub(super) fn painted(self, style: &str, text: &str) -> String {
        match self.color && !style.is_empty() {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    pub(super) fn draw(self, block: &Block) -> String {
        let mut drawing = Drawing {
            waterfall: self,
            text: String::new(),
        };
        match &block.heading {
            Heading::Request(root) => {
                let of_stages = block
                    .stages
                    .iter()
                    .flat_map(|(_, stage)| describe::errors(stage).0);
                drawing.request(root, &of_stages.collect());
            }
            Heading::Late => drawing.head("ended after the request", &[], block.trace_id),
            Heading::Unfinished => drawing.head("request not ended", &[], block.trace_id),
        }
        let layout = Layout::new(block, self.columns);
        for (depth, stage) in &block.stages {
            drawing.stage(stage, *depth, &layout);
        }
        drawing.text.push('\n');
        drawing.text
    }
}

struct Drawing {
    waterfall: Waterfall,
    text: String,
}

impl Drawing {
    fn request(&mut self, root: &SpanData, errors_of_stages: &HashSet<describe::Error>) {
        let (style, status) = self.waterfall.status(&describe::outcome(root));
        let time = duration(elapsed(root.start_time, root.end_time));
        let texts = [(style, status), (PLAIN, time)];
        self.head(&describe::title(root), &texts, root.span_context.trace_id());
        let time = time_of_day(root.start_time);
        self.facts(root, Some(time), INDENT);
        if root.parent_span_id != SpanId::INVALID {
            let text = format!("continued from upstream span {}", root.parent_span_id);
            self.words(DIM, INDENT, &text);
        }
        for link in root.links.iter().take(MAX_LINKS) {
            let text = format!("linked to trace {}", link.span_context.trace_id());
            self.words(DIM, INDENT, &text);
        }
        self.troubles(root, INDENT, errors_of_stages);
    }

    /// Draws a title, a few short texts, and the trace id, on one line if they fit. The title is cut
    /// first. A text takes at most half of a line.
    fn head(&mut self, title: &str, texts: &[(&str, String)], trace_id: TraceId) {
        let columns = self.waterfall.columns;
        let trace_id = trace_id.to_string();
        let texts: Vec<_> = texts
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(style, text)| (style, cut(text, columns / 2)))
            .collect();
        let fixed: usize = texts.iter().map(|(_, text)| 1 + width(text)).sum();
        let beside_the_id = columns
            .checked_sub(fixed + INDENT + trace_id.len())
            .filter(|&left| left >= MIN_TITLE.min(width(title)));
        let for_the_title = beside_the_id.unwrap_or(columns.saturating_sub(fixed));
        let title = cut(title, for_the_title);

        self.paint(BOLD, &title);
        for (style, text) in &texts {
            self.text.push(' ');
            self.paint(style, text);
        }
        if let Some(left) = beside_the_id {
            self.spaces(left - width(&title) + INDENT);
        } else {
            self.text.push('\n');
            self.spaces(INDENT);
        }
        self.paint(DIM, &trace_id);
        self.text.push('\n');
    }

    fn stage(&mut self, stage: &SpanData, depth: usize, layout: &Layout) {
        let style = match stage.name.as_ref() {
            _ if !describe::errors(stage).0.is_empty() => RED,
            "queue" => YELLOW,
            "downloading_image" => BLUE,
            "processing_image" => MAGENTA,
            "streaming_image" => GREEN,
            _ => CYAN,
        };
        // A deeply nested stage keeps half of the column for its name.
        let nested = (depth * INDENT).min(layout.name / 2);
        let name = cut(&printable(&stage.name), layout.name - nested);
        let start = elapsed(layout.start, stage.start_time);
        let time = elapsed(stage.start_time, stage.end_time);

        self.spaces(INDENT + nested);
        self.text.push_str(&pad(&name, layout.name - nested));
        self.paint(
            DIM,
            &format!(" {:>OFFSET$} ", format!("+{}", duration(start))),
        );
        self.text
            .push_str(&format!("{:>DURATION$} ", duration(time)));
        self.paint(DIM, "│");
        let end = start.saturating_add(time);
        self.paint(style, &bar(start, end, layout.total, layout.bar));
        self.paint(DIM, "│");
        self.text.push('\n');

        let below = INDENT + nested + INDENT;
        self.facts(stage, None, below);
        self.troubles(stage, below, &HashSet::new());
    }

    fn facts(&mut self, span: &SpanData, time: Option<String>, indent: usize) {
        let facts: Vec<_> = time.into_iter().chain(describe::facts(span)).collect();
        self.pieces(DIM, indent, facts.iter().map(String::as_str), " · ");
    }

    /// Says that a span was cancelled or failed. Errors in `shown` are left out.
    fn troubles(&mut self, span: &SpanData, indent: usize, shown: &HashSet<describe::Error>) {
        if let Some(text) = describe::cancelled(span) {
            self.words(YELLOW, indent, &text);
        }
        let columns = self.waterfall.columns - indent;
        let (errors, more) = describe::errors(span);
        for (message, error_type) in errors.iter().filter(|error| !shown.contains(error)) {
            let mut text = format!("error: {}", cut(message, 3 * columns));
            if let Some(error_type) = error_type {
                text.push_str(&format!(" ({})", cut(error_type, columns - INDENT)));
            }
            self.words(RED, indent, &text);
        }
        if more > 0 {
            self.words(RED, indent, &format!("and {more} more errors"));
        }
    }

    fn words(&mut self, style: &str, indent: usize, text: &str) {
        self.pieces(style, indent, text.split(' '), " ");
    }

    fn pieces<'a>(
        &mut self,
        style: &str,
        indent: usize,
        pieces: impl Iterator<Item = &'a str>,
        separator: &str,
    ) {
        for line in fill(pieces, separator, self.waterfall.columns - indent) {
            self.spaces(indent);
            self.paint(style, &line);
            self.text.push('\n');
        }
    }

    fn paint(&mut self, style: &str, text: &str) {
        self.text.push_str(&self.waterfall.painted(style, text));
    }

    fn spaces(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
    }
}

/// The time axis and the columns that all stages of a block share.
struct Layout {
    start: SystemTime,
    total: Duration,
    /// Columns of the name, with the indent of nested stages.
    name: usize,
    /// Columns of the bar without its frame.
    bar: usize,
}

impl Layout {
    fn new(block: &Block, columns: usize) -> Self {
        let spans = || block.stages.iter().map(|(_, stage)| stage);
        let root = match &block.heading {
            Heading::Request(root) => Some(&**root),
            Heading::Late | Heading::Unfinished => None,
        };
        let end = spans().chain(root).map(|span| span.end_time).max();
        let widest = columns / 4;
        let needed = block
            .stages
            .iter()
            .map(|(depth, stage)| depth * INDENT + width(&printable(&stage.name)))
            .max();
        let name = needed.unwrap_or(0).max(STAGE_NAME).min(widest);
        Self {
            start: block.start,
            total: elapsed(block.start, end.unwrap_or(block.start)),
            name,
            bar: columns - (INDENT + name + 1 + OFFSET + 1 + DURATION + 1 + 2),
        }
    }
}

/// Draws a bar from `start` to `end` on an axis of `total`, in `cells` columns. Its end is exact to an
/// eighth of a column, its start to about a third, because Unicode has fewer blocks for that side.
fn bar(start: Duration, end: Duration, total: Duration, cells: usize) -> String {
    const LEFT: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    const RIGHT: [char; 9] = [' ', '▕', '▕', '▐', '▐', '▐', '█', '█', '█'];
    let last = 8 * cells;
    let eighths = |at: Duration| match total.is_zero() {
        true => 0,
        false => {
            ((at.as_secs_f64() / total.as_secs_f64() * last as f64).round() as usize).min(last)
        }
    };
    // Even the shortest stage leaves a mark.
    let from = eighths(start).min(last - 1);
    let to = eighths(end).max(from + 1);
    (0..cells)
        .map(|cell| {
            let from = from.saturating_sub(8 * cell).min(8);
            let to = to.saturating_sub(8 * cell).min(8);
            match to - from {
                filled if from < 8 - to => LEFT[filled],
                filled => RIGHT[filled],
            }
        })
        .collect()
}

fn status_style(code: i64) -> &'static str {
    match code {
        200..300 => GREEN,
        300..400 => CYAN,
        400..500 => YELLOW,
        500.. => RED,
        _ => PLAIN,
    }
}

/// The time from `from` to `to`, or zero if the clock was set back.
pub(super) fn elapsed(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_in_eighths() {
        for (start, end, shown) in [
            (0, 32, "████"),
            (0, 0, "▏   "),
            (0, 3, "▍   "),
            (0, 13, "█▋  "),
            (8, 16, " █  "),
            (7, 9, "▕▏  "),
            (10, 24, " ██ "),
            (12, 24, " ▐█ "),
            (10, 12, " ▎  "),
            (12, 15, " ▐  "),
            (30, 32, "   ▕"),
            (32, 32, "   ▕"),
            // A stage that starts after its request ended, because the clock was set back.
            (40, 50, "   ▕"),
        ] {
            let [start_at, end_at] = [start, end].map(Duration::from_millis);
            let drawn = bar(start_at, end_at, Duration::from_millis(32), 4);
            assert_eq!(drawn, shown, "{start}..{end}");
        }
        assert_eq!(
            bar(Duration::ZERO, Duration::ZERO, Duration::ZERO, 4),
            "▏   "
        );
    }
}
