//! W3C Baggage: the `baggage` header.

use std::{borrow::Cow, sync::LazyLock};

use http::header::HeaderName;
use opentelemetry::{
    Context,
    baggage::{Baggage, BaggageExt},
};

use super::{
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    percent,
    tracestate::trim,
};

static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| ["baggage".to_owned()]);

/// The limits of §3.3.2, which every implementation must be able to carry. More is left out.
const MAX_MEMBERS: usize = 64;
const MAX_BYTES: usize = 8192;

/// The `baggage` header of [W3C Baggage].
///
/// All lines form one list. A member that is not valid, or that exceeds the limits of 64 members
/// and 8,192 bytes, is left out; the others are kept. They are added to the baggage in the context
/// and replace members of the same name. Values are percent-encoded on the wire and plain in
/// [`Baggage`]. Properties are kept verbatim as
/// [`BaggageMetadata`](opentelemetry::baggage::BaggageMetadata).
///
/// [W3C Baggage]: https://www.w3.org/TR/baggage/
#[derive(Clone, Copy, Debug, Default)]
pub struct BaggagePropagator {
    _private: (),
}

impl BaggagePropagator {
    /// Creates the propagator.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Format for BaggagePropagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        let mut received = Received::default();
        let mut bytes_left = MAX_BYTES;
        for line in carrier.lines(&BAGGAGE) {
            for member in line.split(|&byte| byte == b',') {
                let length = trim(member).len();
                if length > bytes_left {
                    continue;
                }
                if let Some((key, value, properties)) = parse_member(member) {
                    // The member and the comma after it.
                    bytes_left = bytes_left.saturating_sub(length + 1);
                    received.insert(
                        &extraction.cx,
                        key.to_owned(),
                        value.into_owned(),
                        properties,
                    );
                }
            }
        }
        received.store(&mut extraction.cx);
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        let baggage = cx.baggage();
        if baggage.is_empty() {
            return;
        }
        let mut members: Vec<_> = baggage.iter().collect();
        // The map has no order. Sorted, the same baggage always gives the same header.
        members.sort_unstable_by_key(|(key, _)| key.as_str());
        let mut header = String::new();
        for (key, (value, metadata)) in members {
            let start = header.len();
            if start > 0 {
                header.push(',');
            }
            header.push_str(key.as_str());
            header.push('=');
            percent::push_encoded(&mut header, value.as_str());
            for property in properties(metadata.as_str().as_bytes()).flatten() {
                header.push(';');
                header.push_str(&property);
            }
            if header.len() > MAX_BYTES {
                header.truncate(start);
            }
        }
        if !header.is_empty() {
            writer.set(&BAGGAGE, header);
        }
    }

    fn header_names(&self) -> &[String] {
        &*FIELDS
    }
}

text_map_propagator!(BaggagePropagator);

/// Baggage from headers, on top of the context's. That is copied only if there is something to add.
#[derive(Default)]
pub(super) struct Received(Option<Baggage>);

impl Received {
    /// Adds a member if there is room, or replaces the one of that name.
    pub(super) fn insert(&mut self, cx: &Context, key: String, value: String, metadata: String) {
        let all = self.0.get_or_insert_with(|| {
            let before = cx.baggage().iter();
            before
                .map(|(key, item)| (key.clone(), item.clone()))
                .collect()
        });
        if all.len() < MAX_MEMBERS || all.get(&key).is_some() {
            all.insert_with_metadata(key, value, metadata);
        }
    }

    pub(super) fn store(self, cx: &mut Context) {
        if let Some(all) = self.0 {
            *cx = cx.with_baggage(all);
        }
    }
}

/// §3.2.1.1: `key OWS "=" OWS value *( OWS ";" OWS property )`.
fn parse_member(member: &[u8]) -> Option<(&str, Cow<'_, str>, String)> {
    let mut parts = member.splitn(2, |&byte| byte == b';');
    let (key, value) = split_pair(parts.next()?);
    let (key, value) = (token(key)?, percent::decode(value?)?);
    let properties = match parts.next() {
        None => String::new(),
        Some(text) => properties(text).collect::<Option<Vec<_>>>()?.join(";"),
    };
    Some((key, value, properties))
}

/// Each `property` (§3.3.1.3) without white space; `None` if it is not valid.
fn properties(text: &[u8]) -> impl Iterator<Item = Option<String>> {
    let parts = text.split(|&byte| byte == b';').map(trim);
    parts.filter(|part| !part.is_empty()).map(|part| {
        let (key, value) = split_pair(part);
        let key = token(key)?;
        let Some(value) = value else {
            return Some(key.to_owned());
        };
        percent::decode(value)?;
        Some(format!("{key}={}", std::str::from_utf8(value).ok()?))
    })
}

/// Splits at the first `=`, because a value may contain more of them.
fn split_pair(pair: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = pair.splitn(2, |&byte| byte == b'=').map(trim);
    (parts.next().unwrap_or_default(), parts.next())
}

/// A `token` (RFC 9110 §5.6.2), the grammar of baggage keys.
pub(super) fn token(key: &[u8]) -> Option<&str> {
    let is_token_char = |byte: &u8| {
        matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9')
            || matches!(byte, b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
    };
    (!key.is_empty() && key.iter().all(is_token_char)).then(|| std::str::from_utf8(key).ok())?
}
