//! One parser for two kinds of carrier: an [`http::HeaderMap`] read in place, and the API's
//! `dyn Extractor` and `dyn Injector`.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector};

/// A wire format, written once for every carrier.
pub(super) trait Format {
    /// Reads the parent or the baggage into `cx`. What is absent or invalid changes nothing.
    fn read<C: Carrier + ?Sized>(&self, cx: &mut Context, carrier: &C);

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W);

    /// The names of the headers that [`write`](Self::write) may write.
    fn header_names(&self) -> &[String];
}

/// Headers to read. Values are bytes: a parser that wants hex needs no check for text first.
pub(super) trait Carrier {
    type Lines<'a>: Iterator<Item = &'a [u8]>
    where
        Self: 'a;

    /// All lines of one header, in order.
    fn lines<'a>(&'a self, name: &HeaderName) -> Self::Lines<'a>;

    /// The first line of a header that must not be repeated, `None` when it is absent or empty.
    fn first<'a>(&'a self, name: &HeaderName) -> Option<&'a [u8]>;

    /// Calls `f` with the rest of the name, in any case, and the first line of every header whose
    /// name starts with `prefix`.
    fn with_prefix<'a>(&'a self, prefix: &str, f: impl FnMut(&'a str, &'a [u8]));
}

impl Carrier for HeaderMap {
    type Lines<'a> =
        std::iter::Map<http::header::ValueIter<'a, HeaderValue>, fn(&'a HeaderValue) -> &'a [u8]>;

    fn lines<'a>(&'a self, name: &HeaderName) -> Self::Lines<'a> {
        self.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    fn first<'a>(&'a self, name: &HeaderName) -> Option<&'a [u8]> {
        self.get(name)
            .map(HeaderValue::as_bytes)
            .filter(|value| !value.is_empty())
    }

    fn with_prefix<'a>(&'a self, prefix: &str, mut f: impl FnMut(&'a str, &'a [u8])) {
        let mut previous = None;
        for (name, value) in self {
            if let Some(rest) = name.as_str().strip_prefix(prefix) {
                // The lines of one name come one after the other.
                if previous.replace(name) != Some(name) {
                    f(rest, value.as_bytes());
                }
            }
        }
    }
}

impl Carrier for dyn Extractor + '_ {
    type Lines<'a>
        = std::iter::Map<std::vec::IntoIter<&'a str>, fn(&'a str) -> &'a [u8]>
    where
        Self: 'a;

    fn lines<'a>(&'a self, name: &HeaderName) -> Self::Lines<'a> {
        let lines = self.get_all(name.as_str()).unwrap_or_default();
        lines.into_iter().map(str::as_bytes)
    }

    fn first<'a>(&'a self, name: &HeaderName) -> Option<&'a [u8]> {
        self.get(name.as_str())
            .map(str::as_bytes)
            .filter(|value| !value.is_empty())
    }

    fn with_prefix<'a>(&'a self, prefix: &str, mut f: impl FnMut(&'a str, &'a [u8])) {
        for key in self.keys() {
            if let Some((start, rest)) = key.split_at_checked(prefix.len())
                && start.eq_ignore_ascii_case(prefix)
                && let Some(value) = self.get(key)
            {
                f(rest, value.as_bytes());
            }
        }
    }
}

/// Headers to write.
pub(super) trait Writer {
    fn set(&mut self, name: &HeaderName, value: String);

    /// Writes a header whose name is made at run time. What HTTP cannot carry is left out.
    fn set_named(&mut self, name: &str, value: String);

    /// Takes away a line that an earlier hop's headers left behind, where the carrier can.
    fn remove(&mut self, name: &HeaderName);
}

impl Writer for HeaderMap {
    fn set(&mut self, name: &HeaderName, value: String) {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.insert(name.clone(), value);
        }
    }

    fn set_named(&mut self, name: &str, value: String) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            Writer::set(self, &name, value);
        }
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }
}

impl Writer for dyn Injector + '_ {
    fn set(&mut self, name: &HeaderName, value: String) {
        Injector::set(self, name.as_str(), value);
    }

    fn set_named(&mut self, name: &str, value: String) {
        Injector::set(self, name, value);
    }

    fn remove(&mut self, _: &HeaderName) {}
}
