//! Attributes: `KeyValue` and `AnyValue`, with unique keys and values of limited length.

use std::{collections::HashSet, slice};

use opentelemetry::{Array, Key, KeyValue, Value};

use super::writer::{Writer, copy, fill_varint, length_tag, varint_len};

/// From so many attributes on, a hash table finds repeated keys. The SDK records at most 128 by
/// default.
const MANY: usize = 129;

// Fields of `KeyValue`.
pub(super) const KEY: u8 = 1;
pub(super) const VALUE: u8 = 2;

// Fields of `AnyValue`.
pub(super) const STRING: u8 = 1;
pub(super) const BOOL: u8 = 2;
pub(super) const INT: u8 = 3;
pub(super) const DOUBLE: u8 = 4;
pub(super) const ARRAY: u8 = 5;

/// The field of `ArrayValue` and `KeyValueList`.
pub(super) const VALUES: u8 = 1;

/// Writes each attribute as a `KeyValue`, strings cut to `limit` characters.
#[inline]
pub(super) fn attributes(w: &mut Writer, field: u8, attributes: &[KeyValue], limit: usize) {
    unique(
        attributes,
        |attribute| &attribute.key,
        |attribute| key_value(w, field, &attribute.key, &attribute.value, limit),
    );
}

/// One attribute.
#[inline]
pub(super) fn key_value(w: &mut Writer, field: u8, key: &Key, value: &Value, limit: usize) {
    match value {
        Value::String(text) => {
            text_attribute(w, field, key.as_str(), cut(text.as_str(), limit));
        }
        value => attribute(w, field, key.as_str(), |w| any_value(w, value, limit)),
    }
}

/// One attribute, whose value `value` writes.
#[inline]
pub(super) fn attribute(w: &mut Writer, field: u8, key: &str, value: impl FnOnce(&mut Writer)) {
    w.message(field, |w| {
        w.message(VALUE, value);
        w.text(KEY, key);
    });
}

/// One attribute that is a text, as most of them are.
#[inline]
pub(super) fn text_attribute(w: &mut Writer, field: u8, key: &str, text: &str) {
    match short_size(key, text) {
        Some(size) => put_short_text(w.take(size), field, key, text),
        None => attribute(w, field, key, |w| w.bytes(STRING, text.as_bytes())),
    }
}

/// The size of an attribute that is a text, if every length in it takes one byte.
#[inline]
pub(super) fn short_size(key: &str, text: &str) -> Option<usize> {
    // Four pairs of tag and length: `KeyValue`, key, `AnyValue`, text.
    let size = key.len() + text.len() + 8;
    (size < 0x80 && !key.is_empty()).then_some(size)
}

/// Writes an attribute of [`short_size`] into as many bytes. It is laid out at once: a fifth off the time of a
/// span.
#[inline]
pub(super) fn put_short_text(target: &mut [u8], field: u8, key: &str, text: &str) {
    let text_len = text.len() as u8;
    let (head, target) = put_short_key(target, field, key).split_at_mut(4);
    head.copy_from_slice(&[
        length_tag(VALUE),
        text_len + 2,
        length_tag(STRING),
        text_len,
    ]);
    copy(target, text.as_bytes());
}

/// The size of an attribute that is an integer, if every length in it takes one byte.
#[inline]
pub(super) fn short_number_size(key: &str, number: u64) -> Option<usize> {
    // Three pairs of tag and length, a tag, the number.
    let size = key.len() + varint_len(number) + 7;
    (size < 0x80 && !key.is_empty()).then_some(size)
}

/// Writes an attribute of [`short_number_size`] into as many bytes.
#[inline]
pub(super) fn put_short_number(target: &mut [u8], field: u8, key: &str, number: u64) {
    let (head, target) = put_short_key(target, field, key).split_at_mut(3);
    head.copy_from_slice(&[length_tag(VALUE), target.len() as u8 + 1, INT << 3]);
    fill_varint(target, number);
}

