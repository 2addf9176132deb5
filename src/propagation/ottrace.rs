//! OT Trace: the `ot-tracer-*` and `ot-baggage-*` headers.

use std::sync::LazyLock;

use http::header::HeaderName;
use opentelemetry::{
    Context,
    baggage::BaggageExt,
    trace::{SpanContext, TraceContextExt, TraceFlags, TraceState},
};

use super::{
    b3::parse_bool,
    baggage::{Received, token},
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    hex, percent,
};

static TRACE_ID: HeaderName = HeaderName::from_static("ot-tracer-traceid");
static SPAN_ID: HeaderName = HeaderName::from_static("ot-tracer-spanid");
static SAMPLED: HeaderName = HeaderName::from_static("ot-tracer-sampled");
const PREFIX: &str = "ot-";
const BAGGAGE: &str = "baggage-";
static FIELDS: LazyLock<[String; 3]> =
    LazyLock::new(|| [&TRACE_ID, &SPAN_ID, &SAMPLED].map(ToString::to_string));

/// OT Trace, the headers of the basic tracers of OpenTracing.
///
/// Reads 64- and 128-bit trace ids. Writes 64-bit ones, because the format has no others: the upper
/// half of a longer id is lost. Baggage is read only with a valid parent, without the members
/// whose name or value is not valid W3C baggage. A parent without `ot-tracer-sampled` is not
/// sampled, and has no sampling decision. Baggage is written without escapes, so some
/// receivers reject values with characters that W3C baggage escapes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OtTracePropagator {
    _private: (),
}

impl OtTracePropagator {
    /// Creates the propagator.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Format for OtTracePropagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        let Some(trace_id) = carrier.first(&TRACE_ID) else {
            return;
        };
        // Only a look at all headers finds the names of baggage. It finds the other headers too.
        let (mut span_id, mut sampled) = (&b""[..], &b""[..]);
        let mut received = Received::default();
        carrier.with_prefix(PREFIX, |name, value| {
            if name.eq_ignore_ascii_case("tracer-spanid") {
                span_id = value;
            } else if name.eq_ignore_ascii_case("tracer-sampled") {
                sampled = value;
            } else if let Some((start, key)) = name.split_at_checked(BAGGAGE.len())
                && start.eq_ignore_ascii_case(BAGGAGE)
                && let (Some(key), Some(value)) = (token(key.as_bytes()), percent::decode(value))
            {
                let key = key.to_ascii_lowercase();
                received.insert(&extraction.cx, key, value.into_owned(), String::new());
            }
        });
        if let Some(parent) = parse_parent(trace_id, span_id, sampled) {
            received.store(&mut extraction.cx);
            extraction.set_parent(parent, !sampled.is_empty());
        }
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let hex = |bytes: &[u8]| {
            let mut value = String::with_capacity(16);
            hex::push(&mut value, bytes);
            value
        };
        writer.set(&TRACE_ID, hex(&span_context.trace_id().to_bytes()[8..]));
        writer.set(&SPAN_ID, hex(&span_context.span_id().to_bytes()));
        writer.set(&SAMPLED, span_context.is_sampled().to_string());
        if !cx.baggage().is_empty() {
            // Members that are there no longer must not go on.
            writer.remove_prefixed(&format!("{PREFIX}{BAGGAGE}"));
        }
        for (key, (value, _)) in cx.baggage() {
            let name = format!("{PREFIX}{BAGGAGE}{key}");
            writer.set_named(&name, value.as_str().to_owned());
        }
    }

    fn header_names(&self) -> &[String] {
        &*FIELDS
    }
}

text_map_propagator!(OtTracePropagator);

fn parse_parent(trace_id: &[u8], span_id: &[u8], sampled: &[u8]) -> Option<SpanContext> {
    let trace_id = hex::parse_64_or_128_bit_trace_id(trace_id)?;
    let span_id = hex::parse_span_id(span_id)?;
    let sampled = !sampled.is_empty() && parse_bool(sampled)?;
    let flags = TraceFlags::default().with_sampled(sampled);
    Some(SpanContext::new(
        trace_id,
        span_id,
        flags,
        true,
        TraceState::NONE,
    ))
}
