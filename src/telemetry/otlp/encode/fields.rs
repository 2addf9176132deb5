//! The fields of a message that is encoded already.

use super::writer::LENGTH;

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    /// Tag and length included.
    pub(crate) whole: &'a [u8],
    /// Empty for a field that has no length.
    pub(crate) value: &'a [u8],
}

/// The fields of a message; ends at the first malformed one.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self(message)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (tag, tag_len) = varint(self.0)?;
        let after_tag = self.0.get(tag_len..)?;
        let (skip, len) = match tag & 7 {
            0 => (varint(after_tag)?.1, 0),
            1 => (8, 0),
            wire_type if wire_type == u64::from(LENGTH) => {
                let (len, skip) = varint(after_tag)?;
                (skip, usize::try_from(len).ok()?)
            }
            5 => (4, 0),
            _ => return None,
        };
        let start = tag_len + skip;
        let end = start.checked_add(len)?;
        let field = Field {
            number: u32::try_from(tag >> 3).ok()?,
            whole: self.0.get(..end)?,
            value: self.0.get(start..end)?,
        };
        self.0 = &self.0[end..];
        Some(field)
    }
}

/// A varint, and its size.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}
