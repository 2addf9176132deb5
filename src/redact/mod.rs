//! Removes credentials and signatures from URLs before they are recorded.
//!
//! An image service has URLs in its URLs: the path or the query contains the URL of the source,
//! plain, percent-encoded or in URL-safe base64. Error messages contain it again.

mod base64;
mod percent;

use std::borrow::Cow;

/// The query keys whose values semconv (registry `url.query`) redacts by default. Case-sensitive.
const SENSITIVE_KEYS: [&str; 5] = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "sig",
    "X-Goog-Signature",
];

const REDACTED: &str = "REDACTED";

/// The limit on URLs nested in URLs. Deeper ones are redacted unread, so that a hostile URL costs no
/// more than a few times its length.
const MOST_NESTED: u8 = 4;

/// How much of the URLs of sources is recorded, in stages, paths, queries and error messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceUrls {
    /// The URL with its whole query. Credentials are redacted all the same, as semconv requires.
    Full,
    /// Without credentials, the values of sensitive query keys, and fragments.
    #[default]
    Redacted,
    /// Scheme, host and port only.
    OriginOnly,
}

/// What a layer redacts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redaction {
    /// Replaces the keys of semconv.
    pub(crate) sensitive_keys: Option<Vec<String>>,
    pub(crate) source_urls: SourceUrls,
}

impl Redaction {
    /// A query string in which the values of sensitive keys are replaced and the sources in other
    /// values are redacted.
    pub(crate) fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        self.query_at(query, 0)
    }

    /// A URL path, or another text of one word, in which sources are redacted.
    pub(crate) fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        self.word(path, 0)
    }

    /// A message in which URLs are redacted.
    pub(crate) fn message<'a>(&self, message: &'a str) -> Cow<'a, str> {
        let ends_word = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '<' | '>');
        rewritten(message, ends_word, |word| self.word(word, 0))
    }

    /// The URL of a source; `None` if only origins are recorded.
    pub(crate) fn source_url<'a>(&self, url: &'a str) -> Option<Cow<'a, str>> {
        (self.source_urls != SourceUrls::OriginOnly).then(|| self.source(url, 0))
    }

    fn source<'a>(&self, url: &'a str, depth: u8) -> Cow<'a, str> {
        match self.source_urls {
            SourceUrls::Full => without_userinfo(url),
            SourceUrls::Redacted => self.url(url, depth),
            SourceUrls::OriginOnly => origin(url).map_or(Cow::Borrowed(REDACTED), Cow::Owned),
        }
    }

    /// A URL without userinfo, sensitive values and fragment.
    fn url<'a>(&self, url: &'a str, depth: u8) -> Cow<'a, str> {
        let end = url.find('#').unwrap_or(url.len());
        let without_userinfo = without_userinfo(&url[..end]);
        let path = authority(&without_userinfo).map_or(0, |(_, end)| end);
        let (start, rest) = without_userinfo.split_at(path);
        let rest = match rest.split_once('?') {
            None => self.word(rest, depth + 1),
            Some((path, query)) => Cow::Owned(format!(
                "{}?{}",
                self.word(path, depth + 1),
                self.query_at(query, depth)
            )),
        };
        if without_userinfo == url && url.get(path..) == Some(&*rest) {
            return Cow::Borrowed(url);
        }
        Cow::Owned(format!("{start}{rest}"))
    }

    fn query_at<'a>(&self, query: &'a str, depth: u8) -> Cow<'a, str> {
        if query.split('&').all(|pair| self.is_plain_pair(pair)) {
            return Cow::Borrowed(query);
        }
        rewritten(
            query,
            |letter| letter == '&',
            |pair| match pair.split_once('=') {
                None => self.word(pair, depth + 1),
                Some((key, _)) if self.is_sensitive(key) => Cow::Owned(format!("{key}={REDACTED}")),
                // The query is a URL itself, and the `=` is in that URL's query.
                Some((key, _)) if plain_url(key).is_some() => self.word(pair, depth + 1),
                Some((key, value)) => {
                    let (new_key, new_value) =
                        (self.word(key, depth + 1), self.word(value, depth + 1));
                    if new_key == key && new_value == value {
                        return Cow::Borrowed(pair);
                    }
                    Cow::Owned(format!("{new_key}={new_value}"))
                }
            },
        )
    }

    /// Whether a pair has nothing sensitive, as most have.
    fn is_plain_pair(&self, pair: &str) -> bool {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_plain(key) && is_plain(value) && !self.is_sensitive(key)
    }

    fn is_sensitive(&self, key: &str) -> bool {
        let key = percent::decoded(key);
        match &self.sensitive_keys {
            Some(keys) => keys.iter().any(|sensitive| *sensitive == key),
            None => SENSITIVE_KEYS.contains(&&*key),
        }
    }

    /// A text without white space that may contain a URL, in any of the forms.
    fn word<'a>(&self, word: &'a str, depth: u8) -> Cow<'a, str> {
        if depth > MOST_NESTED {
            return Cow::Borrowed(REDACTED);
        }
        if is_plain(word) {
            return Cow::Borrowed(word);
        }
        if let Some(start) = plain_url(word) {
            let (before, url) = word.split_at(start);
            let (new_before, source) = (self.word(before, depth + 1), self.source(url, depth));
            if new_before == before && source == url {
                return Cow::Borrowed(word);
            }
            return Cow::Owned(format!("{new_before}{source}"));
        }
        if let Some((before, query)) = word.split_once('?') {
            let query = query.find('#').map_or(query, |end| &query[..end]);
            let (before, query) = (
                self.word(before, depth + 1),
                self.query_at(query, depth + 1),
            );
            return Cow::Owned(format!("{before}?{query}"));
        }
        if word.contains('%') {
            let decoded = percent::decoded(word);
            if decoded != word {
                return match self.word(&decoded, depth + 1) {
                    same if same == decoded => Cow::Borrowed(word),
                    redacted => Cow::Owned(percent::encoded(&redacted)),
                };
            }
        }
        self.base64_word(word, depth)
    }

    fn base64_word<'a>(&self, word: &'a str, depth: u8) -> Cow<'a, str> {
        let Some(start) = base64_start(word) else {
            return Cow::Borrowed(word);
        };
        // A source that is longer than a file name may be is split by slashes. The extension follows.
        let end = word[start..]
            .find(|letter| !base64::has(letter) && letter != '/')
            .map_or(word.len(), |length| start + length);
        let encoded = word[start..end].bytes().filter(|byte| *byte != b'/');
        let decoded = base64::decode(encoded).unwrap_or_default();
        // From the first byte that is not text on, these were other segments of the path.
        let text = decoded
            .utf8_chunks()
            .next()
            .map_or("", |chunk| chunk.valid());
        let url = text.split(char::is_control).next().unwrap_or_default();
        let source = self.source(url, depth + 1);
        let rest = self.word(&word[end..], depth + 1);
        if source == url && rest == word[end..] {
            return Cow::Borrowed(word);
        }
        let encoded = base64::encode(source.as_bytes());
        Cow::Owned(format!("{}{encoded}{rest}", &word[..start]))
    }
}

