//! A block as lines of text.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::assembly::{Block, Heading};
use super::describe::{self, Outcome};
use super::text::{cut, duration, fill, pad, printable, width};

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
const SEPARATOR: &str = " · ";
/// Columns of `+38.2 ms` and `38.2 ms`, so that bars of different blocks line up.
const OFFSET: usize = 8;
const DURATION: usize = 7;
/// Columns of the longest of the four stages every request has.
const STAGE_NAME: usize = "downloading_image".len();
/// A title that cannot have as many columns beside the trace id leaves that to the next line.
const MIN_TITLE: usize = 16;

#[derive(Debug)]
pub(super) struct Waterfall {
    columns: usize,
    pub(super) color: bool,
}

impl Waterfall {
    pub(super) fn new(columns: usize, color: bool) -> Self {
        Self {
            columns: columns.clamp(40, 500),
            color,
        }
    }

    pub(super) fn draw(&self, block: &Block) -> String {
        let mut out = String::new();
        let mut shown_errors = HashSet::new();
        for (_, stage) in &block.stages {
            shown_errors.extend(describe::errors(stage).0);
        }
        match &block.heading {
            Heading::Request(root) => {
                self.request_line(&mut out, root);
                self.facts(&mut out, root, INDENT);
                if root.parent_span_id != SpanId::INVALID {
                    let text = format!("continued from upstream span {}", root.parent_span_id);
                    self.lines(
                        &mut out,
                        DIM,
                        INDENT,
                        fill(text.split(' '), " ", self.columns - INDENT),
                    );
                }
                self.troubles(&mut out, root, INDENT, &shown_errors);
            }
            Heading::Late => {
                self.head_line(&mut out, "ended after the request", &[], block.trace_id)
            }
            Heading::Unfinished => {
                self.head_line(&mut out, "request not ended", &[], block.trace_id)
            }
        }
        let layout = Layout::new(block, self.columns);
        for (depth, stage) in &block.stages {
            let indent = self.stage_line(&mut out, stage, *depth, &layout);
            self.facts(&mut out, stage, indent + INDENT);
            self.troubles(&mut out, stage, indent + INDENT, &HashSet::new());
        }
        out.push('\n');
        out
    }

    fn request_line(&self, out: &mut String, root: &SpanData) {
        let (style, status) = match describe::outcome(root) {
            Outcome::Status(code) => (status_style(code), code.to_string()),
            Outcome::Cancelled => (YELLOW, "cancelled".to_owned()),
            Outcome::Failed => (RED, "failed".to_owned()),
            Outcome::Ended => (PLAIN, String::new()),
        };
        let time = duration(elapsed(root.start_time, root.end_time));
        let title = describe::title(root);
        self.head_line(
            out,
            &title,
            &[(style, status), (PLAIN, time)],
            root.span_context.trace_id(),
        );
    }

    /// A title, texts that are never cut, and the trace id, on one line if they fit.
    fn head_line(
        &self,
        out: &mut String,
        title: &str,
        texts: &[(&str, String)],
        trace_id: TraceId,
    ) {
        let texts: Vec<_> = texts.iter().filter(|(_, text)| !text.is_empty()).collect();
        let fixed: usize = texts.iter().map(|(_, text)| 1 + width(text)).sum();
        let trace_id = trace_id.to_string();
        let beside_the_id = (self.columns - trace_id.len() - INDENT).saturating_sub(fixed);
        let on_one_line = beside_the_id >= MIN_TITLE.min(width(title));
        let title = cut(
            title,
            if on_one_line {
                beside_the_id
            } else {
                self.columns - fixed
            },
        );

        self.paint(out, BOLD, &title);
        for (style, text) in texts {
            out.push(' ');
            self.paint(out, style, text);
        }
        let gap = match on_one_line {
            true => self.columns - trace_id.len() - fixed - width(&title),
            false => {
                out.push('\n');
                INDENT
            }
        };
        out.extend(std::iter::repeat_n(' ', gap));
        self.paint(out, DIM, &trace_id);
        out.push('\n');
    }

