//! `LogRecord` of `opentelemetry/proto/logs/v1/logs.proto`.

use arrayvec::ArrayVec;
use opentelemetry::{Key, logs::AnyValue};
use opentelemetry_sdk::logs::SdkLogRecord;

use super::{
    value::{ARRAY, BOOL, DOUBLE, INT, STRING, VALUES, attribute, cut, text_attribute, unique},
    writer::Writer,
};

/// How deep lists and maps may lie in each other; what is deeper is left empty.
///
/// Protobuf decoders refuse a request with messages more than 100 deep (C++, Java, prost), and a map
/// takes three.
const MAX_DEPTH: usize = 30;

/// Records with no more attributes are encoded without an allocation.
const FEW: usize = 32;

// Further fields of `AnyValue`.
const MAP: u8 = 6;
const BYTES: u8 = 7;

/// The fields of a `LogRecord`.
pub(super) fn log_record(w: &mut Writer, record: &SdkLogRecord, most: usize, limit: usize) {
    w.text(12, record.event_name().unwrap_or_default());
    if let Some(time) = record.observed_timestamp() {
        w.time(11, time);
    }
    if let Some(context) = record.trace_context() {
        w.bytes(10, &context.span_id.to_bytes());
        w.bytes(9, &context.trace_id.to_bytes());
        let flags = context.trace_flags.unwrap_or_default().to_u8();
        if flags > 0 {
            w.fixed32(8, flags.into());
        }
    }
    let dropped = record.attributes_iter().skip(most).count();
    w.count(7, u32::try_from(dropped).unwrap_or(u32::MAX));
    attributes(w, record, most, limit);
    if let Some(body) = record.body() {
        w.message(5, |w| any_value(w, body, usize::MAX, MAX_DEPTH));
    }
    w.text(3, record.severity_text().unwrap_or_default());
    w.count(
        2,
        record.severity_number().map_or(0, |number| number as u32),
    );
    if let Some(time) = record.timestamp() {
        w.time(1, time);
    }
}

fn attributes(w: &mut Writer, record: &SdkLogRecord, most: usize, limit: usize) {
    let mut write = |attributes: &[&(Key, AnyValue)]| {
        unique(
            attributes,
            |attribute| &attribute.0,
            |(key, value)| key_value(w, 6, key, value, limit, MAX_DEPTH),
        );
    };
    // The SDK gives them only from the first to the last.
    let kept = || record.attributes_iter().take(most);
    let few: ArrayVec<_, FEW> = kept().take(FEW).collect();
    if few.is_full() {
        write(&kept().collect::<Vec<_>>());
    } else {
        write(&few);
    }
}

fn key_value(w: &mut Writer, field: u8, key: &Key, value: &AnyValue, limit: usize, depth: usize) {
    match value {
        AnyValue::String(text) => text_attribute(w, field, key.as_str(), cut(text.as_str(), limit)),
        value => attribute(w, field, key.as_str(), |w| {
            any_value(w, value, limit, depth)
        }),
    }
}

/// The value; strings of more than `limit` characters and byte arrays of more than `limit` bytes are
/// cut.
fn any_value(w: &mut Writer, value: &AnyValue, limit: usize, depth: usize) {
    match value {
        AnyValue::String(text) => w.bytes(STRING, cut(text.as_str(), limit).as_bytes()),
        AnyValue::Boolean(value) => w.varint(BOOL, (*value).into()),
        AnyValue::Int(value) => w.varint(INT, value.cast_unsigned()),
        AnyValue::Double(value) => w.fixed64(DOUBLE, value.to_bits()),
        AnyValue::Bytes(bytes) => w.bytes(BYTES, &bytes[..bytes.len().min(limit)]),
        AnyValue::ListAny(_) | AnyValue::Map(_) if depth == 0 => {}
        AnyValue::ListAny(values) => w.message(ARRAY, |w| {
            for value in values.iter().rev() {
                w.message(VALUES, |w| any_value(w, value, limit, depth - 1));
            }
        }),
        AnyValue::Map(values) => w.message(MAP, |w| {
            for (key, value) in values.iter() {
                key_value(w, VALUES, key, value, limit, depth - 1);
            }
        }),
        // A type that the API may add: its text.
        other => w.bytes(STRING, cut(&format!("{other:?}"), limit).as_bytes()),
    }
}
