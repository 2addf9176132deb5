//! The reader of the metrics that are exported.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{PeriodicReader, exporter::PushMetricExporter, reader::MetricReader},
};

/// The SDK's reader, which collects on a thread of its own, without the type of its exporter.
#[derive(Clone)]
pub(crate) struct PushReader {
    collect: Arc<dyn Fn() -> OTelSdkResult + Send + Sync>,
    is_shut_down: Arc<AtomicBool>,
}

impl PushReader {
    /// `is_shut_down`: set by the exporter after the last collection.
    pub(crate) fn new<E: PushMetricExporter>(
        reader: PeriodicReader<E>,
        is_shut_down: Arc<AtomicBool>,
    ) -> Self {
        Self {
            collect: Arc::new(move || reader.force_flush()),
            is_shut_down,
        }
    }

    /// Collects and exports. An error when the thread has ended, such as by a panic in a callback.
    pub(crate) fn collect(&self) -> OTelSdkResult {
        (self.collect)()
    }

    /// Waits for the last collection, after the provider's shutdown has given up doing so; whether there was one.
    pub(super) fn has_collected_the_last(&self) -> bool {
        // This is asked for behind it, and fails when the thread ends.
        let _ = self.collect();
        self.is_shut_down.load(Relaxed)
    }
}

impl fmt::Debug for PushReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushReader")
    }
}
