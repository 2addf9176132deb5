//! The protobuf wire format: varints, fixed-width numbers, fields with a length.

use std::time::{SystemTime, UNIX_EPOCH};

/// The first size of the buffer: the usual span fits.
const FIRST_SIZE: usize = 1024;

// Wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// Writes a protobuf message from its last byte to its first.
///
/// The length of a field precedes its content. Going backwards, the content is already there when its
/// length is written, so nothing is measured first, patched, or moved. Fields are therefore written
/// in descending order of their numbers. Numbers go up to 15, so that a tag is one byte.
///
/// Methods that leave out a zero or an empty text follow proto3's implicit presence.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
    /// What was written is `buffer[start..]`.
    start: usize,
}

impl Writer {
    pub(super) const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Forgets what was written and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.start = self.buffer.len();
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    const fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The size of the buffer in bytes, used or not.
    pub(super) const fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// The `size` bytes in front of what was written, for the caller to fill.
    #[inline]
    pub(super) fn take(&mut self, size: usize) -> &mut [u8] {
        if size > self.start {
            self.grow(size);
        }
        let end = self.start;
        self.start -= size;
        &mut self.buffer[self.start..end]
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        let written = self.len();
        let size = (written + more).next_power_of_two().max(FIRST_SIZE);
        let mut buffer = vec![0; size];
        buffer[size - written..].copy_from_slice(self.written());
        self.start = size - written;
        self.buffer = buffer;
    }

    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.take(N).copy_from_slice(&bytes);
    }

    /// A tag and the varint after it.
    #[inline]
    fn tagged(&mut self, tag: u8, value: u64) {
        if value < 0x80 {
            self.array([tag, value as u8]);
        } else {
            self.tagged_long(tag, value);
        }
    }

    #[inline(never)]
    fn tagged_long(&mut self, tag: u8, value: u64) {
        let target = self.take(1 + varint_len(value));
        target[0] = tag;
        fill_varint(&mut target[1..], value);
    }

    /// A field of type `bool`, `int64`, `uint32` or an enum.
    #[inline]
    pub(super) fn varint(&mut self, field: u8, value: u64) {
        self.tagged(field << 3 | VARINT, value);
    }

    /// A count, left out when it is 0.
    #[inline]
    pub(super) fn count(&mut self, field: u8, count: u32) {
        if count > 0 {
            self.varint(field, count.into());
        }
    }

    #[inline]
    pub(super) fn fixed64(&mut self, field: u8, value: u64) {
        self.array(value.to_le_bytes());
        self.array([field << 3 | FIXED64]);
    }

    /// Nanoseconds since 1970: 0, and then left out, for an earlier time; the latest that fits for a
    /// time after 2554.
    #[inline]
    pub(super) fn time(&mut self, field: u8, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs().saturating_mul(1_000_000_000);
        let nanos = seconds.saturating_add(since.subsec_nanos().into());
        if nanos > 0 {
            self.fixed64(field, nanos);
        }
    }

    #[inline]
    pub(super) fn fixed32(&mut self, field: u8, value: u32) {
        self.array(value.to_le_bytes());
        self.array([field << 3 | FIXED32]);
    }

    /// A `fixed32` of field 16, the first number whose tag takes two bytes.
    #[inline]
    pub(super) fn fixed32_field_16(&mut self, value: u32) {
        self.array(value.to_le_bytes());
        self.array([0x80 | FIXED32, 16 >> 4]);
    }

    /// Fields that are written already.
    #[inline]
    pub(super) fn raw(&mut self, fields: &[u8]) {
        self.take(fields.len()).copy_from_slice(fields);
    }

    /// A field of type `bytes`, or a `string` that is written even when it is empty.
    #[inline]
    pub(super) fn bytes(&mut self, field: u8, bytes: &[u8]) {
        copy(self.take(bytes.len()), bytes);
        self.length(field, bytes.len());
    }

    /// A text, left out when it is empty.
    #[inline]
    pub(super) fn text(&mut self, field: u8, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// A message of the fields that `fields` writes.
    #[inline]
    pub(super) fn message(&mut self, field: u8, fields: impl FnOnce(&mut Self)) {
        let before = self.len();
        fields(self);
        self.length(field, self.len() - before);
    }

    /// Tag and length of a field whose content, `size` bytes, has just been written.
    #[inline]
    pub(super) fn length(&mut self, field: u8, size: usize) {
        self.tagged(length_tag(field), size as u64);
    }
}

/// `copy_from_slice` without a call of `memcpy` for the usual lengths of names and values.
#[inline]
pub(super) fn copy(target: &mut [u8], source: &[u8]) {
    match source.len() {
        8..=16 => copy_ends::<8>(target, source),
        17..=32 => copy_ends::<16>(target, source),
        _ => target.copy_from_slice(source),
    }
}

/// Copies the first and the last `N` bytes: all of them when there are at most twice as many.
#[inline]
fn copy_ends<const N: usize>(target: &mut [u8], source: &[u8]) {
    let last = source.len() - N;
    target[..N].copy_from_slice(&source[..N]);
    target[last..].copy_from_slice(&source[last..]);
}

/// The tag of a field with a length.
pub(super) const fn length_tag(field: u8) -> u8 {
    field << 3 | LENGTH
}

/// The bytes that a varint takes.
pub(super) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte, and one byte for 0.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a varint into as many bytes as it takes.
#[inline]
pub(super) fn fill_varint(target: &mut [u8], mut value: u64) {
    for byte in &mut *target {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    if let Some(last) = target.last_mut() {
        *last &= 0x7f;
    }
}

/// The size of a field with `size` bytes of content.
pub(super) const fn field_size(size: usize) -> usize {
    1 + varint_len(size as u64) + size
}

/// The tag and the length of a field whose content follows.
pub(super) fn put_length(body: &mut Vec<u8>, field: u8, size: usize) {
    body.push(length_tag(field));
    put_varint(body, size as u64);
}

/// A field with a length, whole.
pub(crate) fn put_field(body: &mut Vec<u8>, field: u8, content: &[u8]) {
    put_length(body, field, content.len());
    body.extend_from_slice(content);
}

pub(super) fn put_varint(body: &mut Vec<u8>, value: u64) {
    let start = body.len();
    body.resize(start + varint_len(value), 0);
    fill_varint(&mut body[start..], value);
}
