//! Removes credentials and signatures from texts before they are recorded.
//!
//! An image service has URLs in its URLs: the path or the query contains the URL of the source,
//! plain, percent-encoded or in URL-safe base64. Error messages contain it again, sometimes in the
//! escapes of JSON or HTML.
//!
//! A [`View`] is the text after some rounds of decoding. Each round is scanned, and what is found is
//! replaced where it stands in the text itself, so that the rest of the text keeps its form.

mod authority;
mod base64;
mod edits;
mod scan;
mod view;

use std::borrow::Cow;

use self::{
    authority::Authority,
    edits::{Edits, REDACTED},
    scan::Scan,
    view::View,
};

/// The query keys whose values are redacted by default, in any case of letters: those of the semantic
/// conventions (registry, `url.query`, 1.44), the rest of what signs a URL at AWS, CloudFront and
/// Google Cloud, and the usual names of tokens, keys and passwords.
const SENSITIVE_KEYS: [&str; 30] = [
    // The semantic conventions.
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    // CloudFront, Google Cloud.
    "Policy",
    "Key-Pair-Id",
    "X-Goog-Credential",
    "GoogleAccessId",
    // The body of S3's errors.
    "SignatureProvided",
    "StringToSign",
    "StringToSignBytes",
    "CanonicalRequest",
    "CanonicalRequestBytes",
    "Token-0",
    // The value of the header or parameter that S3 did not accept, such as `Authorization`.
    "ArgumentValue",
    // Others.
    "access_token",
    "refresh_token",
    "id_token",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "x-api-key",
    "client_secret",
    "secret",
    "password",
    "authorization",
];

/// The limit on URLs in base64 in each other. Deeper ones are redacted unread.
const MOST_NESTED: u8 = 4;

/// The limit on rounds of decoding. A text that needs more is redacted unread, so that a hostile one
/// costs no more than a few times its length.
const MOST_ROUNDS: usize = 8;

/// The limit on passes over a redacted text. Almost always one shows that nothing is left.
const MOST_PASSES: usize = 4;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Redaction {
    /// Replaces the default keys.
    pub(crate) sensitive_keys: Option<Vec<String>>,
    pub(crate) source_urls: SourceUrls,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Any text with URLs in it.
    Text,
    /// A query, in which a `&` ends a URL.
    Query,
    /// The URL of a source.
    Source,
}

impl Redaction {
    /// A query string in which the values of sensitive keys are replaced and the sources in other
    /// values are redacted.
    pub(crate) fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        self.redact(query, Kind::Query)
    }

    /// A URL path in which sources are redacted.
    #[inline]
    pub(crate) fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        self.redact(path, Kind::Text)
    }

    /// Any other text, such as a message, in which URLs are redacted.
    pub(crate) fn message<'a>(&self, message: &'a str) -> Cow<'a, str> {
        self.redact(message, Kind::Text)
    }

    /// The URL of a source; `None` if only origins are recorded.
    pub(crate) fn source_url<'a>(&self, url: &'a str) -> Option<Cow<'a, str>> {
        (self.source_urls != SourceUrls::OriginOnly).then(|| self.redact(url, Kind::Source))
    }

    #[inline]
    fn redact<'a>(&self, text: &'a str, kind: Kind) -> Cow<'a, str> {
        match is_plain(text) {
            true => Cow::Borrowed(text),
            false => self.redact_all(text, kind),
        }
    }

    /// Scans until there is nothing left to redact, since replacements may form new words.
    fn redact_all<'a>(&self, text: &'a str, kind: Kind) -> Cow<'a, str> {
        let mut redacted = match self.scan(text, kind, 0) {
            Cow::Borrowed(same) => return Cow::Borrowed(same),
            Cow::Owned(redacted) => redacted,
        };
        for _ in 0..MOST_PASSES {
            match self.redact_once(&redacted, kind, 0) {
                Cow::Borrowed(_) => return Cow::Owned(redacted),
                Cow::Owned(again) => redacted = again,
            }
        }
        Cow::Borrowed(REDACTED)
    }

    fn redact_once<'a>(&self, text: &'a str, kind: Kind, depth: u8) -> Cow<'a, str> {
        if is_plain(text) {
            return Cow::Borrowed(text);
        }
        self.scan(text, kind, depth)
    }

    fn scan<'a>(&self, text: &'a str, kind: Kind, depth: u8) -> Cow<'a, str> {
        let mut edits = Edits::default();
        let mut view = View::of(text);
        for _ in 0..=MOST_ROUNDS {
            Scan {
                redaction: self,
                view: &view,
                kind,
                depth,
                edits: &mut edits,
                without_fragment: [0; 2],
            }
            .run();
            match view.decoded() {
                None => return edits.apply(text),
                Some(decoded) => view = decoded,
            }
        }
        Cow::Owned(REDACTED.to_owned())
    }

    /// Whether the value of a key is redacted: of `sig`, and also of `params[sig]`, `sig[0]`, `amp;sig`,
    /// `ampsig` (HTML takes `&amp` without its semicolon) and `sig+`.
    fn is_sensitive(&self, key: &[u8]) -> bool {
        let key = String::from_utf8_lossy(key);
        let mut view = View::of(&key);
        while let Some(decoded) = view.decoded() {
            view = decoded;
        }
        let key = String::from_utf8_lossy(view.bytes());
        let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if self.has_key(&key) {
            return true;
        }
        let (name, indices) = key.split_once('[').unwrap_or((&key, ""));
        let name = name.trim_end_matches(|letter: char| letter.is_whitespace() || letter == '+');
        let name = name.rsplit(|letter| !is_of_name(letter)).next();
        let name = name.unwrap_or_default();
        let mut words = indices.split(|letter| !is_of_name(letter));
        let after_amp = name
            .split_at_checked(3)
            .and_then(|(amp, name)| amp.eq_ignore_ascii_case("amp").then_some(name));
        name.len() < key.len() && self.has_key(name)
            || after_amp.is_some_and(|name| self.has_key(name))
            || !indices.is_empty() && words.any(|word| self.has_key(word))
    }

    fn has_key(&self, name: &str) -> bool {
        match &self.sensitive_keys {
            Some(keys) => keys.iter().any(|key| key.eq_ignore_ascii_case(name)),
            None => SENSITIVE_KEYS
                .iter()
                .any(|key| key.eq_ignore_ascii_case(name)),
        }
    }
}

