//! W3C Trace Context level 2: `traceparent` and `tracestate`.

use std::sync::LazyLock;

use http::header::HeaderName;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId},
};

use super::{
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    hex, random, tracestate,
};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static FIELDS: LazyLock<[String; 2]> =
    LazyLock::new(|| ["traceparent".to_owned(), "tracestate".to_owned()]);

/// `sampled` and `random`, the flags of level 2. The others are sent as zero (§3.2.2.5).
const KNOWN_FLAGS: TraceFlags = TraceFlags::new(0x03);
/// `00-{32 hex}-{16 hex}-{2 hex}`
const TRACEPARENT_LENGTH: usize = 55;

/// The `traceparent` and `tracestate` of [W3C Trace Context level 2].
///
/// Several `tracestate` lines form one list (§3.3.1). An invalid list is dropped as a whole, and the
/// parent is kept; of members with the same key the first is kept. Two `traceparent` lines are no
/// parent. The random flag of a parent is sent with every span of its trace, whatever the sampler
/// decided.
///
/// [W3C Trace Context level 2]: https://www.w3.org/TR/trace-context-2/
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceContextPropagator {
    _private: (),
}

impl TraceContextPropagator {
    /// Creates the propagator.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Format for TraceContextPropagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        let mut lines = carrier.lines(&TRACEPARENT);
        let Some(line) = lines.next() else { return };
        if lines.next().is_some() {
            return;
        }
        let states = carrier.lines(&TRACESTATE);
        if let Some(parent) = parse_traceparent(line) {
            extraction.set_context(with_parent(&extraction.cx, parent, states));
        }
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let mut value = String::with_capacity(TRACEPARENT_LENGTH);
        value.push_str("00-");
        hex::push(&mut value, &span_context.trace_id().to_bytes());
        value.push('-');
        hex::push(&mut value, &span_context.span_id().to_bytes());
        value.push('-');
        let flags = random::trace_flags(cx) & KNOWN_FLAGS;
        hex::push(&mut value, &[flags.to_u8()]);
        writer.set(&TRACEPARENT, value);

        let state = tracestate::header(cx, span_context);
        if state.is_empty() {
            writer.remove(&TRACESTATE);
        } else {
            writer.set(&TRACESTATE, state);
        }
    }

    fn header_names(&self) -> &[String] {
        &*FIELDS
    }
}

text_map_propagator!(TraceContextPropagator);

/// `cx` with the parent of the only `traceparent` line, and the lines of its `tracestate`.
pub(super) fn with_parent<'a>(
    cx: &Context,
    (trace_id, span_id, flags): (TraceId, SpanId, TraceFlags),
    states: impl Iterator<Item = &'a [u8]>,
) -> Context {
    let with_state = |state| SpanContext::new(trace_id, span_id, flags, true, state);
    let mut with_parent = tracestate::with_parent(cx, states, with_state);
    random::store(&mut with_parent);
    with_parent
}

/// §3.2.2, and §3.2.4 for later versions: longer, but with the same first four fields.
pub(super) fn parse_traceparent(line: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    // A field value does not include the white space around it (RFC 9110 §5.5).
    let line = tracestate::trim(line);
    let (fields, rest) = line.split_first_chunk::<TRACEPARENT_LENGTH>()?;
    if [fields[2], fields[35], fields[52]] != *b"---" {
        return None;
    }
    let trace_id = hex::decode(fields[3..].first_chunk::<32>()?)?;
    let span_id = hex::decode(fields[36..].first_chunk::<16>()?)?;
    let version = hex::byte([fields[0], fields[1]])?;
    let flags = hex::byte([fields[53], fields[54]])?;
    let ends = match version {
        0x00 => rest.is_empty(),
        0xff => false,
        _ => matches!(rest.first(), None | Some(b'-')),
    };
    let trace_id = TraceId::from_bytes(trace_id);
    let span_id = SpanId::from_bytes(span_id);
    let is_valid = ends && trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    is_valid.then_some((trace_id, span_id, TraceFlags::new(flags) & KNOWN_FLAGS))
}
