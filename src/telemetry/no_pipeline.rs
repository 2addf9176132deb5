//! In place of `pipeline`, when the crate was compiled without any exporter.

use std::time::Duration;

use super::{error::TelemetryError, event::SignalStats, signal::Signal};

/// What runs between the providers and an exporter: here, nothing ever does.
#[derive(Debug)]
pub(crate) enum Pipeline {}

impl Pipeline {
    pub(crate) const fn stats(&self, _: Signal) -> SignalStats {
        match *self {}
    }

    pub(crate) const fn flush(&self, _: Duration) -> Result<(), TelemetryError> {
        match *self {}
    }

    pub(crate) const fn shutdown(&self, _: Duration) -> Result<(), TelemetryError> {
        match *self {}
    }
}

/// Whether this thread belongs to the export.
#[cfg(feature = "tracing")]
pub(super) const fn is_exporting() -> bool {
    false
}
