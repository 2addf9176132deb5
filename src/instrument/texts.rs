use std::borrow::Cow;

use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::errors::beginning;
use crate::{
    intern,
    redact::{self, Redaction, SourceUrls},
};

/// Ends a text that was cut.
const ELLIPSIS: &str = "…";

/// How much more is read of a text than is recorded. What is incomplete at the end of what is read must be
/// shorter, such as a URL of which the `@` after its credentials is missing.
const MARGIN: usize = 4 * 1024;
/// The longest text of a metric's attribute, in bytes: a scrape repeats it on every line of its series.
const LONGEST_LABEL: usize = 128;
/// The longest name of a route, in bytes.
const LONGEST_ROUTE: usize = 256;

/// What words are made of.
const OF_WORDS: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        bytes[byte] =
            letter.is_ascii_alphanumeric() || matches!(letter, b' ' | b'_' | b'-' | b'.' | b':');
        byte += 1;
    }
    bytes
};

/// How texts are recorded: redacted, and cut at a length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextRules {
    pub(crate) redaction: Redaction,
    /// The longest message of an error, in bytes.
    pub(crate) longest_message: usize,
    /// The longest text of an attribute, in bytes.
    pub(crate) longest_attribute: usize,
}

impl Default for TextRules {
    fn default() -> Self {
        Self {
            redaction: Redaction::default(),
            longest_message: 4 * 1024,
            longest_attribute: 16 * 1024,
        }
    }
}

impl TextRules {
    /// How many bytes of an error's message are read: a character more than [`message`](Self::message) reads,
    /// which shows it that there is more.
    pub(crate) fn most_of_a_message(&self) -> usize {
        most_read(self.longest_message).saturating_add(char::MAX.len_utf8())
    }

    /// A message, with the URLs in it redacted.
    pub(crate) fn message<'a>(&self, message: &'a str) -> Cow<'a, str> {
        let redact = |message| self.redaction.message(message);
        bounded(message, self.longest_message, redact)
    }

    /// The value of an attribute that may contain URLs.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // Most values are short words. No URL is that short in any encoding.
        let is_word = |byte: u8| OF_WORDS[usize::from(byte)];
        if text.len() < 8 && text.len() <= self.longest_attribute && text.bytes().all(is_word) {
            return Cow::Borrowed(text);
        }
        let redact = |text| self.redaction.message(text);
        bounded(text, self.longest_attribute, redact)
    }

    /// [`text`](Self::text) for a value that recurs in many requests: itself, if there is nothing to redact
    /// or to cut. `None` also where there are too many such values.
    pub(crate) fn recurring(&self, text: &str) -> Option<&'static str> {
        let is_short = text.len() <= self.longest_attribute;
        is_short.then(|| intern::plain(text, redact::is_plain))?
    }

    /// The URL of a source, unless only its origin may be recorded.
    pub(crate) fn source_url(&self, url: &str) -> Option<String> {
        if self.redaction.source_urls == SourceUrls::OriginOnly {
            return None;
        }
        let redact = |url| self.redaction.source_url(url).unwrap_or_default();
        Some(bounded(url, self.longest_attribute, redact).into_owned())
    }

    /// The origin of a URL.
    pub(crate) fn origin(&self, url: &str) -> Option<String> {
        let origin = redact::origin(url)?;
        Some(self.cut(&origin).into_owned())
    }

    /// As much of a URL as may be recorded (semconv registry, `url.full`).
    pub(crate) fn full_url(&self, url: &str) -> String {
        let url = self.source_url(url).or_else(|| self.origin(url));
        url.unwrap_or_else(|| "REDACTED".to_owned())
    }

    /// A text without URLs.
    #[inline]
    pub(crate) fn cut<'a>(&self, text: &'a str) -> Cow<'a, str> {
        shortened(text, self.longest_attribute)
    }

    /// An attribute with the URLs in its texts redacted.
    pub(crate) fn attribute(&self, mut attribute: KeyValue) -> KeyValue {
        each_text(&mut attribute.value, self.longest_attribute, |text| {
            self.text(text)
        });
        attribute
    }

    /// An [`attribute`](Self::attribute) of measurements.
    pub(crate) fn label(&self, attribute: KeyValue) -> KeyValue {
        let mut attribute = self.attribute(attribute);
        let longest = self.longest_attribute.min(LONGEST_LABEL);
        match &mut attribute.value {
            Value::Array(Array::Bool(values)) => values.truncate(longest),
            Value::Array(Array::I64(values)) => values.truncate(longest / size_of::<i64>()),
            Value::Array(Array::F64(values)) => values.truncate(longest / size_of::<f64>()),
            value => each_text(value, longest, |text| shortened(text, longest)),
        }
        attribute
    }

    /// A route, which is an attribute of measurements too.
    pub(crate) fn route<'a>(&self, route: &'a str) -> Cow<'a, str> {
        shortened(route, self.longest_attribute.min(LONGEST_ROUTE))
    }

    /// Cuts the values of attributes that are redacted already.
    pub(crate) fn cut_all(&self, attributes: &mut [KeyValue]) {
        for attribute in attributes {
            match &attribute.value {
                Value::String(text) if text.as_str().len() <= self.longest_attribute => {}
                Value::String(_) | Value::Array(_) => {
                    let longest = self.longest_attribute;
                    each_text(&mut attribute.value, longest, |text| self.cut(text));
                }
                _ => {}
            }
        }
    }
}

