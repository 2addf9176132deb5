//! Each trace of this process as a waterfall on the terminal, for work without a collector.
//!
//! ```text
//! GET /resize/{options}/{*source} 200 48.2 ms     4bf92f3577b34da6a3ce929d0e0e4736
//!   /resize/rs:fit:300:300/rocket.jpg · 23.4 kB
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
//! The first line is the request: method, route, status, total time and trace id. Below it is what
//! came in and went out, then its stages on one time axis, each with its start after that of the
//! request, its duration, its bar and what is known of it. Errors are told in words below the stage
//! they happened in.
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
//! A batch processor hands over its spans every five seconds unless `OTEL_BSP_SCHEDULE_DELAY` or
//! its own configuration says otherwise; a tenth of a second feels immediate. It writes from a
//! thread of its own. A simple processor writes on the thread that ends the span, where a blocked
//! terminal delays the request.
//!
//! # What makes a block
//!
//! A block is printed when a *local root* ends: a span without a parent, or whose parent is in
//! another process. It shows all spans of this process below that root that ended before it or came
//! in the same batch. A stage that ends later, as blocking work does whose client went away, is
//! printed in a short block of its own with the same trace id, on the time axis of its request.
//! Stages whose root has not ended are printed when the exporter is shut down or flushed, and also
//! when they are among the oldest of more than 4096.
//!
//! [`ConsoleMetricExporter`] prints metrics, and `ConsoleLogExporter` (feature `logs`) the service's
//! log, as plain lines.

mod assembly;
mod describe;
mod lines;
#[cfg(feature = "logs")]
mod logs;
mod metrics;
mod text;
mod waterfall;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use self::assembly::{Assembly, Block};
#[cfg(feature = "logs")]
pub use self::logs::ConsoleLogExporter;
pub use self::metrics::ConsoleMetricExporter;
use self::waterfall::Waterfall;

const DEFAULT_WIDTH: usize = 80;

/// Prints each finished trace of this process as a waterfall; see the [module](self) for a picture.
///
/// A writer that fails (a closed pipe, a full disk) makes `export` return an error and loses the
/// blocks at hand; the next batch is tried again.
pub struct ConsoleExporter {
    waterfall: Waterfall,
    state: Mutex<State>,
}

struct State {
    assembly: Assembly,
    /// `None` after the shutdown.
    writer: Option<Box<dyn Write + Send>>,
}

impl ConsoleExporter {
    /// Prints to standard output, in colour when that is a terminal that knows colour. `NO_COLOR`
    /// switches colour off, `CLICOLOR_FORCE` on; an empty variable counts as unset.
    pub fn stdout() -> Self {
        Self::new(io::stdout()).with_color(wants_color(io::stdout().is_terminal(), var))
    }

    /// Prints to `writer` without colour, in as many columns as `COLUMNS` says, 80 without it. Each
    /// batch is one `write_all` and one `flush`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self {
            waterfall: Waterfall::new(columns(var), false),
            state: Mutex::new(State {
                assembly: Assembly::default(),
                writer: Some(Box::new(writer)),
            }),
        }
    }

    /// Sets the longest line in terminal columns, from 40 to 500.
    pub fn with_width(mut self, columns: usize) -> Self {
        self.waterfall = Waterfall::new(columns, self.waterfall.color);
        self
    }

    /// Switches ANSI colours on or off.
    pub fn with_color(mut self, color: bool) -> Self {
        self.waterfall.color = color;
        self
    }

    fn print(&self, state: &mut State, blocks: &[Block]) -> OTelSdkResult {
        let Some(writer) = &mut state.writer else {
            return Err(OTelSdkError::AlreadyShutdown);
        };
        if blocks.is_empty() {
            return Ok(());
        }
        let text: String = blocks
            .iter()
            .map(|block| self.waterfall.draw(block))
            .collect();
        writer
            .write_all(text.as_bytes())
            .and_then(|()| writer.flush())
            .map_err(|error| {
                OTelSdkError::InternalFailure(format!(
                    "the waterfall could not be written: {error}"
                ))
            })
    }

    fn print_unfinished(&self, state: &mut State) -> OTelSdkResult {
        let blocks = state.assembly.drain();
        self.print(state, &blocks)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A writer that panicked leaves nothing half done.
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

fn columns(var: impl Fn(&str) -> Option<String>) -> usize {
    // 0 stands for a terminal of unknown size.
    let columns = var("COLUMNS").and_then(|columns| columns.parse().ok());
    columns
        .filter(|&columns| columns > 0)
        .unwrap_or(DEFAULT_WIDTH)
}

impl SpanExporter for ConsoleExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut state = self.lock();
        let blocks = state.assembly.add(batch);
        self.print(&mut state, &blocks)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.print_unfinished(&mut self.lock())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        let mut state = self.lock();
        let result = self.print_unfinished(&mut state);
        state.writer = None;
        result
    }
}

impl fmt::Debug for ConsoleExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleExporter")
            .field("waterfall", &self.waterfall)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
