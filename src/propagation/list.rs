//! Formats by name, alone or together.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator, text_map_propagator::FieldIter},
    trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState},
};
use opentelemetry_http::HeaderExtractor;

use super::{
    b3::{self, B3Propagator},
    baggage::BaggagePropagator,
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    jaeger::JaegerPropagator,
    ottrace::OtTracePropagator,
    parent::Parent,
    tracecontext::{self, TraceContextPropagator},
    xray::XRayPropagator,
};

/// One of the seven formats, by its name in `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Propagator {
    /// `tracecontext`
    TraceContext,
    /// `baggage`
    Baggage,
    /// `b3`: reads both encodings, writes the single header.
    B3,
    /// `b3multi`: reads both encodings, writes the `x-b3-*` headers.
    B3Multi,
    /// `jaeger`
    Jaeger,
    /// `xray`
    XRay,
    /// `ottrace`
    OtTrace,
}

impl Propagator {
    /// All formats.
    pub const ALL: &'static [Self] = &[
        Self::TraceContext,
        Self::Baggage,
        Self::B3,
        Self::B3Multi,
        Self::Jaeger,
        Self::XRay,
        Self::OtTrace,
    ];

    /// The name in `OTEL_PROPAGATORS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::Baggage => "baggage",
            Self::B3 => "b3",
            Self::B3Multi => "b3multi",
            Self::Jaeger => "jaeger",
            Self::XRay => "xray",
            Self::OtTrace => "ottrace",
        }
    }

    const fn is_b3(self) -> bool {
        matches!(self, Self::B3 | Self::B3Multi)
    }
}

impl Format for Propagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        match self {
            Self::TraceContext => TraceContextPropagator::new().read(extraction, carrier),
            Self::Baggage => BaggagePropagator::new().read(extraction, carrier),
            Self::B3 | Self::B3Multi => B3Propagator::single().read(extraction, carrier),
            Self::Jaeger => JaegerPropagator::new().read(extraction, carrier),
            Self::XRay => XRayPropagator::new().read(extraction, carrier),
            Self::OtTrace => OtTracePropagator::new().read(extraction, carrier),
        }
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        match self {
            Self::TraceContext => TraceContextPropagator::new().write(cx, writer),
            Self::Baggage => BaggagePropagator::new().write(cx, writer),
            Self::B3 => B3Propagator::single().write(cx, writer),
            Self::B3Multi => B3Propagator::multi().write(cx, writer),
            Self::Jaeger => JaegerPropagator::new().write(cx, writer),
            Self::XRay => XRayPropagator::new().write(cx, writer),
            Self::OtTrace => OtTracePropagator::new().write(cx, writer),
        }
    }

    fn header_names(&self) -> &[String] {
        match self {
            Self::TraceContext => const { &TraceContextPropagator::new() }.header_names(),
            Self::Baggage => const { &BaggagePropagator::new() }.header_names(),
            Self::B3 => const { &B3Propagator::single() }.header_names(),
            Self::B3Multi => const { &B3Propagator::multi() }.header_names(),
            Self::Jaeger => const { &JaegerPropagator::new() }.header_names(),
            Self::XRay => const { &XRayPropagator::new() }.header_names(),
            Self::OtTrace => const { &OtTracePropagator::new() }.header_names(),
        }
    }
}

text_map_propagator!(Propagator);

impl fmt::Display for Propagator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Propagator {
    type Err = PropagatorError;

    /// Reads a name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter().copied();
        all.find(|propagator| propagator.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| PropagatorError::Unknown(name.to_owned()))
    }
}

/// The error of reading a list of formats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PropagatorError {
    /// A name that is neither a format nor `none`.
    #[error(
        "unknown propagator {0:?}: expected tracecontext, baggage, b3, b3multi, jaeger, xray, \
         ottrace or none"
    )]
    Unknown(String),
}

/// Formats that are read in order and written together.
///
/// Of several valid parents the last one counts, but one without a sampling decision does not
/// replace one that has a decision. Invalid headers change nothing. Baggage from several formats is
/// merged. The default is `tracecontext,baggage`. Cloning is cheap.
///
/// ```
/// use tower_image_trace::propagation::{Propagator, Propagators};
///
/// let propagators: Propagators = "b3multi, baggage".parse()?;
/// assert_eq!(propagators, Propagators::new([Propagator::B3Multi, Propagator::Baggage]));
/// assert_eq!("none".parse::<Propagators>()?, Propagators::none());
/// assert!("b4".parse::<Propagators>().unwrap_err().to_string().contains("b3multi"));
/// # Ok::<(), tower_image_trace::propagation::PropagatorError>(())
/// ```
#[derive(Clone)]
pub struct Propagators {
    formats: Arc<[Propagator]>,
    fields: Arc<[String]>,
}

