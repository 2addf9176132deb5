//! `Span` of `opentelemetry/proto/trace/v1/trace.proto`.

use std::time::SystemTime;

use opentelemetry::{
    KeyValue,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::SpanData;

use super::{value::attributes, writer::Writer};

/// The field of the attributes.
pub(super) const ATTRIBUTES: u8 = 9;

// Bits 8 and 9 of the flags of spans and links (`SpanFlags`).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// What a span is made of.
///
/// The last value of a key counts among `attributes`; none of these keys is in `written`.
#[derive(Debug)]
pub(crate) struct Recorded<'a> {
    pub(crate) context: &'a SpanContext,
    pub(crate) parent: SpanId,
    pub(crate) parent_is_remote: bool,
    pub(crate) name: &'a str,
    pub(crate) kind: &'a SpanKind,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    /// The first attributes, as they were written when they came.
    pub(crate) written: &'a [u8],
    pub(crate) attributes: &'a [KeyValue],
    pub(crate) dropped_attributes: u32,
    pub(crate) events: &'a [Event],
    pub(crate) dropped_events: u32,
    pub(crate) links: &'a [Link],
    pub(crate) dropped_links: u32,
    pub(crate) status: &'a Status,
}

impl Recorded<'_> {
    /// Whether the parent is in another process, or there is none.
    pub(crate) fn is_local_root(&self) -> bool {
        self.parent_is_remote || self.parent == SpanId::INVALID
    }
}

impl<'a> From<&'a SpanData> for Recorded<'a> {
    fn from(span: &'a SpanData) -> Self {
        Self {
            context: &span.span_context,
            parent: span.parent_span_id,
            parent_is_remote: span.parent_span_is_remote,
            name: &span.name,
            kind: &span.span_kind,
            start: span.start_time,
            end: span.end_time,
            written: &[],
            attributes: &span.attributes,
            dropped_attributes: span.dropped_attributes_count,
            events: &span.events,
            dropped_events: span.events.dropped_count,
            links: &span.links,
            dropped_links: span.links.dropped_count,
            status: &span.status,
        }
    }
}

/// The fields of a `Span`.
pub(super) fn span(w: &mut Writer, span: &Recorded<'_>, limit: usize) {
    let context = span.context;
    w.fixed32_field_16(flags(context.trace_flags(), span.parent_is_remote));
    w.message(15, |w| status(w, span.status));
    w.count(14, span.dropped_links);
    for span_link in span.links.iter().rev() {
        w.message(13, |w| link(w, span_link, limit));
    }
    w.count(12, span.dropped_events);
    for span_event in span.events.iter().rev() {
        w.message(11, |w| event(w, span_event, limit));
    }
    w.count(10, span.dropped_attributes);
    attributes(w, ATTRIBUTES, span.attributes, limit);
    w.raw(span.written);
    w.time(8, span.end);
    w.time(7, span.start);
    w.varint(6, kind(span.kind));
    w.text(5, span.name);
    if span.parent != SpanId::INVALID {
        w.bytes(4, &span.parent.to_bytes());
    }
    trace_state(w, 3, context.trace_state());
    w.bytes(2, &context.span_id().to_bytes());
    w.bytes(1, &context.trace_id().to_bytes());
}

fn event(w: &mut Writer, event: &Event, limit: usize) {
    w.count(4, event.dropped_attributes_count);
    attributes(w, 3, &event.attributes, limit);
    w.text(2, &event.name);
    w.time(1, event.timestamp);
}

fn link(w: &mut Writer, link: &Link, limit: usize) {
    let context = &link.span_context;
    w.fixed32(6, flags(context.trace_flags(), context.is_remote()));
    w.count(5, link.dropped_attributes_count);
    attributes(w, 4, &link.attributes, limit);
    trace_state(w, 3, context.trace_state());
    w.bytes(2, &context.span_id().to_bytes());
    w.bytes(1, &context.trace_id().to_bytes());
}

fn status(w: &mut Writer, status: &Status) {
    match status {
        Status::Unset => {}
        Status::Ok => w.varint(3, 1),
        Status::Error { description } => {
            w.varint(3, 2);
            w.text(2, description);
        }
    }
}

const fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

/// The W3C flags, and whether the parent (of a link: the linked span) is in another process.
fn flags(flags: TraceFlags, is_remote: bool) -> u32 {
    let is_remote = if is_remote { IS_REMOTE } else { 0 };
    u32::from(flags.to_u8()) | HAS_IS_REMOTE | is_remote
}

/// The members as a `tracestate` header.
fn trace_state(w: &mut Writer, field: u8, state: &TraceState) {
    // The API gives them only from the first to the last, so they are measured first.
    let size: usize = state
        .into_iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    if size == 0 {
        return;
    }
    let size = size - 1;
    let mut target = w.take(size);
    let mut comma = "";
    for (key, value) in state {
        for part in [comma, key, "=", value] {
            let (this, rest) = target.split_at_mut(part.len());
            this.copy_from_slice(part.as_bytes());
            target = rest;
        }
        comma = ",";
    }
    w.length(field, size);
}
