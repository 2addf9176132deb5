//! OTLP's protobuf, written straight from what the SDK recorded.
//!
//! The thread that ends a span encodes it, and the SDK's memory is free again where it was taken. One
//! span or log record becomes an *entry*: tag, length and message of one element of
//! `ScopeSpans.spans` or `ScopeLogs.log_records`. A run of entries can be cut between any two of them;
//! [`Batch::request`] puts the headers of resource and scope around them.
//!
//! Keys are unique in OTLP: the last value of a repeated key is written. Limits of the length of values
//! apply while they are written.
//!
//! The module uses nothing of the crate, so that benchmark and fuzz target include it by its path.

mod attributes;
mod batch;
mod fields;
mod header;
#[cfg(feature = "logs")]
mod log_record;
mod metrics;
mod span;
#[cfg(test)]
mod tests;
mod value;
mod writer;

use std::{cell::RefCell, time::Duration};

pub(crate) use self::{
    attributes::Attributes,
    batch::Batch,
    fields::Fields,
    header::Header,
    metrics::{data_points, metrics},
    span::Recorded,
    writer::put_field,
};
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::SdkLogRecord;

use writer::Writer;

/// The field of the entries in the message of their scope.
const ENTRIES: u8 = 2;

/// A larger buffer is given back after use, so that a huge span does not hold memory on every thread.
const KEPT: usize = 64 * 1024;

thread_local! {
    static WRITER: RefCell<Writer> = const { RefCell::new(Writer::new()) };
}

/// Gives `take` the entry of a span.
///
/// String values of attributes are cut to `value_limit` characters: the
/// `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT` of the specification.
pub(crate) fn span<R>(
    span: &Recorded<'_>,
    value_limit: Option<usize>,
    take: impl FnMut(&[u8]) -> R,
) -> R {
    let limit = value_limit.unwrap_or(usize::MAX);
    entry(ENTRIES, |w| span::span(w, span, limit), take)
}

/// Gives `take` the entry of a log record.
///
/// Attributes beyond `most_attributes` are dropped and counted; string values are cut to `value_limit`
/// characters, byte arrays to as many bytes: the `OTEL_LOGRECORD_ATTRIBUTE_*_LIMIT` of the specification. The body has no
/// limit.
#[cfg(feature = "logs")]
pub(crate) fn log_record<R>(
    record: &SdkLogRecord,
    most_attributes: usize,
    value_limit: Option<usize>,
    take: impl FnMut(&[u8]) -> R,
) -> R {
    let limit = value_limit.unwrap_or(usize::MAX);
    entry(
        ENTRIES,
        |w| log_record::log_record(w, record, most_attributes, limit),
        take,
    )
}

/// The message of an entry.
pub(crate) fn message(entry: &[u8]) -> &[u8] {
    Fields::new(entry).next().map_or(&[], |field| field.value)
}

/// The name of the span whose entry this is.
pub(crate) fn span_name(entry: &[u8]) -> &str {
    let name = Fields::new(message(entry)).find(|field| field.number == 5);
    name.and_then(|name| str::from_utf8(name.value).ok())
        .unwrap_or_default()
}

/// The time between start and end of the span whose entry this is.
pub(crate) fn span_duration(entry: &[u8]) -> Duration {
    let nanos = |number| {
        let mut fields = Fields::new(message(entry));
        // Eight bytes follow the tag.
        let bytes = fields
            .find(|field| field.number == number)?
            .whole
            .get(1..)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let (start, end) = (nanos(7).unwrap_or_default(), nanos(8).unwrap_or_default());
    Duration::from_nanos(end.saturating_sub(start))
}

/// Encodes a message into a buffer that the thread keeps.
#[inline]
fn entry<R>(field: u8, fields: impl Fn(&mut Writer), mut take: impl FnMut(&[u8]) -> R) -> R {
    let mut encode = |w: &mut Writer| {
        w.clear();
        w.message(field, &fields);
        take(w.written())
    };
    let taken = WRITER.try_with(|kept| {
        let mut writer = kept.try_borrow_mut().ok()?;
        let taken = encode(&mut writer);
        if writer.capacity() > KEPT {
            *writer = Writer::new();
        }
        Some(taken)
    });
    // A span that ends while `take` runs, or while the thread ends, gets a buffer of its own.
    let taken = taken.ok().flatten();
    taken.unwrap_or_else(|| encode(&mut Writer::new()))
}
