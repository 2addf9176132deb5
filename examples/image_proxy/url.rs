//! URLs as RFC 3986 has them: percent-encoded where they must be, and resolved against a base.

use std::fmt::Write;

/// A URI reference in its five parts (RFC 3986, appendix B).
#[derive(Clone, Copy, Debug)]
struct Reference<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Self {
        let (text, fragment) = split(text, '#');
        let (text, query) = split(text, '?');
        let (scheme, text) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, text),
        };
        let (authority, path) = match text.strip_prefix("//") {
            Some(text) => {
                let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
                (Some(authority), path)
            }
            None => (None, text),
        };
        Self {
            scheme,
            authority,
            path,
            query,
            fragment,
        }
    }

    /// RFC 3986 §5.3, with this path in place of its own.
    fn with_path(&self, path: &str) -> String {
        let part = |before: &str, part: Option<&str>, after: &str| {
            part.map_or(String::new(), |part| format!("{before}{part}{after}"))
        };
        [
            part("", self.scheme, ":"),
            part("//", self.authority, ""),
            path.to_owned(),
            part("?", self.query, ""),
            part("#", self.fragment, ""),
        ]
        .concat()
    }
}

fn split(text: &str, delimiter: char) -> (&str, Option<&str>) {
    match text.split_once(delimiter) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
}

/// The URL that a reference means, seen from `base` (RFC 3986 §5.2).
pub(crate) fn resolve(base: &str, reference: &str) -> String {
    let base = Reference::parse(base);
    let mut target = Reference::parse(reference);
    if target.scheme.is_some() {
        return target.with_path(&without_dots(target.path));
    }
    target.scheme = base.scheme;
    if target.authority.is_some() {
        return target.with_path(&without_dots(target.path));
    }
    target.authority = base.authority;
    if target.path.is_empty() {
        target.query = target.query.or(base.query);
        return target.with_path(base.path);
    }
    let folder = base.path.rfind('/').map_or("/", |end| &base.path[..=end]);
    let path = match target.path.starts_with('/') {
        true => target.path.to_owned(),
        false => format!("{folder}{}", target.path),
    };
    target.with_path(&without_dots(&path))
}

/// A path without its segments `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            // The first segment is the empty one before the first slash.
            ".." if kept.len() > 1 => drop(kept.pop()),
            ".." => {}
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    kept.join("/")
}

/// The URL with everything percent-encoded that path and query do not allow (RFC 3986 §3.3, §3.4), so that it can
/// stand in a request line (RFC 9112 §3.2). What is encoded already stays as it is.
pub(crate) fn encode(url: &str) -> String {
    let mut url = Reference::parse(url);
    let query = url.query.map(encode_part);
    url.query = query.as_deref();
    url.with_path(&encode_part(url.path))
}

fn encode_part(part: &str) -> String {
    let mut encoded = String::with_capacity(part.len());
    for (index, byte) in part.bytes().enumerate() {
        let stays = match byte {
            b'%' => {
                let digits = part.as_bytes().get(index + 1..index + 3);
                digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte),
        };
        match stays {
            true => encoded.push(byte.into()),
            false => push_encoded(&mut encoded, byte),
        }
    }
    encoded
}

fn push_encoded(text: &mut String, byte: u8) {
    // Writing to a `String` never fails.
    let _ = write!(text, "%{byte:02X}");
}

/// Bytes as text, with all that is no UTF-8 percent-encoded.
pub(crate) fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk
            .invalid()
            .iter()
            .for_each(|byte| push_encoded(&mut text, *byte));
    }
    text
}
