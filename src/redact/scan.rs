//! Finds the secrets in a view of a text.

use std::{borrow::Cow, ops::Range};

use super::{
    Kind, Redaction, SourceUrls,
    authority::{Authority, is_delimiter, is_slash},
    base64,
    edits::{Edits, REDACTED},
    view::View,
};

/// Longer keys are not sensitive, whatever their end is.
const LONGEST_KEY: usize = 128;

/// In letters: 6 bytes. Shorter signatures are not told apart from names.
pub(super) const SHORTEST_SIGNATURE: usize = 8;

/// One pass over a view.
pub(super) struct Scan<'a> {
    pub(super) redaction: &'a Redaction,
    pub(super) view: &'a View<'a>,
    pub(super) kind: Kind,
    /// How many texts in base64 this one is in.
    pub(super) depth: u8,
    pub(super) edits: &'a mut Edits,
    /// Up to where there is no fragment left, of URLs with and without escapes.
    pub(super) without_fragment: [usize; 2],
}

impl Scan<'_> {
    pub(super) fn run(mut self) {
        let bytes = self.view.bytes();
        // Whether this is the URL of a source, of which all but the credentials is recorded.
        let mut is_verbatim = self.is_verbatim() && self.kind == Kind::Source;
        let mut index = 0;
        while index < bytes.len() {
            let byte = bytes[index];
            let mut next = index + 1;
            if self.ends_url(index) {
                is_verbatim = self.is_verbatim() && self.kind == Kind::Source;
            }
            match byte {
                b':' => {
                    if let Some(authority) = Authority::at(bytes, index) {
                        self.credentials(&authority);
                        is_verbatim |= self.is_verbatim();
                        next = self.rest_of_url(&authority).unwrap_or(next);
                    } else {
                        next = self.member(index).unwrap_or(next);
                    }
                }
                b'/' | b'\\' => {
                    if let Some(authority) = Authority::without_scheme(bytes, index) {
                        self.credentials(&authority);
                    }
                    if !is_verbatim {
                        self.path_signature(index);
                    }
                }
                b'=' if !is_verbatim => next = self.pair(index).unwrap_or(next),
                b'>' => next = self.xml_element(index).unwrap_or(next),
                _ => {}
            }
            let begins_word = index == 0 || !base64::is_letter(bytes[index - 1]);
            if !is_verbatim && begins_word && base64::begins_with_scheme(&bytes[index..]) {
                next = next.max(self.base64(index));
            }
            index = next;
        }
    }

    fn is_verbatim(&self) -> bool {
        self.redaction.source_urls == SourceUrls::Full
    }

    fn replace(&mut self, range: Range<usize>, new: impl Into<Cow<'static, str>>) {
        let range = self.view.start(range.start)..self.view.start(range.end);
        self.edits.replace(range, new);
    }

    /// Returns where to go on.
    fn redact(&mut self, range: Range<usize>) -> Option<usize> {
        let end = range.end;
        if range.is_empty() {
            return None;
        }
        self.replace(range, REDACTED);
        Some(end)
    }

    /// Whether a URL cannot go on at `index`. In a query, only an escaped `&` belongs to a URL.
    fn ends_url(&self, index: usize) -> bool {
        let byte = self.view.bytes()[index];
        is_delimiter(byte) || byte == b'&' && self.kind == Kind::Query && self.view.is_plain(index)
    }

    /// Where the URL that starts at `start` ends. One in escapes ends where they do.
    fn end_of_url(&self, start: usize, is_plain: bool) -> usize {
        let bytes = self.view.bytes();
        let ends = |index: &usize| {
            self.ends_url(*index)
                || !is_plain && bytes[*index] == b'&' && self.view.is_plain(*index)
        };
        (start..bytes.len()).find(ends).unwrap_or(bytes.len())
    }

    fn credentials(&mut self, authority: &Authority) {
        let Some(at) = authority.at else { return };
        if self.redaction.source_urls == SourceUrls::OriginOnly && authority.colon.is_some() {
            self.replace(authority.start..at + 1, "");
        } else if authority.start < at {
            // Semconv url.full: `https://REDACTED:REDACTED@host/`.
            self.replace(authority.start..at, "REDACTED:REDACTED");
        }
    }

    /// Handles what follows the authority. Returns where to go on, if nothing of it is kept.
    fn rest_of_url(&mut self, authority: &Authority) -> Option<usize> {
        let colon = authority.colon?;
        if self.is_verbatim() {
            return None;
        }
        let is_plain = self.view.is_plain(colon) && self.view.is_plain(colon + 1);
        if colon < self.without_fragment[usize::from(is_plain)] {
            return None;
        }
        let end = self.end_of_url(authority.end, is_plain);
        match self.redaction.source_urls {
            SourceUrls::OriginOnly if authority.host_is_empty() => {
                self.redact(authority.scheme..end)
            }
            SourceUrls::OriginOnly => {
                self.replace(authority.end..end, "");
                Some(end)
            }
            SourceUrls::Redacted | SourceUrls::Full => {
                // The escaped `#` of a URL without escapes belongs to its path.
                self.without_fragment[usize::from(is_plain)] = end;
                let bytes = self.view.bytes();
                let begins = |index: &usize| {
                    bytes[*index] == b'#'
                        && (!is_plain || self.view.is_plain(*index))
                        && !is_in_entity(bytes, *index)
                };
                let fragment = (authority.end..end).find(begins)?;
                self.replace(fragment..end, "");
                None
            }
        }
    }

    /// `key=value`, in a query or anywhere else, and `key = value`.
    fn pair(&mut self, equals: usize) -> Option<usize> {
        let bytes = self.view.bytes();
        if !self.redaction.is_sensitive(key_before(bytes, equals)) {
            return None;
        }
        let mut value = equals + 1;
        if let Some(quoted) = quoted_value(bytes, value) {
            return self.redact(quoted);
        }
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        if bytes[..equals].last().is_some_and(is_blank) {
            let blanks = bytes[value..].iter().take_while(|byte| is_blank(byte));
            value += blanks.count();
            if bytes.get(value) == Some(&b'=') {
                // Code compares with `key == value`.
                return None;
            }
        }
        let ends = |index: &usize| match bytes[*index] {
            b'&' | b'#' => true,
            b';' => !continues_value(&bytes[*index + 1..]),
            byte => is_delimiter(byte),
        };
        let end = (value..bytes.len()).find(ends).unwrap_or(bytes.len());
        self.redact(value..end)
    }

    /// `"key": value` of JSON, and `key: "value"` or `key: Some("value")` of `Debug`.
    fn member(&mut self, colon: usize) -> Option<usize> {
        let bytes = self.view.bytes();
        let is_quoted = bytes[..colon].trim_ascii_end().last().is_some_and(is_quote);
        let quoted = quoted_value(bytes, colon + 1);
        if !is_quoted && quoted.is_none() || !self.redaction.is_sensitive(key_before(bytes, colon))
        {
            return None;
        }
        if let Some(quoted) = quoted {
            return self.redact(quoted);
        }
        let value = bytes.len() - bytes[colon + 1..].trim_ascii_start().len();
        if matches!(bytes.get(value), Some(b'[' | b'{')) {
            return self.redact(value..end_of_nested(bytes, value));
        }
        let ends = |byte: &u8| is_delimiter(*byte) || matches!(byte, b',' | b'}' | b']');
        let length = bytes[value..].iter().position(ends);
        self.redact(value..length.map_or(bytes.len(), |length| value + length))
    }

    /// `<key>value</key>`, in which the start tag may have attributes and the value CDATA.
    fn xml_element(&mut self, end_of_tag: usize) -> Option<usize> {
        let bytes = self.view.bytes();
        let before = &bytes[end_of_tag.saturating_sub(LONGEST_KEY)..end_of_tag];
        let tag = before.iter().rposition(|byte| *byte == b'<')?;
        let tag = &before[tag + 1..];
        let name = tag.split(u8::is_ascii_whitespace).next()?;
        let has_value = !tag.starts_with(b"/") && !tag.ends_with(b"/");
        if !has_value || !self.redaction.is_sensitive(name) {
            return None;
        }
        let value = end_of_tag + 1;
        // CDATA and comments are part of the value.
        let ends = |index: &usize| bytes[*index] == b'<' && bytes.get(index + 1) != Some(&b'!');
        let end = (value..bytes.len()).find(ends).unwrap_or(bytes.len());
        self.redact(value..end)
    }

    /// The signature of an imgproxy path: a segment before the options or before the source.
    fn path_signature(&mut self, slash: usize) {
        let bytes = self.view.bytes();
        let segment = segment(&bytes[slash + 1..]);
        let end = slash + 1 + segment.len();
        if bytes.get(end) == Some(&b'/')
            && may_be_signature(segment)
            && begins_like_imgproxy(&bytes[end + 1..])
        {
            self.redact(slash + 1..end);
        }
    }

    /// A URL in base64. Returns where to go on.
    fn base64(&mut self, start: usize) -> usize {
        let bytes = self.view.bytes();
        let first_segment = start + segment(&bytes[start..]).len();
        let mut go_on = start + 1;
        // A source that is longer than a file name may be is split by slashes; in the other
        // alphabet they are letters.
        for slashes_are_letters in [false, true] {
            let text = base64::Text::at(&bytes[start..], slashes_are_letters);
            let end = start + text.length;
            if self.depth >= super::MOST_NESTED {
                self.redact(start..end);
                return end;
            }
            let redacted = self
                .redaction
                .redact_once(&text.text, Kind::Source, self.depth + 1);
            if let Cow::Owned(redacted) = redacted {
                // Further segments would decode to something else after the new ones.
                let goes_on = |byte: &u8| base64::is_letter(*byte) || matches!(byte, b'/' | b'=');
                let rest = bytes[end..].iter().take_while(|byte| goes_on(byte));
                let end = end + rest.count();
                self.replace(start..end, base64::encode(redacted.as_bytes()));
                return end;
            }
            // The segment in which the text ends may begin another one.
            let last_slash = bytes[start..end].iter().rposition(|byte| *byte == b'/');
            go_on = go_on.max(match last_slash {
                Some(slash) if end > first_segment => start + slash,
                _ => end.min(first_segment),
            });
        }
        go_on
    }
}

