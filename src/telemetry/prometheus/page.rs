//! The page that Prometheus reads.

use std::{
    collections::HashSet,
    fmt,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
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
    overflow::{Onlooker, Overflow},
    pipeline::PushReader,
};

/// Where the metrics of a page come from.
#[derive(Debug)]
pub(in crate::telemetry) enum Source {
    /// A reader of its own.
    Own(SharedReader),
    /// What is collected for the exporter, cumulative.
    Pushed(Pushed),
}

/// The collections of the reader that pushes metrics.
#[derive(Debug)]
pub(in crate::telemetry) struct Pushed {
    pub(in crate::telemetry) reader: PushReader,
    /// Shows what is collected.
    pub(in crate::telemetry) onlooker: Arc<Onlooker>,
}

/// Makes pages of the metrics as they are when one is asked for.
#[derive(Debug)]
pub(in crate::telemetry) struct Page {
    source: Source,
    overflow: Arc<Overflow>,
    writer: Arc<Writer>,
}

#[derive(Debug)]
struct Writer {
    naming: Naming,
    events: Sink,
    /// The length of the last page that was not compressed.
    length: AtomicUsize,
    /// The metrics that were said to be left out.
    left_out: Mutex<HashSet<String>>,
}

impl Page {
    pub(in crate::telemetry) fn new(
        source: Source,
        naming: Naming,
        events: Sink,
        overflow: Arc<Overflow>,
    ) -> Self {
        let writer = Writer {
            naming,
            events,
            length: AtomicUsize::new(0),
            left_out: Mutex::default(),
        };
        Self {
            source,
            overflow,
            writer: Arc::new(writer),
        }
    }

    /// Collects all metrics and writes them; takes as long as there are series.
    pub(super) fn render(&self, format: Format, gzip: bool) -> Result<Bytes, String> {
        let unread = |error: &dyn fmt::Display| format!("metrics cannot be read: {error}\n");
        match &self.source {
            Source::Own(reader) => {
                let mut metrics = ResourceMetrics::default();
                reader
                    .collect(&mut metrics)
                    .map_err(|error| unread(&error))?;
                self.overflow.look(&metrics);
                self.writer.write(&metrics, format, gzip)
            }
            Source::Pushed(pushed) => {
                // The exporter has looked for metrics at their limit.
                let writer = Arc::clone(&self.writer);
                let (send, page) = mpsc::channel();
                pushed.onlooker.wait(Box::new(move |metrics| {
                    drop(send.send(writer.write(metrics, format, gzip)));
                }));
                // The page counts: what becomes of the export is not its business.
                let exported = pushed.reader.collect();
                page.try_recv().map_err(|missing| match exported {
                    Err(error) => unread(&error),
                    Ok(()) => unread(&missing),
                })?
            }
        }
    }
}

impl Writer {
    fn write(
        &self,
        metrics: &ResourceMetrics,
        format: Format,
        gzip: bool,
    ) -> Result<Bytes, String> {
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
        let collisions = encode(metrics, &self.naming, format, &mut page, &mut spill);
        spill(&mut page);
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

/// The provider owns its readers, and pages read from this one.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct SharedReader(Arc<ManualReader>);

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
