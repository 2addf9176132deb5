//! Metrics that are encoded already: read entry by entry, and cut into pieces when they are large.

use std::{borrow::Cow, iter, sync::Arc};

use super::{
    ENTRIES,
    fields::{Field, Fields},
    header::Header,
    writer::put_length,
};

/// The entry of one metric, or of some of its data points.
#[derive(Debug)]
pub(crate) struct Metric<'a> {
    pub(super) scope: Arc<Header>,
    pub(super) entry: Cow<'a, [u8]>,
    pub(super) points: u64,
}

impl Metric<'_> {
    pub(crate) const fn points(&self) -> u64 {
        self.points
    }

    /// The size of the entry in bytes.
    pub(crate) fn size(&self) -> usize {
        self.entry.len()
    }
}

/// The metrics of an `ExportMetricsServiceRequest`, those of more than `most` bytes in pieces of fewer
/// data points.
pub(crate) fn metrics(request: &[u8], most: usize) -> impl Iterator<Item = Metric<'_>> {
    let resources = Fields::new(request).filter(|field| field.number == 1);
    let scopes = resources.flat_map(|resource| Fields::new(resource.value).filter(is_entry));
    scopes.flat_map(move |scope| {
        let header = Arc::new(Header::read(scope.value));
        let metrics = Fields::new(scope.value).filter(is_entry);
        let entries = metrics.flat_map(move |metric| pieces(metric, most));
        entries.map(move |(entry, points)| Metric {
            scope: Arc::clone(&header),
            entry,
            points,
        })
    })
}

fn is_entry(field: &Field<'_>) -> bool {
    field.number == u32::from(ENTRIES)
}

/// The number of data points of a metric's message.
pub(crate) fn data_points(metric: &[u8]) -> u64 {
    let data = Fields::new(metric).filter(is_data);
    let points = data.flat_map(|data| Fields::new(data.value).filter(is_point));
    points.count() as u64
}

/// `Metric.data`: gauge, sum, histogram, exponential histogram or summary.
fn is_data(field: &Field<'_>) -> bool {
    matches!(field.number, 5 | 7 | 9..=11)
}

/// `data_points`, in each kind of data.
fn is_point(field: &Field<'_>) -> bool {
    field.number == 1
}

/// A metric's entry, or several with some of its data points each, with their numbers of points.
pub(super) fn pieces<'a>(
    metric: Field<'a>,
    most: usize,
) -> Box<dyn Iterator<Item = (Cow<'a, [u8]>, u64)> + 'a> {
    let data = Fields::new(metric.value).find(is_data);
    let (Some(data), true) = (data, metric.whole.len() > most) else {
        let points = data_points(metric.value);
        return Box::new(iter::once((Cow::Borrowed(metric.whole), points)));
    };
    let mut points = Fields::new(data.value).filter(is_point).peekable();
    Box::new(iter::from_fn(move || {
        points.peek()?;
        let (mut taken, mut count) = (Vec::new(), 0);
        while let Some(point) =
            points.next_if(|point| count == 0 || taken.len() + point.whole.len() <= most)
        {
            taken.extend_from_slice(point.whole);
            count += 1;
        }
        Some((Cow::Owned(piece(metric, data, &taken)), count))
    }))
}

/// The entry of a metric with these data points alone.
fn piece(metric: Field<'_>, data: Field<'_>, points: &[u8]) -> Vec<u8> {
    let mut kept = points.to_vec();
    let others = Fields::new(data.value).filter(|field| !is_point(field));
    others.for_each(|field| kept.extend_from_slice(field.whole));
    let mut message = Vec::new();
    for field in Fields::new(metric.value) {
        if is_data(&field) {
            put_length(&mut message, field.number as u8, kept.len());
            message.extend_from_slice(&kept);
        } else {
            message.extend_from_slice(field.whole);
        }
    }
    let mut entry = Vec::new();
    put_length(&mut entry, ENTRIES, message.len());
    entry.extend_from_slice(&message);
    entry
}