impl Propagators {
    /// Creates a list of `formats`, each once, in the order in which they first appear.
    pub fn new(formats: impl IntoIterator<Item = impl Borrow<Propagator>>) -> Self {
        let mut unique = Vec::new();
        for format in formats {
            let format = *format.borrow();
            if !unique.contains(&format) {
                unique.push(format);
            }
        }
        Self {
            fields: unique
                .iter()
                .flat_map(Format::header_names)
                .cloned()
                .collect(),
            formats: unique.into(),
        }
    }

    /// Creates an empty list, which extracts and injects nothing.
    pub fn none() -> Self {
        Self::new(std::iter::empty::<Propagator>())
    }

    /// The formats, in the order in which they are read.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Propagator> + '_ {
        self.formats.iter().copied()
    }

    /// `cx` with the parent and the baggage from `headers`.
    ///
    /// Reads all lines of a header, and allocates only what the context needs; a clone of `cx` if
    /// there is no header of these formats. An [`Extractor`] is slower.
    pub fn extract_headers(&self, cx: &Context, headers: &HeaderMap) -> Context {
        let mut lines = ContextLines::default();
        for (name, line) in headers {
            lines.note(name.as_str(), line);
        }
        self.parent(cx, headers, &lines).into_context()
    }

    /// [`extract_headers`](Self::extract_headers) with the lines that a caller has noted, and the caller's span
    /// apart if it can be.
    #[inline]
    pub(crate) fn parent(
        &self,
        cx: &Context,
        headers: &HeaderMap,
        lines: &ContextLines<'_>,
    ) -> Parent {
        if lines.others {
            return Parent::Context(self.extract_all(cx, headers));
        }
        let Some(parent) = self.noted_parent(lines) else {
            return Parent::Context(cx.clone());
        };
        if lines.tracestate.is_none() {
            let (trace_id, span_id, flags) = parent;
            let span = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
            if let Some(parent) = Parent::apart(cx, span) {
                return parent;
            }
        }
        let states = lines.tracestate.into_iter();
        Parent::Context(tracecontext::with_parent(cx, parent, states))
    }

    fn noted_parent(&self, lines: &ContextLines<'_>) -> Option<(TraceId, SpanId, TraceFlags)> {
        let parent = lines.traceparent?;
        let is_read = self.formats.contains(&Propagator::TraceContext);
        is_read.then(|| tracecontext::parse_traceparent(parent))?
    }

    /// Whether `headers` may have a header of any format.
    pub(crate) fn may_find(headers: &HeaderMap) -> bool {
        headers.keys().any(|name| may_be_read(name.as_str()))
    }

    /// Writes the span and the baggage in `cx` to `headers`, in place of the lines there. Without baggage in `cx` that
    /// in `headers` stays, since the service may have put it there.
    pub fn inject_headers(&self, cx: &Context, headers: &mut HeaderMap) {
        if self.formats.iter().any(|format| format.is_b3()) {
            b3::clear(headers);
        }
        for format in &*self.formats {
            format.write(cx, headers);
        }
    }

    fn extract_all<C: Carrier + ?Sized>(&self, cx: &Context, carrier: &C) -> Context {
        let mut extraction = Extraction::new(cx);
        let mut formats = self.formats.iter();
        while let Some(format) = formats.next() {
            // Both read the same headers, and only the last parent counts.
            if !(format.is_b3() && formats.as_slice().iter().any(|later| later.is_b3())) {
                format.read(&mut extraction, carrier);
            }
        }
        extraction.cx
    }
}

/// The headers of the formats in a header map, noted in one pass over the map. That is cheaper than
/// a lookup for each name, because most requests have only a `traceparent` or none of them.
#[derive(Debug, Default)]
pub(crate) struct ContextLines<'a> {
    traceparent: Option<&'a [u8]>,
    tracestate: Option<&'a [u8]>,
    /// There is a header of another format, or one of these twice: look them up by name.
    others: bool,
}

impl<'a> ContextLines<'a> {
    pub(crate) fn note(&mut self, name: &str, line: &'a HeaderValue) {
        let place = match name {
            _ if !may_be_read(name) => return,
            "traceparent" => &mut self.traceparent,
            "tracestate" => &mut self.tracestate,
            _ => {
                self.others = true;
                return;
            }
        };
        self.others |= place.replace(line.as_bytes()).is_some();
    }
}

