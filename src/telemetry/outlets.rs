//! Where things go that are not settings, because they are not data.

use std::fmt;

#[cfg(feature = "_export")]
use opentelemetry_sdk::metrics::MeterProviderBuilder;
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
    pub(super) tracer_provider: Option<Change<TracerProviderBuilder>>,
    #[cfg(feature = "_export")]
    pub(super) meter_provider: Option<Change<MeterProviderBuilder>>,
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

/// A change of a provider before it is built.
pub(super) struct Change<B>(pub(super) Box<dyn FnOnce(B) -> B + Send>);

impl<B> fmt::Debug for Change<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}