/// Rewrites the texts of a value. Those of an array have `longest` bytes together.
fn each_text(value: &mut Value, longest: usize, rewrite: impl Fn(&str) -> Cow<'_, str>) {
    let rewrite = |text: &mut StringValue| {
        if let Cow::Owned(new) = rewrite(text.as_str()) {
            *text = new.into();
        }
    };
    match value {
        Value::String(text) => rewrite(text),
        Value::Array(Array::String(texts)) => {
            texts.iter_mut().for_each(rewrite);
            let mut room = longest;
            let fits = texts.iter().take_while(|text| {
                let fits = text.as_str().len() <= room;
                room = room.saturating_sub(text.as_str().len());
                fits
            });
            let fits = fits.count();
            if fits < texts.len() {
                texts.truncate(fits);
                texts.push(ELLIPSIS.into());
            }
        }
        _ => {}
    }
}

/// How many bytes of a text are read if at most `longest` are recorded.
fn most_read(longest: usize) -> usize {
    longest.saturating_add(MARGIN)
}

/// The redacted text, cut at `longest` bytes.
fn bounded<'a>(
    text: &'a str,
    longest: usize,
    redact: impl FnOnce(&'a str) -> Cow<'a, str>,
) -> Cow<'a, str> {
    let read = beginning(text, most_read(longest));
    let is_whole = read.len() == text.len();
    let redacted = redact(read);
    if is_whole && redacted.len() <= longest {
        return redacted;
    }
    let mut kept = beginning(&redacted, longest.saturating_sub(ELLIPSIS.len()));
    if !is_whole {
        // Redaction makes texts shorter, so that the incomplete end could be kept. It is in what follows
        // the last replacement.
        let letters = read.bytes().rev().zip(redacted.bytes().rev());
        let end = letters.take(MARGIN).take_while(|(old, new)| old == new);
        kept = beginning(kept, redacted.len() - end.count());
    }
    Cow::Owned([kept, ELLIPSIS].concat())
}

