//! Prints each trace of this process as a waterfall on the terminal. No collector is needed.
//!
//! ```text
//! GET /resize/{options}/{*source} 200 48.2 ms     4bf92f3577b34da6a3ce929d0e0e4736
//!   06:17:25.120 · /resize/rs:fit:300:300/rocket.jpg · 23.4 kB
//!   continued from upstream span 00f067aa0ba902b7
//!   queue             +12.0 µs 1.20 ms │█                                        │
//!   downloading_image +1.24 ms 21.2 ms │ ██████████████████                      │
//!     jpeg 138 kB · http://127.0.0.1:8081/images/rocket.jpg
//!   processing_image  +22.5 ms 18.9 ms │                   ████████████████▎     │
//!     rs:fit:300:300 · 1000x872 jpeg -> 300x261 webp 23.4 kB
//!     decode          +22.6 ms 9.00 ms │                   ███████▉              │
//!     watermark       +31.7 ms 1.30 ms │                           █▏            │
//!       watermark.opacity=0.5
//!   streaming_image   +41.5 ms 6.70 ms │                                   ██████│
//! ```
//!
//! The first line is the request: method, route, status, total time and trace id. The lines below it
//! show the time of day (UTC), what came in and went out, then the stages on one time axis. Each stage has its offset from
//! the start of the request, its duration, its bar and its attributes. An error is written below the
//! stage it happened in.
//!
//! [`ConsoleExporter`] is a [`SpanExporter`], so it goes into a tracer provider like any other:
//!
//! ```
//! use opentelemetry_sdk::trace::SdkTracerProvider;
//! use tower_image_trace::console::ConsoleExporter;
//!
//! let provider = SdkTracerProvider::builder()
//!     .with_batch_exporter(ConsoleExporter::stdout())
//!     .build();
//! # provider.shutdown().unwrap();
//! ```
//!
//! A batch processor writes from its own thread, by default every five seconds. A delay of 100 ms
//! (`OTEL_BSP_SCHEDULE_DELAY=100`) looks immediate. A simple processor writes on the thread that ends
//! the span, so a blocked terminal (Ctrl-S) blocks the request.
//!
//! # When a block is printed
//!
//! A block is printed when a *local root* ends: a span without a parent, or with a parent in another
//! process. The block shows all spans below that root that ended before it or came in the same batch.
//! A stage that ends later, such as blocking work that outlives a cancelled request, is printed in a
//! short block of its own, with the same trace id and on the time axis of its request. Stages whose
//! root has not ended are printed when the exporter is flushed or shut down. More than 4,096 of them
//! are not held: the oldest are printed at once.
//!
//! # On a busy service
//!
//! With [`with_summary`](ConsoleExporter::with_summary), or `…_OPEN_TELEMETRY_CONSOLE=summary:500ms`, a request is
//! a line, unless it failed or was slow, and every ten seconds there is a table:
//!
//! ```text
//! 06:17:25.120 200 48.2 ms GET /resize/{options}/{*source} · queue 1.20 ms · downloading_image 21.2 ms
//!
//! 10 s: 1240 requests, 3 failed, 12 cancelled, 4.2 s of work for clients that had left
//!                                       count      p50      p95      p99
//!   GET /resize/{options}/{*source}      1240  48.2 ms   120 ms   310 ms
//!   downloading_image                    1228  21.2 ms  80.1 ms   204 ms
//! ```
//!
//! [`ConsoleMetricExporter`] prints metrics as lines, and `ConsoleLogExporter` (feature `logs`) prints
//! log records.

mod assembly;
mod describe;
#[cfg(feature = "logs")]
mod logs;
mod metrics;
mod output;
mod summary;
mod text;
mod waterfall;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};

#[cfg(feature = "logs")]
pub use self::logs::ConsoleLogExporter;
pub use self::metrics::ConsoleMetricExporter;
use self::{
    assembly::{Assembly, Block},
    output::Output,
    summary::Summary,
    waterfall::Waterfall,
};

const DEFAULT_WIDTH: usize = 80;

/// Prints each finished trace of this process as a waterfall; see the [module](self) for a picture.
///
/// When the writer fails (a full disk) or panics, `export` returns an error and the blocks of that
/// batch are lost. The next batch is written as usual. A closed pipe is no error: nothing more is
/// written then.
pub struct ConsoleExporter {
    columns: Columns,
    color: bool,
    state: Mutex<State>,
}

/// The longest line, in terminal columns.
#[derive(Clone, Copy, Debug)]
enum Columns {
    Fixed(usize),
    /// As many as the terminal on standard output has whenever something is printed.
    OfTerminal,
}

