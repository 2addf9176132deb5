//! B3, in one header or in several.

use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};

use super::{
    carrier::{Carrier, Format, Writer, text_map_propagator},
    extraction::Extraction,
    hex,
    sampling::Sampling,
};

static SINGLE: HeaderName = HeaderName::from_static("b3");
static TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
static SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
static PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

static SINGLE_FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| ["b3".to_owned()]);
static MULTI_FIELDS: LazyLock<[String; 4]> =
    LazyLock::new(|| [&TRACE_ID, &SPAN_ID, &SAMPLED, &FLAGS].map(ToString::to_string));

/// [B3](https://github.com/openzipkin/b3-propagation), in one header or in several.
///
/// Both kinds read both encodings: the `b3` header if it is valid, otherwise the `x-b3-*` headers.
/// Each kind writes its own encoding only.
///
/// Debug (`d`, or `x-b3-flags: 1`) means sampled, and the next hop gets it as debug. A parent
/// without a sampling state is not sampled here, and is passed on without a state. A sampling
/// state without ids is no parent: a lone `d` marks the trace that starts here, and a lone `0`
/// denies it ([`is_denied`](super::is_denied)).
#[derive(Clone, Copy, Debug)]
pub struct B3Propagator {
    multi: bool,
}

impl B3Propagator {
    /// Creates a propagator that writes the `b3` header.
    pub const fn single() -> Self {
        Self { multi: false }
    }

    /// Creates a propagator that writes the `x-b3-*` headers.
    pub const fn multi() -> Self {
        Self { multi: true }
    }
}

impl Format for B3Propagator {
    fn read<C: Carrier + ?Sized>(&self, extraction: &mut Extraction, carrier: &C) {
        let single = carrier.first(&SINGLE).and_then(parse_single);
        let found = match single {
            Some(B3 {
                parent: Some(_), ..
            }) => single,
            _ => parse_multi(carrier).or(single),
        };
        let Some(B3 { parent, state }) = found else {
            return;
        };
        let Some((trace_id, span_id)) = parent else {
            match state {
                _ if !extraction.is_undecided() => {}
                State::Debug => extraction.debug(),
                State::Deny => Sampling::Denied.store(&mut extraction.cx),
                State::Accept | State::Defer => {}
            }
            return;
        };
        let (flags, sampling) = match state {
            State::Deny => (TraceFlags::NOT_SAMPLED, Sampling::Decided),
            State::Accept => (TraceFlags::SAMPLED, Sampling::Decided),
            State::Debug => (TraceFlags::SAMPLED, Sampling::Debug(trace_id)),
            State::Defer => (TraceFlags::NOT_SAMPLED, Sampling::Deferred(span_id)),
        };
        let parent = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
        if extraction.set_parent(parent, state != State::Defer) {
            extraction.set_sampling(sampling);
        }
    }

    fn write<W: Writer + ?Sized>(&self, cx: &Context, writer: &mut W) {
        let span = cx.span();
        let span_context = span.span_context();
        let state = match Sampling::of(cx) {
            Sampling::Debug(_) => State::Debug,
            Sampling::Deferred(_) => State::Defer,
            Sampling::Decided | Sampling::Denied if span_context.is_sampled() => State::Accept,
            Sampling::Decided | Sampling::Denied => State::Deny,
        };
        let ids = span_context
            .is_valid()
            .then(|| (span_context.trace_id(), span_context.span_id()));
        if self.multi {
            write_multi(ids, state, writer);
        } else {
            write_single(ids, state, writer);
        }
    }

    fn header_names(&self) -> &[String] {
        if self.multi {
            &*MULTI_FIELDS
        } else {
            &*SINGLE_FIELDS
        }
    }
}

text_map_propagator!(B3Propagator);

