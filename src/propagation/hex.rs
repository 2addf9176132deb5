//! Lower-case hex, the only kind that these formats accept.

use opentelemetry::trace::{SpanId, TraceId};

const NOT_HEX: u8 = 0xff;

/// The value of each byte as a digit, [`NOT_HEX`] for those that are none.
const DIGITS: [u8; 256] = {
    let mut digits = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// Up to sixteen digits. `None` for upper case, signs and anything else that is no digit.
fn parse_u64(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut seen = 0;
    for &byte in digits {
        let digit = DIGITS[byte as usize];
        seen |= digit;
        value = (value << 4) | u64::from(digit & 0xf);
    }
    (seen & 0xf0 == 0).then_some(value)
}

pub(super) fn parse_u8(digits: &[u8]) -> Option<u8> {
    (digits.len() == 2)
        .then(|| parse_u64(digits))?
        .map(|value| value as u8)
}

/// At most 32 digits, padded with zeros on the left. `None` when all are zero.
pub(super) fn parse_short_trace_id(digits: &[u8]) -> Option<TraceId> {
    let (high, low) = digits.split_at(digits.len().saturating_sub(16));
    if high.len() > 16 {
        return None;
    }
    let id = (u128::from(parse_u64(high)?) << 64) | u128::from(parse_u64(low)?);
    (id != 0).then(|| TraceId::from(id))
}

/// At most 16 digits, padded with zeros on the left. `None` when all are zero.
pub(super) fn parse_short_span_id(digits: &[u8]) -> Option<SpanId> {
    if digits.len() > 16 {
        return None;
    }
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

/// Appends `bytes` as lower-case hex.
pub(super) fn push(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 0xf)] as char);
    }
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