/// A URL without credentials, without the signatures of semconv, and without its fragment.
pub(crate) fn url(url: &str) -> Cow<'_, str> {
    Redaction::default().url(url, 0)
}

/// `scheme://host[:port]` of an absolute URL.
pub(crate) fn origin(url: &str) -> Option<String> {
    let end_of_authority = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end_of_authority];
    let (start, end) = authority(url)?;
    let host = &url[start..end];
    let host = host.rfind('@').map_or(host, |at| &host[at + 1..]);
    (!host.is_empty()).then(|| format!("{}{host}", &url[..start]))
}

fn without_userinfo(url: &str) -> Cow<'_, str> {
    let userinfo = authority(url).and_then(|(start, end)| {
        let at = url[start..end].rfind('@')?;
        Some((start, start + at))
    });
    match userinfo {
        // Semconv url.full: `https://REDACTED:REDACTED@host/`.
        Some((start, at)) => {
            Cow::Owned(format!("{}REDACTED:REDACTED{}", &url[..start], &url[at..]))
        }
        None => Cow::Borrowed(url),
    }
}

/// Where the authority of an absolute URL starts and ends (RFC 3986 §3.2).
fn authority(url: &str) -> Option<(usize, usize)> {
    let start = url.find(":/")? + 2;
    // Proxies merge slashes: `https:/host/cat.jpg`.
    let start = start + usize::from(url[start..].starts_with('/'));
    let end = url[start..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |length| start + length);
    Some((start, end))
}

/// Whether a word surely has no URL. Most have none, which one pass over the letters shows.
fn is_plain(word: &str) -> bool {
    let mut rest = word.as_bytes();
    loop {
        if base64::begins_with_scheme(rest) {
            return false;
        }
        let is_mark = |byte: &u8| matches!(byte, b'/' | b':' | b'?' | b'%');
        match rest.iter().position(is_mark) {
            None => return true,
            Some(slash) if rest[slash] == b'/' => rest = &rest[slash + 1..],
            Some(_) => return false,
        }
    }
}

/// Where a URL in base64 begins. In imgproxy a `/` precedes a source, a `:` that of a watermark.
fn base64_start(word: &str) -> Option<usize> {
    let bytes = word.as_bytes();
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| matches!(byte, b'/' | b':'));
    let mut starts = std::iter::once(0).chain(ends.map(|(end, _)| end + 1));
    starts.find(|start| base64::begins_with_scheme(&bytes[*start..]))
}

/// Where an absolute URL begins: `scheme://`, or `http:/` if a proxy has merged the slashes.
fn plain_url(text: &str) -> Option<usize> {
    text.match_indices(':').find_map(|(colon, _)| {
        let before = text[colon..].starts_with(":/").then(|| &text[..colon])?;
        let is_of_scheme =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.');
        let scheme = &before[before.trim_end_matches(is_of_scheme).len()..];
        let scheme = scheme.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic());
        let is_url = if text[colon..].starts_with("://") {
            !scheme.is_empty()
        } else {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        };
        is_url.then(|| colon - scheme.len())
    })
}

/// The text with its parts rewritten; borrowed if none changed.
fn rewritten<'a>(
    text: &'a str,
    separates: impl Fn(char) -> bool,
    rewrite: impl Fn(&'a str) -> Cow<'a, str>,
) -> Cow<'a, str> {
    let mut changed: Option<String> = None;
    let mut from = 0;
    for part in text.split_inclusive(&separates) {
        let separator = part.chars().next_back().filter(|last| separates(*last));
        let part = &part[..part.len() - separator.map_or(0, char::len_utf8)];
        let new = rewrite(part);
        if changed.is_none() && new != part {
            changed = Some(text[..from].to_owned());
        }
        if let Some(changed) = &mut changed {
            changed.push_str(&new);
            changed.extend(separator);
        }
        from += part.len() + separator.map_or(0, char::len_utf8);
    }
    changed.map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests;