/// Removes what an earlier hop left behind, in both encodings, since the next hop reads both, too.
pub(super) fn clear(headers: &mut HeaderMap) {
    for name in [
        &SINGLE,
        &TRACE_ID,
        &SPAN_ID,
        &PARENT_SPAN_ID,
        &SAMPLED,
        &FLAGS,
    ] {
        headers.remove(name);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Deny,
    Accept,
    Debug,
    Defer,
}

#[derive(Clone, Copy)]
struct B3 {
    parent: Option<(TraceId, SpanId)>,
    state: State,
}

/// `{trace id}-{span id}[-{state}[-{parent span id}]]`, or `{state}`.
fn parse_single(header: &[u8]) -> Option<B3> {
    let mut fields = header.splitn(5, |&byte| byte == b'-');
    let first = fields.next()?;
    let Some(span_id) = fields.next() else {
        return Some(B3 {
            parent: None,
            state: parse_single_state(first)?,
        });
    };
    let trace_id = hex::parse_64_or_128_bit_trace_id(first)?;
    let span_id = hex::parse_span_id(span_id)?;
    let state = match fields.next() {
        None => State::Defer,
        Some(state) => parse_single_state(state)?,
    };
    // The parent span id is not used, but must be valid.
    if let Some(parent_span_id) = fields.next() {
        hex::parse_span_id(parent_span_id)?;
    }
    fields.next().is_none().then_some(B3 {
        parent: Some((trace_id, span_id)),
        state,
    })
}

fn parse_single_state(state: &[u8]) -> Option<State> {
    match state {
        b"0" => Some(State::Deny),
        b"1" => Some(State::Accept),
        b"d" => Some(State::Debug),
        _ => None,
    }
}

/// The `x-b3-*` headers. `None` when they have nothing of use, or a bad state.
fn parse_multi<C: Carrier + ?Sized>(carrier: &C) -> Option<B3> {
    let trace_id = carrier.first(&TRACE_ID);
    let debug = carrier.first(&FLAGS) == Some(b"1");
    let sampled = carrier.first(&SAMPLED);
    if trace_id.is_none() && !debug && sampled.is_none() {
        return None;
    }
    let decision = match sampled {
        None => State::Defer,
        Some(value) => match parse_bool(value)? {
            true => State::Accept,
            false => State::Deny,
        },
    };
    // Debug implies accept, whatever the sampled header says.
    let state = if debug { State::Debug } else { decision };
    let parent = trace_id.and_then(|trace_id| {
        let trace_id = hex::parse_64_or_128_bit_trace_id(trace_id)?;
        let span_id = hex::parse_span_id(carrier.first(&SPAN_ID)?)?;
        if let Some(parent_span_id) = carrier.first(&PARENT_SPAN_ID) {
            hex::parse_span_id(parent_span_id)?;
        }
        Some((trace_id, span_id))
    });
    Some(B3 { parent, state })
}

/// `1`, `0`, or the `true` and `false` of older tracers.
pub(super) fn parse_bool(value: &[u8]) -> Option<bool> {
    if value == b"1" || value.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if value == b"0" || value.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

fn write_single<W: Writer + ?Sized>(ids: Option<(TraceId, SpanId)>, state: State, writer: &mut W) {
    let mut value = String::with_capacity(51);
    if let Some((trace_id, span_id)) = ids {
        hex::push(&mut value, &trace_id.to_bytes());
        value.push('-');
        hex::push(&mut value, &span_id.to_bytes());
        if state != State::Defer {
            value.push('-');
        }
    }
    value.push_str(match state {
        State::Deny => "0",
        State::Accept => "1",
        State::Debug => "d",
        State::Defer => "",
    });
    writer.set(&SINGLE, value);
}

fn write_multi<W: Writer + ?Sized>(ids: Option<(TraceId, SpanId)>, state: State, writer: &mut W) {
    let hex = |bytes: &[u8]| {
        let mut value = String::with_capacity(bytes.len() * 2);
        hex::push(&mut value, bytes);
        value
    };
    if let Some((trace_id, span_id)) = ids {
        writer.set(&TRACE_ID, hex(&trace_id.to_bytes()));
        writer.set(&SPAN_ID, hex(&span_id.to_bytes()));
    }
    match state {
        State::Deny => writer.set(&SAMPLED, "0".to_owned()),
        State::Accept => writer.set(&SAMPLED, "1".to_owned()),
        State::Debug => writer.set(&FLAGS, "1".to_owned()),
        State::Defer => {}
    }
}