/// The letters up to the next slash or to the end of the base64.
fn segment(bytes: &[u8]) -> &[u8] {
    let is_letter = |byte: &u8| base64::is_letter(*byte) || *byte == b'=';
    let length = bytes.iter().position(|byte| !is_letter(byte));
    &bytes[..length.unwrap_or(bytes.len())]
}

/// Whether a `#` belongs to an escape of HTML: `&#38;`.
fn is_in_entity(bytes: &[u8], hash: usize) -> bool {
    bytes[..hash].ends_with(b"&") && matches!(bytes.get(hash + 1), Some(b'0'..=b'9' | b'x' | b'X'))
}

fn is_quote(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

/// The key that a `=` or a colon separates from its value, without quotes. Blanks may stand between.
fn key_before(bytes: &[u8], separator: usize) -> &[u8] {
    let before = &bytes[separator.saturating_sub(LONGEST_KEY)..separator];
    let before = before.trim_ascii_end();
    if let Some((quote, word)) = before.split_last()
        && is_quote(quote)
        && let Some(opening) = word.iter().rposition(|byte| byte == quote)
    {
        return &word[opening + 1..];
    }
    let ends_key = |byte: &u8| {
        is_delimiter(*byte)
            || is_slash(*byte)
            || matches!(byte, b'&' | b';' | b'?' | b'#' | b'=' | b'(' | b'{' | b',')
    };
    let start = before.iter().rposition(ends_key).map_or(0, |end| end + 1);
    &before[start..]
}

/// Whether a value goes on after a semicolon in it, rather than another `key=` or a blank follows.
fn continues_value(bytes: &[u8]) -> bool {
    let ends_key = |byte: &u8| is_delimiter(*byte) || matches!(byte, b'=' | b'&' | b';' | b'#');
    match bytes.iter().position(ends_key) {
        Some(end) => bytes[end] != b'=' && !is_delimiter(bytes[0]),
        None => !bytes.is_empty(),
    }
}

/// How far from the start of a value its opening quote is. Rust's `Debug` writes `Some("value")`.
pub(super) fn opening_quote(value: &[u8]) -> Option<usize> {
    let rest = value.trim_ascii_start();
    let rest = rest.strip_prefix(b"Some(").unwrap_or(rest);
    rest.first()
        .is_some_and(is_quote)
        .then(|| value.len() - rest.len())
}

/// What is between the quotes of the value at `start`, if it is in quotes.
fn quoted_value(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    quoted(bytes, start + opening_quote(&bytes[start..])?)
}

/// What is between the quotes that open at `start`.
fn quoted(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let quote = *bytes.get(start)?;
    if !is_quote(&quote) {
        return None;
    }
    let mut end = start + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    Some(start + 1..end.min(bytes.len()))
}

/// Where the JSON array or object that starts at `start` ends.
fn end_of_nested(bytes: &[u8], start: usize) -> usize {
    let (mut index, mut open) = (start, 0_usize);
    while index < bytes.len() {
        match bytes[index] {
            b'"' => index = quoted(bytes, index).map_or(index, |quoted| quoted.end),
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        index += 1;
        if open == 0 {
            break;
        }
    }
    index.min(bytes.len())
}

/// Whether a segment of a path may be an HMAC-SHA256 in URL-safe base64, or its first bytes. Names
/// of routes are shorter, or they have neither two upper-case letters after the first letter nor
/// one and a digit.
fn may_be_signature(segment: &[u8]) -> bool {
    let unpadded = segment.split(|byte| *byte == b'=').next();
    let letters = unpadded.unwrap_or_default();
    let count = |is: fn(&u8) -> bool| letters.iter().skip(1).filter(|byte| is(byte)).count();
    let upper = count(u8::is_ascii_uppercase);
    let others = count(|byte| !byte.is_ascii_alphabetic());
    letters == REDACTED.as_bytes()
        || letters.len() == 43
        || (SHORTEST_SIGNATURE..43).contains(&letters.len())
            && (upper >= 2 || upper == 1 && others >= 1)
}

/// Whether a path goes on as imgproxy's do after the signature: with options or the name of a preset,
/// and a source.
fn begins_like_imgproxy(path: &[u8]) -> bool {
    let mut segments = path.splitn(2, |byte| is_slash(*byte));
    let segment = segments.next().unwrap_or_default();
    let is_name = |name: &[u8]| {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !name.is_empty() && name.iter().all(is_letter)
    };
    let option = segment.split(|byte| *byte == b':').next();
    let has_options = segment.contains(&b':') && option.is_some_and(is_name);
    has_options
        || begins_like_source(path)
        || is_name(segment) && segments.next().is_some_and(begins_like_source)
}

/// Whether imgproxy's source is next: `plain/…`, `enc/…`, or one in base64.
fn begins_like_source(path: &[u8]) -> bool {
    let segment = path.split(|byte| is_slash(*byte)).next();
    matches!(segment, Some(b"plain" | b"enc")) || base64::begins_with_scheme(path)
}