struct State {
    assembly: Assembly,
    /// `None`: each trace is a waterfall.
    summary: Option<Summary>,
    /// `None` after shutdown.
    output: Option<Output>,
}

impl ConsoleExporter {
    /// Prints to standard output, in colour if that is a terminal and `TERM` is not `dumb`. `NO_COLOR`
    /// switches colour off, `CLICOLOR_FORCE` on. An empty variable counts as unset. Lines have at most
    /// `COLUMNS` columns. If the variable is unset, they are as wide as the terminal, whose size may
    /// change, and have 80 columns elsewhere.
    pub fn stdout() -> Self {
        let exporter = Self {
            columns: columns(var).map_or(Columns::OfTerminal, Columns::Fixed),
            ..Self::new(io::stdout())
        };
        exporter.with_color(wants_color(io::stdout().is_terminal(), var))
    }

    /// Prints to `writer` without colour. Lines have at most `COLUMNS` columns, 80 if the variable is
    /// unset. Each batch is one `write_all` and one `flush`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self {
            columns: Columns::Fixed(columns(var).unwrap_or(DEFAULT_WIDTH)),
            color: false,
            state: Mutex::new(State {
                assembly: Assembly::default(),
                summary: None,
                output: Some(Output::new(writer)),
            }),
        }
    }

    /// Sets the longest line in terminal columns, from 40 to 500.
    pub fn with_width(mut self, columns: usize) -> Self {
        self.columns = Columns::Fixed(columns);
        self
    }

    /// Switches ANSI colours on or off.
    pub fn with_color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }

    /// Prints a line for each request, as a waterfall only what failed or took longer than `slower_than`, and
    /// every ten seconds the percentiles of routes and stages, with the time that was spent on requests
    /// whose clients had left: for a service that has many of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_image_trace::{Telemetry, console::ConsoleExporter};
    ///
    /// let terminal = ConsoleExporter::stdout().with_summary(Duration::from_millis(500));
    /// let telemetry = Telemetry::builder().console_exporter(terminal).build()?;
    /// # drop(telemetry);
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    pub fn with_summary(self, slower_than: Duration) -> Self {
        self.lock().summary = Some(Summary::new(slower_than));
        self
    }

    fn print(&self, state: &mut State, blocks: &[Block], is_end: bool) -> OTelSdkResult {
        let Some(output) = &mut state.output else {
            return Err(OTelSdkError::AlreadyShutdown);
        };
        let has_more = is_end && state.summary.is_some();
        if output.is_closed() || blocks.is_empty() && !has_more {
            return Ok(());
        }
        let waterfall = Waterfall::new(self.columns.now(), self.color);
        let blocks = blocks.iter();
        let text: String = match &mut state.summary {
            None => blocks.map(|block| waterfall.draw(block)).collect(),
            Some(summary) => {
                let lines: String = blocks.map(|block| summary.draw(block, waterfall)).collect();
                let columns = waterfall.columns();
                lines
                    + &match is_end {
                        true => summary.table(columns),
                        false => summary.table_if_due(columns),
                    }
            }
        };
        match text.is_empty() {
            true => Ok(()),
            false => output.write(&text),
        }
    }

    fn print_unfinished(&self, state: &mut State) -> OTelSdkResult {
        let blocks = state.assembly.drain();
        self.print(state, &blocks, true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn wants_color(is_terminal: bool, var: impl Fn(&str) -> Option<String>) -> bool {
    let knows_color = is_terminal && var("TERM").is_none_or(|term| term != "dumb");
    var("NO_COLOR").is_none() && (knows_color || var("CLICOLOR_FORCE").is_some())
}

fn columns(var: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let columns = var("COLUMNS").and_then(|columns| columns.parse().ok());
    // 0 means a terminal of unknown size.
    columns.filter(|&columns| columns > 0)
}

impl Columns {
    fn now(self) -> usize {
        match self {
            Self::Fixed(columns) => columns,
            Self::OfTerminal => terminal_size::terminal_size_of(io::stdout())
                .map_or(DEFAULT_WIDTH, |(columns, _)| columns.0.into()),
        }
    }
}

impl SpanExporter for ConsoleExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut state = self.lock();
        let blocks = state.assembly.add(batch);
        self.print(&mut state, &blocks, false)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.print_unfinished(&mut self.lock())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        let mut state = self.lock();
        let result = self.print_unfinished(&mut state);
        if let Some(mut output) = state.output.take() {
            output.close();
        }
        result
    }
}

impl fmt::Debug for ConsoleExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleExporter")
            .field("columns", &self.columns)
            .field("color", &self.color)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