/// The headers for any propagator. A name that was noted is not looked up, which takes a hash of the name
/// each time.
pub(crate) struct NotedHeaders<'a> {
    lines: &'a ContextLines<'a>,
    headers: HeaderExtractor<'a>,
}

impl<'a> ContextLines<'a> {
    pub(crate) fn extractor(&'a self, headers: &'a HeaderMap) -> NotedHeaders<'a> {
        NotedHeaders {
            lines: self,
            headers: HeaderExtractor(headers),
        }
    }
}

impl Extractor for NotedHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if !self.lines.others {
            let line = match key {
                "traceparent" => self.lines.traceparent,
                "tracestate" => self.lines.tracestate,
                _ => return self.headers.get(key),
            };
            // As `HeaderValue::to_str` has it.
            let is_shown = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
            let text = line.filter(|line| line.iter().all(is_shown));
            return text.and_then(|line| str::from_utf8(line).ok());
        }
        self.headers.get(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        self.headers.get_all(key)
    }
}

/// Whether a name begins like that of a header of any format: `traceparent`, `tracestate`, `baggage`,
/// `b3`, `x-b3-…`, `x-amzn-trace-id`, `uber-trace-id`, `jaeger-debug-id`, `ot-…`.
fn may_be_read(name: &str) -> bool {
    matches!(
        name.as_bytes(),
        [b't', b'r', ..]
            | [b'b', b'a' | b'3', ..]
            | [b'x', b'-', b'a' | b'b', ..]
            | [b'u', b'b', ..]
            | [b'j', b'a', ..]
            | [b'o', b't', ..]
    )
}

impl TextMapPropagator for Propagators {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        for format in &*self.formats {
            format.write(cx, injector);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.extract_all(cx, extractor)
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

impl Default for Propagators {
    fn default() -> Self {
        Self::new([Propagator::TraceContext, Propagator::Baggage])
    }
}

impl PartialEq for Propagators {
    fn eq(&self, other: &Self) -> bool {
        self.formats == other.formats
    }
}

impl Eq for Propagators {}

impl FromIterator<Propagator> for Propagators {
    fn from_iter<I: IntoIterator<Item = Propagator>>(formats: I) -> Self {
        Self::new(formats)
    }
}

impl fmt::Debug for Propagators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Propagators({self})")
    }
}

/// Comma-separated, as [`FromStr`] reads it.
impl fmt::Display for Propagators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.formats.is_empty() {
            return f.write_str("none");
        }
        for (index, format) in self.formats.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{format}")?;
        }
        Ok(())
    }
}

impl FromStr for Propagators {
    type Err = PropagatorError;

    /// Reads the comma-separated names of `OTEL_PROPAGATORS`. Blanks and repeated names are ignored,
    /// an empty list is the default, and `none` anywhere means none, as in Go.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut names = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let mut formats: Vec<Propagator> = Vec::new();
        let mut none = false;
        for name in &mut names {
            if name.eq_ignore_ascii_case("none") {
                none = true;
            } else {
                formats.push(name.parse()?);
            }
        }
        Ok(match (none, formats.is_empty()) {
            (true, _) => Self::none(),
            (false, true) => Self::default(),
            (false, false) => Self::new(formats),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noted_headers_are_those_of_the_map() {
        let parent: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let maps: [&[(&str, &[u8])]; 5] = [
            &[],
            &[("traceparent", parent), ("tracestate", b"a=1"), ("x", b"y")],
            &[("traceparent", parent), ("traceparent", b"another")],
            &[("traceparent", b"\xff"), ("tracestate", b"a=\tb")],
            &[("traceparent", b""), ("b3", b"0"), ("tracestate", b"a")],
        ];
        for lines in maps {
            let mut headers = HeaderMap::new();
            for (name, line) in lines {
                let name = http::HeaderName::from_static(name);
                headers.append(name, HeaderValue::from_bytes(line).unwrap());
            }
            let mut noted = ContextLines::default();
            for (name, line) in &headers {
                noted.note(name.as_str(), line);
            }
            let (noted, map) = (noted.extractor(&headers), HeaderExtractor(&headers));
            for key in [
                "traceparent",
                "tracestate",
                "Traceparent",
                "b3",
                "x",
                "none",
            ] {
                assert_eq!(noted.get(key), map.get(key), "{key} of {lines:?}");
                assert_eq!(noted.get_all(key), map.get_all(key));
            }
            assert_eq!(noted.keys(), map.keys());
        }
    }

    #[test]
    fn every_header_that_a_format_writes_may_be_found() {
        for format in Propagator::ALL {
            for name in format.header_names() {
                assert!(may_be_read(name), "{name}");
            }
        }
    }
}