/// The text, cut at `longest` bytes.
fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return Cow::Borrowed(text);
    }
    let kept = beginning(text, longest.saturating_sub(ELLIPSIS.len()));
    Cow::Owned([kept, ELLIPSIS].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> TextRules {
        TextRules {
            longest_message: 20,
            longest_attribute: 40,
            ..TextRules::default()
        }
    }

    // faults F3
    #[test]
    fn a_text_is_cut_at_a_character_and_marked() {
        let message = |text| rules().message(text).into_owned();
        assert_eq!(message("a message of 20 byte"), "a message of 20 byte");
        assert_eq!(message("a message of 21 bytes"), "a message of 21 b…");
        assert_eq!(message("ééééééééééé"), "éééééééé…");
        let long = "x".repeat(1 << 20);
        assert_eq!(message(&long), format!("{}…", "x".repeat(17)));
        assert_eq!(rules().cut(&long), format!("{}…", "x".repeat(37)));
        assert!(matches!(rules().cut("short"), Cow::Borrowed("short")));
        let tiny = TextRules {
            longest_attribute: 5,
            ..rules()
        };
        assert_eq!(tiny.text("six ok"), "si…");
    }

    // faults F3, F15
    #[test]
    fn what_is_cut_is_redacted_all_the_same() {
        let message = |text: &str| rules().message(text).into_owned();
        assert_eq!(message("see http://a/?sig=planted"), "see http://a/?sig…");
        // At the end of what is read stands half of a secret, and all is short enough when redacted.
        let length = most_read(rules().longest_message) - "sig=".len() - 20;
        let before = format!("sig={}", "s".repeat(length));
        for half in [
            " http://user:planted-planted@host/",
            "&u=http://user:planted-planted@host/",
            "&u=http:user:planted,planted@host/",
            "#http:user:planted-planted@host/",
            "&é&http:user:planted-planted@host/",
            "&aHR0cDovL3U6cGxhbnRlZEBoLw",
        ] {
            let text = [&before, half].concat();
            assert_eq!(message(&text), "sig=REDACTED…", "{half}");
        }
    }

    // faults F3, F15
    #[test]
    fn the_origin_of_a_url_is_found_however_long_its_credentials_are() {
        let url = format!("https://user:{}@cdn.example/cat.jpg", "planted".repeat(20));
        assert_eq!(rules().origin(&url).as_deref(), Some("https://cdn.example"));
    }

    // faults F3
    #[test]
    fn all_texts_of_an_array_share_the_bound() {
        let lines = |count: usize| -> Vec<StringValue> { vec!["0123456789".into(); count] };
        let value = |count| {
            let value = Value::Array(Array::String(lines(count)));
            rules().attribute(KeyValue::new("key", value)).value
        };
        assert_eq!(value(4), Value::Array(Array::String(lines(4))));
        let mut cut = lines(4);
        cut.push(ELLIPSIS.into());
        assert_eq!(value(1000), Value::Array(Array::String(cut)));
    }

    #[test]
    fn attributes_of_measurements_are_short() {
        let rules = TextRules::default();
        let label = |value: Value| rules.label(KeyValue::new("key", value)).value;
        let (fits, cut) = ("x".repeat(128), format!("{}…", "x".repeat(125)));
        assert_eq!(label(fits.clone().into()), fits.clone().into());
        assert_eq!(label("x".repeat(16_000).into()), cut.clone().into());
        assert_eq!(
            rules.route(&"x".repeat(257)),
            format!("{}…", "x".repeat(253))
        );
        // Redacted before it is cut: half of a URL shows no credentials.
        let url = format!("http://user:{}@host/", "planted".repeat(100));
        assert_eq!(label(url.into()), "http://REDACTED:REDACTED@host/".into());

        let texts = |texts: &[&str]| {
            let texts = texts.iter().map(|text| StringValue::from(text.to_string()));
            Value::Array(Array::String(texts.collect()))
        };
        assert_eq!(label(texts(&["a", &fits])), texts(&["a", "…"]));
        assert_eq!(
            label(texts(&["a"; 200])),
            texts(&[&["a"; 128][..], &["…"]].concat())
        );
        for (given, kept) in [
            (Array::Bool(vec![true; 999]), Array::Bool(vec![true; 128])),
            (Array::I64(vec![7; 999]), Array::I64(vec![7; 16])),
            (Array::F64(vec![0.5; 999]), Array::F64(vec![0.5; 16])),
        ] {
            assert_eq!(label(Value::Array(given)), Value::Array(kept));
        }

        let tiny = self::rules();
        let text = tiny.label(KeyValue::new("key", "x".repeat(128))).value;
        assert_eq!(text.as_str().len(), 40);
    }

    // faults F15
    #[test]
    fn the_texts_of_attributes_are_redacted() {
        let rules = TextRules::default();
        let given = "https://u:p@h/?sig=S";
        let redacted = "https://REDACTED:REDACTED@h/?sig=REDACTED";
        let texts = |text: &'static str| Value::Array(Array::String(vec!["a".into(), text.into()]));
        for (value, expected) in [
            (Value::from(given), Value::from(redacted)),
            (texts(given), texts(redacted)),
            (Value::from(7), Value::from(7)),
        ] {
            let attribute = rules.attribute(KeyValue::new("watermark.url", value));
            assert_eq!(attribute, KeyValue::new("watermark.url", expected));
        }
    }
}
