//! Percent-encoding of baggage values (W3C Baggage §3.3.1).

use std::borrow::Cow;

/// `baggage-octet`: printable ASCII without white space, `"`, `,`, `;` and `\`.
fn is_baggage_octet(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// `None` if a byte is not a `baggage-octet` or an escape is broken. Bytes that are not UTF-8 become
/// U+FFFD.
pub(super) fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    if !value.iter().copied().all(is_baggage_octet) {
        return None;
    }
    if !value.contains(&b'%') {
        return Some(String::from_utf8_lossy(value));
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            let [high, low, tail @ ..] = tail else {
                return None;
            };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            decoded.push((digit(*high)? << 4 | digit(*low)?) as u8);
            rest = tail;
        } else {
            decoded.push(*byte);
        }
    }
    Some(Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()))
}

/// Appends `value` and escapes every byte that is not a `baggage-octet`.
pub(super) fn push_encoded(out: &mut String, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if is_baggage_octet(byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_escapes_are_refused() {
        for bad in ["%", "%4", "%zz", "a%", "%+1", "a b", "\"", "\u{e9}"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(decode(b"a%ffb").as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        let mut encoded = String::new();
        let value = "50% a,b;c=\"d\\e\" caf\u{e9}\n";
        push_encoded(&mut encoded, value);
        assert_eq!(encoded, "50%25%20a%2Cb%3Bc=%22d%5Ce%22%20caf%C3%A9%0A");
        assert_eq!(decode(encoded.as_bytes()).as_deref(), Some(value));
    }
}
