//! The writer that the metric and log exporters share.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};

/// A writer of whole lines.
pub(super) struct Lines(Mutex<Box<dyn Write + Send>>);

impl Lines {
    pub(super) fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(writer)))
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
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer
            .write_all(text.as_bytes())
            .and_then(|()| writer.flush())
            .map_err(|error| {
                OTelSdkError::InternalFailure(format!("the lines could not be written: {error}"))
            })
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}
