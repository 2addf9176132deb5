//! Where things go that are not settings, because they are not data.

use std::fmt;

use opentelemetry_sdk::trace::TracerProviderBuilder;

use super::event::Sink;
#[cfg(all(feature = "console", feature = "logs"))]
use crate::console::ConsoleLogExporter;
#[cfg(feature = "console")]
use crate::console::{ConsoleExporter, ConsoleMetricExporter};

/// What the builder was given besides settings.
#[derive(Debug, Default)]
pub(super) struct Outlets {
    pub(super) events: Sink,
    #[cfg(feature = "console")]
    pub(super) terminals: Terminals,
    pub(super) tracer_provider: Option<Change>,
}

/// What prints each signal; `None` prints it to the standard output.
#[cfg(feature = "console")]
#[derive(Debug, Default)]
pub(super) struct Terminals {
    pub(super) traces: Option<ConsoleExporter>,
    pub(super) metrics: Option<ConsoleMetricExporter>,
    #[cfg(feature = "logs")]
    pub(super) logs: Option<ConsoleLogExporter>,
}

/// A change of the tracer provider before it is built.
pub(super) struct Change(
    pub(super) Box<dyn FnOnce(TracerProviderBuilder) -> TracerProviderBuilder + Send>,
);

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}
