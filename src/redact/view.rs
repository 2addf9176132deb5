//! A text as it reads once its escapes are decoded, and where each byte came from.

use std::borrow::Cow;

/// A text after some rounds of decoding.
#[derive(Debug)]
pub(super) struct View<'a> {
    original: &'a [u8],
    bytes: Cow<'a, [u8]>,
    /// Where the escape of each byte starts in `original`. `None` before the first round.
    starts: Option<Vec<usize>>,
}

impl<'a> View<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            original: text.as_bytes(),
            bytes: Cow::Borrowed(text.as_bytes()),
            starts: None,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the byte at `index` starts in the original text; its length for the end of the view.
    pub(super) fn start(&self, index: usize) -> usize {
        match &self.starts {
            None => index,
            Some(starts) => starts.get(index).copied().unwrap_or(self.original.len()),
        }
    }

    /// Whether the byte at `index` is written without an escape.
    pub(super) fn is_plain(&self, index: usize) -> bool {
        let start = self.start(index);
        self.start(index + 1) == start + 1 && self.original.get(start) == self.bytes.get(index)
    }

    /// The next round; `None` if there is nothing to decode. A round decodes either the escapes of
    /// JSON and HTML or those of URLs, so that a `%26` in a value does not end it too early.
    pub(super) fn decoded(&self) -> Option<View<'a>> {
        self.decoded_by(text_escape)
            .or_else(|| self.decoded_by(percent_escape))
    }

    /// Decodes each escape that `rule` finds: the byte, and the length of its escape.
    fn decoded_by(&self, rule: fn(&[u8]) -> Option<(u8, usize)>) -> Option<View<'a>> {
        let bytes = &*self.bytes;
        let escape_at = |index: usize| match bytes[index] {
            b'%' | b'\\' | b'&' => rule(&bytes[index..]),
            _ => None,
        };
        let first = (0..bytes.len()).find(|index| escape_at(*index).is_some())?;
        let mut decoded = bytes[..first].to_vec();
        let mut starts: Vec<_> = (0..first).map(|index| self.start(index)).collect();
        let mut index = first;
        while index < bytes.len() {
            let (byte, length) = escape_at(index).unwrap_or((bytes[index], 1));
            decoded.push(byte);
            starts.push(self.start(index));
            index += length;
        }
        Some(View {
            original: self.original,
            bytes: Cow::Owned(decoded),
            starts: Some(starts),
        })
    }
}

/// `%2F` (RFC 3986 §2.1).
fn percent_escape(escape: &[u8]) -> Option<(u8, usize)> {
    match escape {
        [b'%', high, low, ..] => Some((hex(&[*high, *low])?, 3)),
        _ => None,
    }
}

/// The ASCII characters in the escapes of JSON and of programming languages (`\/`, `\u0026`, `\x26`),
/// and of HTML and XML (`&amp;`, `&#38;`, `&#x26;`).
fn text_escape(escape: &[u8]) -> Option<(u8, usize)> {
    match escape {
        [b'\\', mark @ (b'/' | b'\\' | b'"' | b'\''), ..] => Some((*mark, 2)),
        [b'\\', b'b' | b'f' | b'n' | b'r' | b't', ..] => Some((b' ', 2)),
        [b'\\', b'x', high, low, ..] => Some((ascii(hex(&[*high, *low])?)?, 4)),
        [b'\\', b'u', b'{', rest @ ..] => {
            let length = rest.iter().take(7).position(|byte| *byte == b'}')?;
            Some((ascii(hex(&rest[..length])?)?, length + 4))
        }
        [b'\\', b'u', b'0', b'0', high, low, ..] => Some((ascii(hex(&[*high, *low])?)?, 6)),
        [b'&', rest @ ..] => {
            // No entity of an ASCII character is longer.
            let length = rest.iter().take(10).position(|byte| *byte == b';')?;
            Some((entity(&rest[..length])?, length + 2))
        }
        _ => None,
    }
}

fn entity(name: &[u8]) -> Option<u8> {
    match name {
        b"amp" | b"AMP" => Some(b'&'),
        b"lt" | b"LT" => Some(b'<'),
        b"gt" | b"GT" => Some(b'>'),
        b"quot" | b"QUOT" => Some(b'"'),
        b"apos" => Some(b'\''),
        b"equals" => Some(b'='),
        b"colon" => Some(b':'),
        b"sol" => Some(b'/'),
        b"bsol" => Some(b'\\'),
        b"commat" => Some(b'@'),
        b"quest" => Some(b'?'),
        b"num" => Some(b'#'),
        b"percnt" => Some(b'%'),
        b"semi" => Some(b';'),
        [b'#', b'x' | b'X', digits @ ..] => ascii(hex(digits)?),
        [b'#', digits @ ..] if !digits.is_empty() => {
            let number = |number: u8, digit: &u8| {
                let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
                number.checked_mul(10)?.checked_add(digit)
            };
            ascii(digits.iter().try_fold(0, number)?)
        }
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let number = |number: u8, digit: &u8| {
        let digit = char::from(*digit).to_digit(16)?;
        u8::try_from(u32::from(number) << 4 | digit).ok()
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, number))?
}

fn ascii(byte: u8) -> Option<u8> {
    byte.is_ascii().then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(text: &str) -> Vec<String> {
        let mut rounds = Vec::new();
        let mut view = View::of(text);
        while let Some(next) = view.decoded() {
            rounds.push(String::from_utf8_lossy(next.bytes()).into_owned());
            view = next;
        }
        rounds
    }

    #[test]
    fn each_round_decodes_escapes_of_one_kind() {
        for (text, expected) in [
            ("plain", &[][..]),
            ("%2F%2f", &["//"]),
            ("%252F", &["%2F", "/"]),
            ("a%26\\u0026", &["a%26&", "a&&"]),
            ("&amp;amp;", &["&amp;", "&"]),
            ("&#38;&#x26;&#X26;&#038;", &["&&&&"]),
            ("\\/\\\\/\\x41\\u{26}\\u0026\\n", &["/\\/A&& ", "//A&& "]),
            ("%", &[]),
            ("%2", &[]),
            ("%zz%+1", &[]),
            ("\\q\\u12\\u{}\\u{110000}\\xff\\u00e9", &[]),
            ("&;&#;&#x;&#256;&#999999999;&nbsp;&amp", &[]),
        ] {
            assert_eq!(rounds(text), expected, "{text}");
        }
    }

    #[test]
    fn every_byte_knows_where_it_came_from() {
        let view = View::of("a%252Fb").decoded().unwrap().decoded().unwrap();
        assert_eq!(view.bytes(), b"a/b");
        assert_eq!([0, 1, 2, 3].map(|index| view.start(index)), [0, 1, 6, 7]);
        assert_eq!(
            [0, 1, 2].map(|index| view.is_plain(index)),
            [true, false, true]
        );
    }
}
