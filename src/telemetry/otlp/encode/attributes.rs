//! Attributes that are written as they come, from the first to the last.

use opentelemetry::{KeyValue, Value};

use super::{
    entry,
    fields::Fields,
    span::ATTRIBUTES,
    value::{
        INT, KEY, STRING, VALUE, any_value, cut, put_short_number, put_short_text,
        short_number_size, short_size,
    },
    writer::{field_size, put_length, put_varint, varint_len},
};

/// The attributes of a span, written. The caller sees to it that keys are unique.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    written: Vec<u8>,
    count: u32,
}

impl Attributes {
    /// Forgets all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.written.clear();
        self.count = 0;
    }

    /// The bytes of memory.
    pub(crate) const fn capacity(&self) -> usize {
        self.written.capacity()
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.written
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Adds a text, cut to `limit` characters.
    #[inline]
    pub(crate) fn text(&mut self, key: &str, text: &str, limit: usize) {
        self.count += 1;
        let text = cut(text, limit);
        match short_size(key, text) {
            Some(size) => put_short_text(self.grow(size), ATTRIBUTES, key, text),
            None => self.long_text(key, text),
        }
    }

    /// Everything before a value of so many bytes.
    fn begin(&mut self, key: &str, value: usize) {
        let key_size = match key.len() {
            0 => 0,
            size => field_size(size),
        };
        put_length(&mut self.written, ATTRIBUTES, key_size + field_size(value));
        if key_size > 0 {
            put_length(&mut self.written, KEY, key.len());
            self.written.extend_from_slice(key.as_bytes());
        }
        put_length(&mut self.written, VALUE, value);
    }

    #[inline(never)]
    fn long_text(&mut self, key: &str, text: &str) {
        let value = field_size(text.len());
        self.begin(key, value);
        put_length(&mut self.written, STRING, text.len());
        self.written.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn number(&mut self, key: &str, number: i64) {
        self.count += 1;
        let number = number.cast_unsigned();
        match short_number_size(key, number) {
            Some(size) => put_short_number(self.grow(size), ATTRIBUTES, key, number),
            None => self.long_number(key, number),
        }
    }

    #[inline(never)]
    fn long_number(&mut self, key: &str, number: u64) {
        self.begin(key, 1 + varint_len(number));
        self.written.push(INT << 3);
        put_varint(&mut self.written, number);
    }

    /// Adds any attribute, its texts cut to `limit` characters.
    pub(crate) fn push(&mut self, attribute: &KeyValue, limit: usize) {
        let key = attribute.key.as_str();
        match &attribute.value {
            Value::String(text) => return self.text(key, text.as_str(), limit),
            Value::I64(number) => return self.number(key, *number),
            _ => self.count += 1,
        }
        let fields = |w: &mut super::Writer| {
            w.message(VALUE, |w| any_value(w, &attribute.value, limit));
            w.text(KEY, key);
        };
        entry(ATTRIBUTES, fields, |entry| {
            self.written.extend_from_slice(entry)
        });
    }

    /// Adds others, whose keys are new.
    pub(crate) fn append(&mut self, others: &Self) {
        self.written.extend_from_slice(&others.written);
        self.count += others.count;
    }

    /// Removes the attribute of that key, if there is one.
    pub(crate) fn remove(&mut self, key: &str) {
        let mut start = 0;
        for attribute in Fields::new(&self.written) {
            let end = start + attribute.whole.len();
            let found = Fields::new(attribute.value).find(|field| field.number == u32::from(KEY));
            if found.map_or(&[][..], |field| field.value) == key.as_bytes() {
                self.written.drain(start..end);
                self.count -= 1;
                return;
            }
            start = end;
        }
    }

    /// So many bytes behind what was written, for the caller to fill.
    #[inline]
    fn grow(&mut self, size: usize) -> &mut [u8] {
        let start = self.written.len();
        self.written.resize(start + size, 0);
        &mut self.written[start..]
    }
}
