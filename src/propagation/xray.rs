//! AWS X-Ray's `X-Amzn-Trace-Id`.

use std::sync::LazyLock;

use http::header::HeaderName;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};

use super::{
    carrier::{Carrier, Format, Writer, text_map_propagator},
    hex,
};

static X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| ["x-amzn-trace-id".to_owned()]);

/// AWS X-Ray's [tracing header], `Root`, `Parent` and `Sampled` in any order among other fields.
///
/// Only a header with both `Root` and `Parent` is a parent. With `Root` alone, or with an open
/// decision (`Sampled=?`, or no `Sampled`), [`continued_trace_id`] returns the trace id for the span
/// that starts here.
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
    fn read<C: Carrier + ?Sized>(&self, cx: &mut Context, carrier: &C) {
        let Some(header) = carrier.first(&X_AMZN_TRACE_ID).and_then(parse) else {
            return;
        };
        // The parent that is there comes first. Storing nothing saves allocations.
        if header.parent.is_none() && cx.span().span_context().is_valid() {
            return;
        }
        if header.parent.is_none() || header.sampled.is_none() {
            *cx = cx.with_value(Undecided {
                trace_id: header.root,
                parent: header.parent,
            });
        }
        if let Some(parent) = header.parent {
            let flags = TraceFlags::default().with_sampled(header.sampled == Some(true));
            *cx = cx.with_remote_span_context(SpanContext::new(
                header.root,
                parent,
                flags,
                true,
                TraceState::NONE,
            ));
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

/// A trace from upstream without a parent or without a sampling decision.
#[derive(Clone, Copy, Debug)]
struct Undecided {
    trace_id: TraceId,
    parent: Option<SpanId>,
}

/// The id of the trace that a new root span in `cx` continues, if an X-Ray header named a trace
/// without a parent, or a parent without a sampling decision.
///
/// The receiver starts a root span with this trace id and lets its sampler decide, which continues
/// the trace of an AWS load balancer. A parent without a decision is in `cx`, but its unset sampled
/// flag does not mean "not sampled": link to it at most. `None` if `cx` has a valid parent from
/// another format, or a span of this process.
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::trace::{TraceContextExt, TraceId};
/// use tower_image_trace::propagation::{Propagators, continued_trace_id};
///
/// let propagators: Propagators = "xray".parse()?;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-amzn-trace-id", "Root=1-8a3c60f7-d188f8fa79d48a391a778fa6".parse()?);
/// let cx = propagators.extract_headers(&Context::new(), &headers);
///
/// assert!(!cx.span().span_context().is_valid());
/// let id = TraceId::from(0x8a3c60f7_d188f8fa79d48a391a778fa6);
/// assert_eq!(continued_trace_id(&cx), Some(id));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn continued_trace_id(cx: &Context) -> Option<TraceId> {
    let undecided = cx.get::<Undecided>()?;
    let span = cx.span();
    let parent = span.span_context();
    let is_its_own = parent.trace_id() == undecided.trace_id
        && Some(parent.span_id()) == undecided.parent
        && !parent.is_sampled();
    (!parent.is_valid() || is_its_own).then_some(undecided.trace_id)
}

struct Header {
    root: TraceId,
    parent: Option<SpanId>,
    /// `None` when the receiver decides.
    sampled: Option<bool>,
}

/// Fields in any order; of fields with the same name the last counts. A part without `=` or an
/// invalid id makes the header invalid. Fields with other names are skipped.
fn parse(header: &[u8]) -> Option<Header> {
    let (mut root, mut parent, mut sampled) = (None, None, None);
    // White space around the value is not part of it, and a `;` at its end begins no field.
    let mut header = header;
    while let [rest @ .., b' ' | b'\t'] = header {
        header = rest;
    }
    let header = header.strip_suffix(b";").unwrap_or(header);
    for field in header.split(|&byte| byte == b';') {
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
