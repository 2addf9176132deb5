//! The entries of one export request: gathered, and split when they are too large.

use std::sync::Arc;

use opentelemetry::InstrumentationScope;

use super::{
    ENTRIES,
    fields::Fields,
    header::Header,
    metrics::{Metric, pieces},
    writer::{field_size, put_length},
};

/// The entries of one request: spans, log records or metrics.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Most services have one scope or two.
    runs: Vec<Run>,
    items: u64,
    size: usize,
}

/// The entries of one scope, one after the other.
#[derive(Debug)]
struct Run {
    /// Metrics come with their header.
    source: Option<Source>,
    header: Arc<Header>,
    entries: Vec<u8>,
}

/// Who wrote the entries.
#[derive(Clone, Debug)]
struct Source {
    scope: InstrumentationScope,
    target: Option<String>,
}

impl Batch {
    /// Adds the entry of a span or of a log record. Log records have the `target` in place of the
    /// scope's name.
    pub(crate) fn push(
        &mut self,
        scope: &InstrumentationScope,
        target: Option<&str>,
        entry: &[u8],
    ) {
        let is_same = |run: &Run| {
            run.source
                .as_ref()
                .is_some_and(|source| source.target.as_deref() == target && source.scope == *scope)
        };
        let index = self.runs.iter().position(is_same).unwrap_or_else(|| {
            self.runs.push(Run {
                source: Some(Source {
                    scope: scope.clone(),
                    target: target.map(str::to_owned),
                }),
                header: Arc::new(Header::scope(scope, target)),
                entries: Vec::new(),
            });
            self.runs.len() - 1
        });
        self.add(index, entry, 1);
    }

    /// Adds the entry of a metric.
    pub(crate) fn push_metric(&mut self, metric: &Metric<'_>) {
        self.push_encoded(&metric.scope, &metric.entry, metric.points);
    }

    /// Adds the entry of `items` items below a header, which one batch has once.
    pub(crate) fn push_encoded(&mut self, header: &Arc<Header>, entry: &[u8], items: u64) {
        let is_same = |run: &Run| Arc::ptr_eq(&run.header, header);
        let index = self.runs.iter().position(is_same).unwrap_or_else(|| {
            self.runs.push(Run {
                source: None,
                header: Arc::clone(header),
                entries: Vec::new(),
            });
            self.runs.len() - 1
        });
        self.add(index, entry, items);
    }

    fn add(&mut self, run: usize, entry: &[u8], items: u64) {
        self.runs[run].entries.extend_from_slice(entry);
        self.items += items;
        self.size += entry.len();
    }

    /// The number of spans, log records or data points.
    pub(crate) const fn items(&self) -> u64 {
        self.items
    }

    /// The size of the entries in bytes.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Gives back the memory that no entry came for, if that is much.
    pub(crate) fn shrink(&mut self) {
        for run in &mut self.runs {
            let entries = &mut run.entries;
            if entries.capacity() - entries.len() > entries.len() / 8 {
                entries.shrink_to_fit();
            }
        }
    }

    /// An empty batch with room for as much of the same scopes: a buffer that grows would be moved while
    /// others wait for it.
    pub(crate) fn like(&self) -> Self {
        let runs = self.runs.iter().filter(|run| !run.entries.is_empty());
        let runs = runs.map(|run| Run {
            source: run.source.clone(),
            header: Arc::clone(&run.header),
            entries: Vec::with_capacity(run.entries.len()),
        });
        Self {
            runs: runs.collect(),
            ..Self::default()
        }
    }

    /// Batches of about half the size; `None` when there is only one item.
    ///
    /// `count` tells how many items the message of an entry holds.
    pub(crate) fn split(&self, count: fn(&[u8]) -> u64) -> Option<Vec<Self>> {
        let [mut first, mut second] = [Self::default(), Self::default()];
        for run in &self.runs {
            for entry in Fields::new(&run.entries) {
                let fits = first.size == 0 || first.size + entry.whole.len() <= self.size / 2;
                let half = match fits && second.size == 0 {
                    true => &mut first,
                    false => &mut second,
                };
                half.push_encoded(&run.header, entry.whole, count(entry.value));
            }
        }
        match second.size {
            0 => first.split_metric(),
            _ => Some(vec![first, second]),
        }
    }

    /// The only entry of a batch in pieces, when it is a metric with several data points.
    fn split_metric(&self) -> Option<Vec<Self>> {
        let mut runs = self.runs.iter().filter(|run| !run.entries.is_empty());
        let run = runs.next().filter(|_| self.items > 1)?;
        let pieces = pieces(Fields::new(&run.entries).next()?, self.size / 2);
        let batches = pieces.map(|(entry, points)| {
            let mut batch = Self::default();
            batch.push_encoded(&run.header, &entry, points);
            batch
        });
        Some(batches.collect())
    }

    /// The body of the export request before compression, behind so many free bytes.
    pub(crate) fn request(&self, resource: &Header, free: usize) -> Vec<u8> {
        let runs = || self.runs.iter().filter(|run| !run.entries.is_empty());
        let scope_size = |run: &Run| run.header.around(run.entries.len());
        let scopes = runs().map(|run| field_size(scope_size(run)));
        let resource_size = resource.around(scopes.sum());
        let mut body = Vec::with_capacity(free + field_size(resource_size));
        body.resize(free, 0);
        put_length(&mut body, 1, resource_size);
        resource.put(&mut body, |body| {
            for run in runs() {
                put_length(body, ENTRIES, scope_size(run));
                run.header
                    .put(body, |body| body.extend_from_slice(&run.entries));
            }
        });
        body
    }
}
