//! Jaeger's `uber-trace-id`.

use std::sync::LazyLock;

use http::header::HeaderName;
use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt, TraceFlags, TraceState},
};

use super::{
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    hex,
    sampling::Sampling,
};

static UBER_TRACE_ID: HeaderName = HeaderName::from_static("uber-trace-id");
/// A text that someone who debugs gives to a request; its trace begins here, is sampled, and has the text as an
/// attribute of its root span.
pub(crate) static DEBUG_ID: HeaderName = HeaderName::from_static("jaeger-debug-id");
static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| ["uber-trace-id".to_owned()]);

const SAMPLED: i64 = 1;
const DEBUG: i64 = 2;

/// The `uber-trace-id` of Jaeger's [client libraries].
///
/// Ids may lack leading zeros; flags are hex. The debug flag is passed on if the sampled flag came
/// with it. As in Go, the parent span id is ignored, a percent-encoded header is not decoded, and
/// `uberctx-*` baggage is neither read nor written: use the `baggage` format. A `jaeger-debug-id` without a
/// parent begins a trace that is sampled.
///
/// [client libraries]: https://www.jaegertracing.io/docs/1.21/client-libraries/#propagation-format
#[derive(Clone, Copy, Debug, Default)]
pub struct JaegerPropagator {
    _private: (),
}

impl JaegerPropagator {
    /// Creates the propagator.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Format for JaegerPropagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        match carrier.first(&UBER_TRACE_ID).and_then(parse) {
            Some((parent, sampling)) => {
                extraction.set_parent(parent, true);
                extraction.set_sampling(sampling);
            }
            None if extraction.is_undecided() && carrier.first(&DEBUG_ID).is_some() => {
                extraction.debug();
            }
            None => {}
        }
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let mut value = String::with_capacity(53);
        hex::push(&mut value, &span_context.trace_id().to_bytes());
        value.push(':');
        hex::push(&mut value, &span_context.span_id().to_bytes());
        // The parent span id is deprecated, and always 0.
        value.push_str(match Sampling::of(cx) {
            Sampling::Debug(_) => ":0:3",
            _ if span_context.is_sampled() => ":0:1",
            _ => ":0:0",
        });
        writer.set(&UBER_TRACE_ID, value);
    }

    fn header_names(&self) -> &[String] {
        &*FIELDS
    }
}

text_map_propagator!(JaegerPropagator);

/// `{trace id}:{span id}:{parent span id}:{flags}`
fn parse(header: &[u8]) -> Option<(SpanContext, Sampling)> {
    let mut fields = header.splitn(5, |&byte| byte == b':');
    let trace_id = hex::parse_short_trace_id(fields.next()?)?;
    let span_id = hex::parse_short_span_id(fields.next()?)?;
    let _parent_span_id = fields.next()?;
    let flags = match std::str::from_utf8(fields.next()?).ok()? {
        "" => 0,
        // Go reads a signed number.
        flags => i64::from_str_radix(flags, 16).ok()?,
    };
    if fields.next().is_some() {
        return None;
    }
    let (flags, sampling) = match (flags & SAMPLED != 0, flags & DEBUG != 0) {
        (true, true) => (TraceFlags::SAMPLED, Sampling::Debug(trace_id)),
        (true, false) => (TraceFlags::SAMPLED, Sampling::Decided),
        (false, _) => (TraceFlags::NOT_SAMPLED, Sampling::Decided),
    };
    let parent = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    Some((parent, sampling))
}