    /// Name, start, duration and bar; returns the column of the name.
    fn stage_line(
        &self,
        out: &mut String,
        stage: &SpanData,
        depth: usize,
        layout: &Layout,
    ) -> usize {
        let style = match stage.name.as_ref() {
            _ if !describe::errors(stage).0.is_empty() => RED,
            "queue" => YELLOW,
            "downloading_image" => BLUE,
            "processing_image" => MAGENTA,
            "streaming_image" => GREEN,
            _ => CYAN,
        };
        // However deep the stage, some of its name can be read.
        let nested = (depth * INDENT).min(layout.name / 2);
        let name = cut(&printable(&stage.name), layout.name - nested);
        let start = elapsed(layout.start, stage.start_time);
        let time = elapsed(stage.start_time, stage.end_time);
        let indent = INDENT + nested;
        out.push_str(&format!(
            "{:indent$}{} ",
            "",
            pad(&name, layout.name - nested)
        ));
        self.paint(
            out,
            DIM,
            &format!("{:>OFFSET$}", format!("+{}", duration(start))),
        );
        out.push_str(&format!(" {:>DURATION$} ", duration(time)));
        self.paint(out, DIM, "│");
        self.paint(
            out,
            style,
            &bar(start, start + time, layout.total, layout.bar),
        );
        self.paint(out, DIM, "│");
        out.push('\n');
        indent
    }

    fn facts(&self, out: &mut String, span: &SpanData, indent: usize) {
        let facts = describe::facts(span);
        self.lines(
            out,
            DIM,
            indent,
            fill(
                facts.iter().map(String::as_str),
                SEPARATOR,
                self.columns - indent,
            ),
        );
    }

    /// Says in words that a span was cancelled or failed, leaving out errors that are shown elsewhere.
    fn troubles(
        &self,
        out: &mut String,
        span: &SpanData,
        indent: usize,
        shown: &HashSet<describe::Error>,
    ) {
        let columns = self.columns - indent;
        let fill_words = |text: &str| fill(text.split(' '), " ", columns);
        if let Some(text) = describe::cancelled(span) {
            self.lines(out, YELLOW, indent, fill_words(&text));
        }
        let (errors, more) = describe::errors(span);
        for (message, error_type) in errors.iter().filter(|error| !shown.contains(error)) {
            let mut text = format!("error: {}", cut(message, 3 * columns));
            if let Some(error_type) = error_type {
                text.push_str(&format!(" ({})", cut(error_type, columns - INDENT)));
            }
            self.lines(out, RED, indent, fill_words(&text));
        }
        if more > 0 {
            self.lines(out, RED, indent, [format!("and {more} more errors")]);
        }
    }

    fn lines(
        &self,
        out: &mut String,
        style: &str,
        indent: usize,
        lines: impl IntoIterator<Item = String>,
    ) {
        for line in lines {
            out.extend(std::iter::repeat_n(' ', indent));
            self.paint(out, style, &line);
            out.push('\n');
        }
    }

    fn paint(&self, out: &mut String, style: &str, text: &str) {
        if self.color && !style.is_empty() {
            out.push_str(&format!("\x1b[{style}m{text}\x1b[0m"));
        } else {
            out.push_str(text);
        }
    }
}

/// What the stages of a block have in common: one time axis, one set of columns.
struct Layout {
    start: SystemTime,
    total: Duration,
    /// Columns of the name with the indent of nested stages.
    name: usize,
    /// Columns between the frames of the bar.
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

/// A bar from `start` to `end` on an axis of `total` in `cells` columns, with a precision of an eighth of a column
/// at its end, and of about a third at its start, for which Unicode has fewer blocks.
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
    // However short, a stage leaves a mark.
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

/// A clock that was set back gives nothing rather than an error.
fn elapsed(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
