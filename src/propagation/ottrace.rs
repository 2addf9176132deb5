//! OT Trace: the `ot-tracer-*` and `ot-baggage-*` headers.

use std::sync::LazyLock;

use http::header::HeaderName;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};

use super::b3::parse_bool;
use super::baggage::{Received, token};
use super::carrier::{Carrier, Format, Writer};
use super::{hex, percent};

const TRACE_ID: HeaderName = HeaderName::from_static("ot-tracer-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("ot-tracer-spanid");
const SAMPLED: HeaderName = HeaderName::from_static("ot-tracer-sampled");
const BAGGAGE_PREFIX: &str = "ot-baggage-";
static FIELDS: LazyLock<[String; 3]> =
    LazyLock::new(|| [TRACE_ID, SPAN_ID, SAMPLED].map(|name| name.as_str().to_owned()));

/// OT Trace, the headers of the OpenTracing basic tracers.
///
/// Reads 64- and 128-bit trace ids and writes 64-bit ones, which is all that the format has: the
/// upper half of a longer id is lost. Baggage is read only with a valid parent; a member whose
/// name or value is not valid W3C baggage is left out. It is written as it is, so a value with
/// characters that baggage must escape arrives only at a receiver that does not mind.
#[derive(Clone, Copy, Debug, Default)]
pub struct OtTracePropagator {
    _private: (),
}

impl OtTracePropagator {
    /// The one there is.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Format for OtTracePropagator {
    fn read<C: Carrier + ?Sized>(&self, cx: &mut Context, carrier: &C) {
        let Some(parent) = extract_parent(carrier) else {
            return;
        };
        let mut received = Received::default();
        carrier.with_prefix(BAGGAGE_PREFIX, |key, value| {
            if received.is_full() {
                return;
            }
            if let (Some(key), Some(value)) = (token(key.as_bytes()), percent::decode(value)) {
                received.insert(cx, key, value.into_owned(), String::new());
            }
        });
        received.store(cx);
        *cx = cx.with_remote_span_context(parent);
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
        for (key, (value, _)) in cx.baggage() {
            let name = format!("{BAGGAGE_PREFIX}{key}");
            writer.set_named(&name, value.as_str().to_owned());
        }
    }

    fn header_names(&self) -> &[String] {
        &*FIELDS
    }
}

super::text_map_propagator!(OtTracePropagator);

fn extract_parent<C: Carrier + ?Sized>(carrier: &C) -> Option<SpanContext> {
    let trace_id = hex::parse_64_or_128_bit_trace_id(carrier.first(&TRACE_ID)?)?;
    let span_id = hex::parse_span_id(carrier.first(&SPAN_ID)?)?;
    let sampled = carrier.first(&SAMPLED).map_or(Some(false), parse_bool)?;
    let flags = TraceFlags::default().with_sampled(sampled);
    Some(SpanContext::new(
        trace_id,
        span_id,
        flags,
        true,
        TraceState::NONE,
    ))
}
