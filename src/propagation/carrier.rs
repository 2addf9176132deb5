//! What the formats read from and write to: an [`http::HeaderMap`] in place, or the API's
//! `dyn Extractor` and `dyn Injector`.

use std::{iter, vec};

use http::header::{HeaderMap, HeaderName, HeaderValue, ValueIter};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector},
};

use super::extraction::Extraction;

/// A wire format, implemented once for every carrier.
pub(super) trait Format {
    /// Reads the parent or the baggage into a context. Absent and invalid headers change nothing.
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C);

    /// Writes the span or the baggage in `cx`.
    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W);

    /// The names of the headers that [`write`](Self::write) may write.
    fn header_names(&self) -> &[String];
}

/// Headers to read. Values are bytes, so that a parser of hex need not check for UTF-8 first.
pub(super) trait Carrier {
    type Lines<'a>: Iterator<Item = &'a [u8]>
    where
        Self: 'a;

    /// All lines of one header, in order.
    fn lines<'a>(&'a self, name: &HeaderName) -> Self::Lines<'a>;

    /// The first line of a header; `None` when it is absent or empty.
    fn first<'a>(&'a self, name: &HeaderName) -> Option<&'a [u8]>;

    /// Calls `f` for every header whose name starts with `prefix` in any case, with the rest of the
    /// name and the first line.
    fn with_prefix<'a>(&'a self, prefix: &str, f: impl FnMut(&'a str, &'a [u8]));
}

impl Carrier for HeaderMap {
    type Lines<'a> = iter::Map<ValueIter<'a, HeaderValue>, fn(&'a HeaderValue) -> &'a [u8]>;

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
                // The lines of one name follow each other.
                if previous.replace(name) != Some(name) {
                    f(rest, value.as_bytes());
                }
            }
        }
    }
}

impl Carrier for dyn Extractor + '_ {
    type Lines<'a>
        = iter::Map<vec::IntoIter<&'a str>, fn(&'a str) -> &'a [u8]>
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
    /// Writes a header in place of all its lines.
    fn set(&mut self, name: &HeaderName, value: String);

    /// Writes a header whose name and value are made at run time. What HTTP cannot carry is left out, also for
    /// an `Injector`, which may write it as it comes.
    fn set_named(&mut self, name: &str, value: String);

    /// Removes a header. An `Injector` cannot do that.
    fn remove(&mut self, name: &HeaderName);

    /// Removes the headers whose names start with `prefix`.
    fn remove_prefixed(&mut self, prefix: &str);
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

    fn remove_prefixed(&mut self, prefix: &str) {
        let names = self.keys().filter(|name| name.as_str().starts_with(prefix));
        for name in names.cloned().collect::<Vec<_>>() {
            HeaderMap::remove(self, name);
        }
    }
}

impl Writer for dyn Injector + '_ {
    fn set(&mut self, name: &HeaderName, value: String) {
        Injector::set(self, name.as_str(), value);
    }

    fn set_named(&mut self, name: &str, value: String) {
        let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
        if is_name && HeaderValue::from_bytes(value.as_bytes()).is_ok() {
            Injector::set(self, name, value);
        }
    }

    fn remove(&mut self, _: &HeaderName) {}

    fn remove_prefixed(&mut self, _: &str) {}
}

/// Implements the API's trait by a [`Format`].
macro_rules! text_map_propagator {
    ($propagator:ty) => {
        impl opentelemetry::propagation::TextMapPropagator for $propagator {
            fn inject_context(
                &self,
                cx: &opentelemetry::Context,
                injector: &mut dyn opentelemetry::propagation::Injector,
            ) {
                $crate::propagation::carrier::Format::write(self, cx, injector);
            }

            fn extract_with_context(
                &self,
                cx: &opentelemetry::Context,
                extractor: &dyn opentelemetry::propagation::Extractor,
            ) -> opentelemetry::Context {
                let mut extraction = $crate::propagation::extraction::Extraction::new(cx);
                $crate::propagation::carrier::Format::read(self, &mut extraction, extractor);
                extraction.cx
            }

            fn fields(&self) -> opentelemetry::propagation::text_map_propagator::FieldIter<'_> {
                opentelemetry::propagation::text_map_propagator::FieldIter::new(
                    $crate::propagation::carrier::Format::header_names(self),
                )
            }
        }
    };
}
pub(super) use text_map_propagator;
