//! Base64 of both alphabets (RFC 4648 §4, §5), padded or not.

const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The value of every byte that is not a letter.
const NONE: u8 = u8::MAX;

/// The value of each letter, in both alphabets.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < 64 {
        values[URL_SAFE[value] as usize] = value as u8;
        value += 1;
    }
    values[b'+' as usize] = 62;
    values[b'/' as usize] = 63;
    values
};

fn value(letter: u8) -> Option<u32> {
    let value = VALUES[usize::from(letter)];
    (value != NONE).then_some(u32::from(value))
}

/// The decoded bytes; `None` when a byte is in neither alphabet.
pub(crate) fn decode(encoded: impl IntoIterator<Item = u8>) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0, 0);
    for letter in encoded {
        if letter == b'=' {
            break;
        }
        bits = bits << 6 | value(letter)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

/// Whether a byte is a letter of either alphabet. A slash is not: in a URL it splits segments.
pub(super) const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+')
}

/// The text at the start of some bytes, in base64.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// The bytes that encode it, padding included.
    pub(super) length: usize,
}

impl Text {
    /// Decodes up to the first byte that is neither a letter nor a slash, or up to the first one
    /// that does not decode to UTF-8. Slashes are letters or are skipped.
    pub(super) fn at(encoded: &[u8], slashes_are_letters: bool) -> Self {
        let ends = |byte: &u8| !is_letter(*byte) && *byte != b'/';
        let length = encoded.iter().position(ends).unwrap_or(encoded.len());
        // Slashes at the end are of the path in either case.
        let last = encoded[..length].iter().rposition(|byte| *byte != b'/');
        let length = last.map_or(0, |last| last + 1);
        let is_used = |byte: &u8| slashes_are_letters || *byte != b'/';
        let letters = encoded[..length].iter().copied().filter(is_used);
        let decoded = decode(letters).unwrap_or_default();
        match String::from_utf8(decoded) {
            Ok(text) => {
                let padding = encoded[length..].iter().take_while(|byte| **byte == b'=');
                Self {
                    text,
                    length: length + padding.count(),
                }
            }
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let letters = (valid * 8).div_ceil(6);
                let used = encoded.iter().enumerate().filter(|(_, byte)| is_used(byte));
                let mut decoded = error.into_bytes();
                decoded.truncate(valid);
                Self {
                    text: String::from_utf8(decoded).unwrap_or_default(),
                    length: used.map(|(index, _)| index).nth(letters).unwrap_or(length),
                }
            }
        }
    }
}

/// Whether the decoded text may begin with an ASCII letter.
fn begins_with_letter(encoded: &[u8]) -> bool {
    matches!(
        encoded.first(),
        Some(b'Q'..=b'W' | b'Y'..=b'Z' | b'a'..=b'e')
    )
}

/// Whether the decoded text begins like a URL: `scheme:/`. Most texts fail at their first letters.
#[inline]
pub(super) fn begins_with_scheme(encoded: &[u8]) -> bool {
    begins_with_letter(encoded) && goes_on_with_scheme(encoded)
}

fn goes_on_with_scheme(encoded: &[u8]) -> bool {
    // No scheme is that short, and most texts end before that, such as `cat.jpg`.
    let Some((first, _)) = encoded.split_first_chunk::<4>() else {
        return false;
    };
    if first.iter().any(|letter| value(*letter).is_none()) {
        return false;
    }
    // Enough for `abcdefghi:/`.
    const LONGEST: usize = 16;
    let letters = encoded.iter().copied().filter(|letter| *letter != b'/');
    let (mut bits, mut count) = (0_u32, 0);
    let (mut length, mut colon) = (0, false);
    for letter in letters.take(LONGEST) {
        let Some(value) = value(letter) else {
            return false;
        };
        bits = bits << 6 | value;
        count += 6;
        if count < 8 {
            continue;
        }
        count -= 8;
        match (bits >> count & 0xff) as u8 {
            byte if colon => return byte == b'/',
            byte if byte.is_ascii_alphabetic() => length += 1,
            b'0'..=b'9' | b'+' | b'-' | b'.' if length > 0 => length += 1,
            b':' if length > 1 => colon = true,
            _ => return false,
        }
    }
    false
}

/// Encodes in the URL-safe alphabet, without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0, |group, (index, byte)| {
            group | u32::from(*byte) << (16 - 8 * index)
        });
        for letter in 0..=chunk.len() {
            let index = group >> (18 - 6 * letter) & 0x3f;
            encoded.push(char::from(URL_SAFE[index as usize]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        for (encoded, decoded) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("-_8", &[0xfb, 0xff]),
            ("+/8=", &[0xfb, 0xff]),
        ] {
            assert_eq!(
                decode(encoded.bytes()).as_deref(),
                Some(decoded),
                "{encoded}"
            );
        }
        assert_eq!(decode("a:b".bytes()), None);
    }

    #[test]
    fn the_first_letter_tells_what_cannot_be_a_scheme() {
        for byte in 0..=127_u8 {
            if byte.is_ascii_alphabetic() {
                assert!(begins_with_letter(encode(&[byte]).as_bytes()), "{byte}");
            }
        }
        for other in ["AAA", "fff", ""] {
            assert!(!begins_with_letter(other.as_bytes()));
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for length in 0..9 {
            let bytes: Vec<u8> = (250..=255).chain(0..3).take(length).collect();
            let encoded = encode(&bytes);
            assert_eq!(decode(encoded.bytes()), Some(bytes), "{encoded}");
        }
    }
}
