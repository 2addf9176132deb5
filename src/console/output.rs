//! The writers of the exporters.

use std::{
    fmt,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};

use crate::instrument;

/// The longest text of a writer's error, in bytes.
const ERROR: usize = 256;

/// A writer, which may fail, panic, or lose its reader.
pub(super) struct Output {
    /// `None` after the pipe was closed.
    writer: Option<Box<dyn Write + Send>>,
}

impl Output {
    pub(super) fn new(writer: impl Write + Send + 'static) -> Self {
        Self {
            writer: Some(Box::new(writer)),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writer.is_none()
    }

    /// Writes `text` with one `write_all` and one `flush`. A closed pipe is no error: nobody reads the
    /// output any more, so nothing more is written.
    pub(super) fn write(&mut self, text: &str) -> OTelSdkResult {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let written = catch_unwind(AssertUnwindSafe(|| {
            writer.write_all(text.as_bytes())?;
            writer.flush()
        }));
        let failure = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.close();
                return Ok(());
            }
            Ok(Err(error)) => {
                let error = instrument::text(&error, ERROR);
                format!("the console could not be written to: {error}")
            }
            Err(_) => "the writer of the console panicked".to_owned(),
        };
        Err(OTelSdkError::InternalFailure(failure))
    }

    pub(super) fn close(&mut self) {
        let writer = self.writer.take();
        // The writer's `Drop` may panic, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(writer)));
    }
}

/// Writes whole lines.
pub(super) struct Lines(Mutex<Output>);

impl Lines {
    pub(super) fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Output::new(writer)))
    }

    pub(super) fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// Writes all lines with one call, so that output of other exporters cannot come between them.
    pub(super) fn print(&self, lines: &[String]) -> OTelSdkResult {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = lines.join("\n");
        text.push('\n');
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write(&text)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}
