//! Lower-case hex, the only kind that these formats accept.

use opentelemetry::trace::{SpanId, TraceId};

/// Sixteen times the same byte.
const fn repeat(byte: u8) -> u128 {
    u128::from_ne_bytes([byte; 16])
}

/// Up to sixteen digits. `None` for more of them, and for upper case, signs and anything else that
/// is no digit.
///
/// All sixteen at once, because ids are most of what the parsers read: a byte a digit, and no byte
/// ever carries into the next.
fn parse_u64(digits: &[u8]) -> Option<u64> {
    let ascii = match digits.try_into() {
        Ok(all) => all,
        Err(_) => {
            let mut padded = [b'0'; 16];
            let start = padded.len().checked_sub(digits.len())?;
            padded[start..].copy_from_slice(digits);
            padded
        }
    };
    let ascii = u128::from_be_bytes(ascii);
    // 1 for a letter: `0` to `9` are 0x30 to 0x39, `a` to `f` are 0x61 to 0x66.
    let letters = (ascii & repeat(0x40)) >> 6;
    let values = (ascii & repeat(0x0f)) + (letters << 3) + letters;
    let is_hex = ascii & repeat(0xf0) == repeat(0x30) + (letters << 5) + (letters << 4)
        // Letters, and only letters, stand for 10 and more, and none for more than 15.
        && (values + repeat(6)) & repeat(0x10) == letters << 4
        && values & repeat(0xf0) == 0;
    let pairs = (values | values >> 4) & const { u128::MAX / 0x101 };
    let fours = (pairs | pairs >> 8) & const { u128::MAX / 0x1_0001 };
    let eights = (fours | fours >> 16) & const { u128::MAX / 0x1_0000_0001 };
    is_hex.then_some((eights | eights >> 32) as u64)
}

pub(super) fn parse_u8(digits: &[u8]) -> Option<u8> {
    (digits.len() == 2)
        .then(|| parse_u64(digits))?
        .map(|value| value as u8)
}

/// At most 32 digits, padded with zeros on the left. `None` when all are zero.
pub(super) fn parse_short_trace_id(digits: &[u8]) -> Option<TraceId> {
    let (high, low) = digits.split_at(digits.len().saturating_sub(16));
    let id = (u128::from(parse_u64(high)?) << 64) | u128::from(parse_u64(low)?);
    (id != 0).then(|| TraceId::from(id))
}

/// At most 16 digits, padded with zeros on the left. `None` when all are zero.
pub(super) fn parse_short_span_id(digits: &[u8]) -> Option<SpanId> {
    parse_u64(digits).filter(|&id| id != 0).map(SpanId::from)
}

/// Exactly 32 digits that are not all zero.
pub(super) fn parse_trace_id(digits: &[u8]) -> Option<TraceId> {
    (digits.len() == 32).then(|| parse_short_trace_id(digits))?
}

/// 32 digits, or 16 that stand for the lower half.
pub(super) fn parse_64_or_128_bit_trace_id(digits: &[u8]) -> Option<TraceId> {
    matches!(digits.len(), 16 | 32).then(|| parse_short_trace_id(digits))?
}

/// Exactly 16 digits that are not all zero.
pub(super) fn parse_span_id(digits: &[u8]) -> Option<SpanId> {
    (digits.len() == 16).then(|| parse_short_span_id(digits))?
}

/// Appends up to sixteen `bytes` as lower-case hex.
pub(super) fn push(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 32];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    out.extend(std::str::from_utf8(&hex[..bytes.len() * 2]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_digits_are_hex() {
        assert_eq!(parse_u8(b"0f"), Some(15));
        for bad in ["0F", "+1", "-1", " 1", "1", "", "001", "0g", "\u{e9}"] {
            assert_eq!(parse_u8(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn each_byte_in_each_place_is_a_digit_or_not() {
        for place in 0..16 {
            for byte in 0..=u8::MAX {
                let mut digits = *b"0123456789abcdef";
                digits[place] = byte;
                let digit = match byte {
                    b'0'..=b'9' => Some(byte - b'0'),
                    b'a'..=b'f' => Some(byte - b'a' + 10),
                    _ => None,
                };
                let shift = 60 - 4 * place;
                let others = 0x0123_4567_89ab_cdef & !(0xf << shift);
                let want = digit.map(|digit| others | u64::from(digit) << shift);
                assert_eq!(parse_u64(&digits), want, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn ids_of_zeros_are_invalid() {
        assert_eq!(parse_trace_id(&[b'0'; 32]), None);
        assert_eq!(parse_span_id(&[b'0'; 16]), None);
    }

    #[test]
    fn short_ids_are_padded_on_the_left() {
        assert_eq!(parse_short_trace_id(b"ab"), Some(TraceId::from(0xab)));
        assert_eq!(
            parse_short_trace_id(b"10000000000000000"),
            Some(TraceId::from(1 << 64))
        );
        assert_eq!(parse_short_span_id(b"7"), Some(SpanId::from(7)));
        assert_eq!(parse_short_trace_id(&[b'1'; 33]), None);
    }

    #[test]
    fn ids_are_written_with_leading_zeros() {
        let mut out = String::new();
        push(&mut out, &SpanId::from(0xab).to_bytes());
        assert_eq!(out, "00000000000000ab");
    }
}
