//! Lower-case hex, the only form that these formats accept.

use opentelemetry::trace::{SpanId, TraceId};

/// Decodes two digits to a byte. `None` if any of them is not a lower-case hex digit.
///
/// The loop has no early exit and no branch on a digit, so that the compiler vectorizes it; ids are
/// most of what the parsers read. Inlined into a parser it would not be vectorized.
#[inline(never)]
pub(super) fn decode<const DIGITS: usize, const BYTES: usize>(
    digits: &[u8; DIGITS],
) -> Option<[u8; BYTES]> {
    const { assert!(DIGITS == 2 * BYTES) };
    let mut all_digits = true;
    let values = digits.map(|digit| {
        let number = digit.wrapping_sub(b'0');
        let letter = digit.wrapping_sub(b'a');
        all_digits &= (number < 10) | (letter < 6);
        if number < 10 {
            number
        } else {
            letter.wrapping_add(10)
        }
    });
    let bytes = std::array::from_fn(|byte| values[2 * byte] << 4 | values[2 * byte + 1]);
    all_digits.then_some(bytes)
}

/// A byte of two lower-case hex digits.
pub(super) fn byte(digits: [u8; 2]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

/// At most `DIGITS` digits, padded with zeros on the left.
fn padded<const DIGITS: usize>(digits: &[u8]) -> Option<[u8; DIGITS]> {
    let mut padded = [b'0'; DIGITS];
    let start = DIGITS.checked_sub(digits.len())?;
    padded[start..].copy_from_slice(digits);
    Some(padded)
}

/// At most 32 digits, padded with zeros on the left. `None` when all are zero.
pub(super) fn parse_short_trace_id(digits: &[u8]) -> Option<TraceId> {
    let bytes = decode(&padded::<32>(digits)?)?;
    Some(TraceId::from_bytes(bytes)).filter(|id| *id != TraceId::INVALID)
}

/// At most 16 digits, padded with zeros on the left. `None` when all are zero.
pub(super) fn parse_short_span_id(digits: &[u8]) -> Option<SpanId> {
    let bytes = decode(&padded::<16>(digits)?)?;
    Some(SpanId::from_bytes(bytes)).filter(|id| *id != SpanId::INVALID)
}

/// Exactly 32 digits that are not all zero.
pub(super) fn parse_trace_id(digits: &[u8]) -> Option<TraceId> {
    (digits.len() == 32).then(|| parse_short_trace_id(digits))?
}

/// 32 digits, or the 16 of the lower half.
pub(super) fn parse_64_or_128_bit_trace_id(digits: &[u8]) -> Option<TraceId> {
    matches!(digits.len(), 16 | 32).then(|| parse_short_trace_id(digits))?
}

/// Exactly 16 digits that are not all zero.
pub(super) fn parse_span_id(digits: &[u8]) -> Option<SpanId> {
    (digits.len() == 16).then(|| parse_short_span_id(digits))?
}

/// Appends at most 16 `bytes` as lower-case hex.
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
        assert_eq!(decode(b"0f"), Some([15]));
        for bad in ["0F", "+1", "-1", " 1", "0g", "\u{e9}"] {
            let digits = bad.as_bytes().try_into().expect("two bytes");
            assert_eq!(decode::<2, 1>(digits), None, "{bad:?}");
        }
        for digits in 0..=u16::MAX {
            let digits = digits.to_be_bytes();
            assert_eq!(
                byte(digits),
                decode(&digits).map(|[byte]| byte),
                "{digits:?}"
            );
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
                let bytes = decode(&digits);
                assert_eq!(bytes.map(u64::from_be_bytes), want, "{byte:#x} at {place}");
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