/// A URL without credentials, without the values of the default keys, and without its fragment.
pub(crate) fn url(url: &str) -> Cow<'_, str> {
    Redaction::default().redact(url, Kind::Source)
}

/// `scheme://host[:port]` of an absolute URL.
pub(crate) fn origin(url: &str) -> Option<String> {
    let authority = Authority::at(url.as_bytes(), url.find(':')?)?;
    let host = url.get(authority.host()..authority.end)?;
    let scheme = url.get(..authority.start)?;
    let is_absolute = authority.scheme == 0 && !scheme.ends_with("///");
    (is_absolute && !host.is_empty()).then(|| format!("{scheme}{host}"))
}

/// Whether a text surely has nothing to redact. Most have not, which one pass over their letters shows.
pub(crate) fn is_plain(text: &str) -> bool {
    let mut rest = text.as_bytes();
    let mut before = 0;
    // Whether a segment may be the signature of an imgproxy path.
    let mut may_be_signed = false;
    loop {
        if base64::begins_with_scheme(rest) {
            return false;
        }
        let is_letter = |byte: &u8| CLASSES[usize::from(*byte)] == Class::Letter;
        let length = rest.iter().position(|byte| !is_letter(byte));
        let length = length.unwrap_or(rest.len());
        if may_be_signed && matches!(&rest[..length], b"plain" | b"enc") {
            return false;
        }
        let Some(&byte) = rest.get(length) else {
            return true;
        };
        let after = &rest[length + 1..];
        match CLASSES[usize::from(byte)] {
            Class::Mark => return false,
            // JSON may have blanks between a key and its colon.
            Class::Blank if length == 0 => {
                rest = after;
                continue;
            }
            Class::Colon => {
                // The last byte before the colon, blanks aside, is a letter or ends the word before.
                let ends_key = length == 0 && matches!(before, b'"' | b'\'');
                let begins_url = matches!(after.first(), Some(b'/' | b'\\'));
                if may_be_signed || ends_key || begins_url || scan::opening_quote(after).is_some() {
                    return false;
                }
            }
            Class::Letter | Class::Blank | Class::Other => {
                may_be_signed |= byte == b'/' && length >= scan::SHORTEST_SIGNATURE;
            }
        }
        before = byte;
        rest = after;
    }
}

/// What a byte means for [`is_plain`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A letter of base64.
    Letter,
    Colon,
    Blank,
    /// Any text with it is scanned.
    Mark,
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b':' => Class::Colon,
            b'=' | b'@' | b'%' | b'\\' | b'&' | b'>' => Class::Mark,
            blank if blank.is_ascii_whitespace() => Class::Blank,
            letter if base64::is_letter(letter) => Class::Letter,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests;