/// Writes what is in front of the value; returns where that goes.
#[inline]
fn put_short_key<'a>(target: &'a mut [u8], field: u8, key: &str) -> &'a mut [u8] {
    let size = target.len() as u8 - 2;
    let (head, target) = target.split_at_mut(4);
    head.copy_from_slice(&[length_tag(field), size, length_tag(KEY), key.len() as u8]);
    let (target_key, target) = target.split_at_mut(key.len());
    copy(target_key, key.as_bytes());
    target
}

#[inline]
pub(super) fn any_value(w: &mut Writer, value: &Value, limit: usize) {
    match value {
        Value::String(text) => w.bytes(STRING, cut(text.as_str(), limit).as_bytes()),
        Value::Bool(value) => w.varint(BOOL, (*value).into()),
        Value::I64(value) => w.varint(INT, value.cast_unsigned()),
        Value::F64(value) => w.fixed64(DOUBLE, value.to_bits()),
        Value::Array(values) => w.message(ARRAY, |w| array(w, values, limit)),
        // A type that the API may add: its text.
        other => w.bytes(STRING, cut(&other.as_str(), limit).as_bytes()),
    }
}

#[inline(never)]
fn array(w: &mut Writer, values: &Array, limit: usize) {
    fn elements<T>(w: &mut Writer, values: &[T], write: impl Fn(&mut Writer, &T)) {
        for value in values.iter().rev() {
            w.message(VALUES, |w| write(w, value));
        }
    }
    let string = |w: &mut Writer, text: &str| w.bytes(STRING, cut(text, limit).as_bytes());
    match values {
        Array::Bool(values) => elements(w, values, |w, value| w.varint(BOOL, (*value).into())),
        Array::I64(values) => elements(w, values, |w, value| w.varint(INT, value.cast_unsigned())),
        Array::F64(values) => elements(w, values, |w, value| w.fixed64(DOUBLE, value.to_bits())),
        Array::String(values) => elements(w, values, |w, value| string(w, value.as_str())),
        // A type that the API may add: its text.
        other => elements(w, slice::from_ref(&other.to_string()), |w, text| {
            string(w, text)
        }),
    }
}

/// The first `limit` characters.
#[inline]
pub(super) fn cut(text: &str, limit: usize) -> &str {
    // A text has no more characters than bytes.
    if text.len() <= limit {
        return text;
    }
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Calls `write` for the last attribute of each key, from the last to the first.
#[inline]
pub(super) fn unique<'a, T>(
    attributes: &'a [T],
    key: impl Fn(&'a T) -> &'a Key,
    mut write: impl FnMut(&'a T),
) {
    if attributes.len() >= MANY {
        return unique_of_many(attributes, key, &mut write);
    }
    let mut filter = Filter::default();
    for (index, attribute) in attributes.iter().enumerate().rev() {
        let name = key(attribute).as_str();
        let mut later = attributes[index + 1..].iter();
        if !(filter.insert(name) && later.any(|later| key(later).as_str() == name)) {
            write(attribute);
        }
    }
}

#[cold]
#[inline(never)]
fn unique_of_many<'a, T>(
    attributes: &'a [T],
    key: impl Fn(&'a T) -> &'a Key,
    write: &mut dyn FnMut(&'a T),
) {
    let mut seen = HashSet::with_capacity(attributes.len());
    for attribute in attributes.iter().rev() {
        if seen.insert(key(attribute).as_str()) {
            write(attribute);
        }
    }
}

/// A Bloom filter of keys: what it has not seen is new, and need not be compared with the others.
#[derive(Default)]
struct Filter([u64; 4]);

impl Filter {
    /// Whether the key may have been inserted before.
    #[inline]
    fn insert(&mut self, key: &str) -> bool {
        let bytes = key.as_bytes();
        // The ends of names differ ("http.request.method", "http.request.header.accept").
        let end = match bytes.last_chunk() {
            Some(end) => u64::from_le_bytes(*end) ^ bytes.len() as u64,
            None => bytes
                .iter()
                .fold(0, |end, &byte| end << 8 | u64::from(byte)),
        };
        // Fibonacci hashing: the top bits of the product depend on all bits.
        let hash = end.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let word = &mut self.0[(hash >> 6) as usize];
        let bit = 1 << (hash & 63);
        let seen = *word & bit != 0;
        *word |= bit;
        seen
    }
}
