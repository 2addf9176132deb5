//! The page that Prometheus reads.

use std::{
    collections::HashSet,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        InstrumentKind, ManualReader, Pipeline, Temporality, data::ResourceMetrics,
        reader::MetricReader,
    },
};

use super::{
    encode::{FULL, Format, encode},
    families::Collision,
    names::Naming,
};
use crate::telemetry::{
    event::{Sink, TelemetryEvent},
    overflow::Overflow,
};

/// Reads metrics from their provider when somebody asks for them.
#[derive(Debug)]
pub(in crate::telemetry) struct Page {
    reader: Arc<ManualReader>,
    naming: Naming,
    events: Sink,
    overflow: Arc<Overflow>,
    /// The length of the last page that was not compressed.
    length: AtomicUsize,
    /// The metrics that were said to be left out.
    left_out: Mutex<HashSet<String>>,
}

impl Page {
    pub(in crate::telemetry) fn new(naming: Naming, events: Sink, overflow: Arc<Overflow>) -> Self {
        Self {
            reader: Arc::new(ManualReader::default()),
            naming,
            events,
            overflow,
            length: AtomicUsize::new(0),
            left_out: Mutex::default(),
        }
    }

    /// What the meter provider is built with.
    pub(in crate::telemetry) fn reader(&self) -> impl MetricReader {
        SharedReader(Arc::clone(&self.reader))
    }

    /// Collects all metrics and writes them; takes as long as there are series.
    pub(super) fn render(&self, format: Format, gzip: bool) -> Result<Bytes, String> {
        let mut metrics = ResourceMetrics::default();
        self.reader
            .collect(&mut metrics)
            .map_err(|error| format!("metrics cannot be read: {error}\n"))?;
        self.overflow.look(&metrics);
        let length = match gzip {
            true => 2 * FULL,
            false => self.length.load(Ordering::Relaxed),
        };
        let mut page = Vec::with_capacity(length);
        let mut packed = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        // Writing to a `Vec` never fails.
        let mut spill = |page: &mut Vec<u8>| {
            if let Some(packed) = &mut packed
                && packed.write_all(page).is_ok()
            {
                page.clear();
            }
        };
        let collisions = encode(&metrics, &self.naming, format, &mut page, &mut spill);
        spill(&mut page);
        drop(metrics);
        collisions.iter().for_each(|collision| self.say(collision));
        match packed {
            None => {
                self.length.store(page.len(), Ordering::Relaxed);
                Ok(page.into())
            }
            Some(packed) => packed
                .finish()
                .map(Bytes::from)
                .map_err(|error| format!("the page cannot be compressed: {error}\n")),
        }
    }

    fn say(&self, collision: &Collision) {
        let Collision { metric, name } = collision;
        let mut said = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(metric.clone()) {
            drop(said);
            self.events.emit(&TelemetryEvent::NameTaken {
                metric: metric.clone(),
                name: name.clone(),
            });
        }
    }
}

/// The provider owns its readers, and the page reads from this one.
#[derive(Debug)]
struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
