//! AWS X-Ray's `X-Amzn-Trace-Id`.

use std::sync::LazyLock;

use http::header::HeaderName;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};

use super::{
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    hex,
    sampling::Sampling,
    tracestate::trim,
    undecided::Undecided,
};

static X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| ["x-amzn-trace-id".to_owned()]);

/// AWS X-Ray's [tracing header], `Root`, `Parent` and `Sampled` in any order among other fields.
///
/// Only a header with both `Root` and `Parent` is a parent. With `Root` alone, or with an open
/// decision (`Sampled=?`, or no `Sampled`), [`continued_trace_id`](super::continued_trace_id) returns the trace id for the span
/// that starts here. `Root` with `Sampled=0` denies that span ([`is_denied`](super::is_denied)).
///
/// [tracing header]: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
#[derive(Clone, Copy, Debug, Default)]
pub struct XRayPropagator {
    _private: (),
}

impl XRayPropagator {
    /// Creates the propagator.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Format for XRayPropagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        let Some(header) = carrier.first(&X_AMZN_TRACE_ID).and_then(parse) else {
            return;
        };
        let cx = &mut extraction.cx;
        let Some(parent) = header.parent else {
            // A parent that is there comes first. Storing nothing saves allocations.
            if !cx.span().span_context().is_valid() {
                header.undecided().store(cx);
                if header.sampled == Some(false) {
                    Sampling::Denied.store(cx);
                }
            }
            return;
        };
        let flags = TraceFlags::default().with_sampled(header.sampled == Some(true));
        let parent = SpanContext::new(header.root, parent, flags, true, TraceState::NONE);
        let is_decided = header.sampled.is_some();
        if extraction.set_parent(parent, is_decided) && !is_decided {
            header.undecided().store(&mut extraction.cx);
        }
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let trace_id = span_context.trace_id().to_bytes();
        let mut value = String::with_capacity(74);
        value.push_str("Root=1-");
        hex::push(&mut value, &trace_id[..4]);
        value.push('-');
        hex::push(&mut value, &trace_id[4..]);
        value.push_str(";Parent=");
        hex::push(&mut value, &span_context.span_id().to_bytes());
        value.push_str(match span_context.is_sampled() {
            true => ";Sampled=1",
            false => ";Sampled=0",
        });
        writer.set(&X_AMZN_TRACE_ID, value);
    }

    fn header_names(&self) -> &[String] {
        &*FIELDS
    }
}

text_map_propagator!(XRayPropagator);

struct Header {
    root: TraceId,
    parent: Option<SpanId>,
    /// `None` when the receiver decides.
    sampled: Option<bool>,
}

impl Header {
    const fn undecided(&self) -> Undecided {
        Undecided {
            trace_id: self.root,
            parent: self.parent,
        }
    }
}

/// Fields in any order; of fields with the same name the last counts. White space around fields,
/// empty parts and fields with other names are ignored. A part without `=` or an invalid id makes
/// the header invalid.
fn parse(header: &[u8]) -> Option<Header> {
    let (mut root, mut parent, mut sampled) = (None, None, None);
    let fields = header.split(|&byte| byte == b';').map(trim);
    for field in fields.filter(|field| !field.is_empty()) {
        let mut pair = field.splitn(2, |&byte| byte == b'=');
        let (key, value) = (pair.next()?, pair.next()?);
        match key {
            b"Root" => root = Some(parse_root(value)?),
            b"Parent" => parent = Some(hex::parse_span_id(value)?),
            b"Sampled" => sampled = (value != b"?").then_some(value == b"1"),
            _ => {}
        }
    }
    Some(Header {
        root: root?,
        parent,
        sampled,
    })
}

/// `1-{8 hex: seconds since the epoch}-{24 hex}`
fn parse_root(root: &[u8]) -> Option<TraceId> {
    let id = root.strip_prefix(b"1-")?;
    if id.len() != 33 || id[8] != b'-' {
        return None;
    }
    let mut digits = [0; 32];
    digits[..8].copy_from_slice(&id[..8]);
    digits[8..].copy_from_slice(&id[9..]);
    hex::parse_trace_id(&digits)
}
