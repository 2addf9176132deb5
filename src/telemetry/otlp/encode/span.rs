//! `Span` of `opentelemetry/proto/trace/v1/trace.proto`.

use opentelemetry::trace::{Event, Link, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry_sdk::trace::SpanData;

use super::{value::attributes, writer::Writer};

// Bits 8 and 9 of the flags of spans and links (`SpanFlags`).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The fields of a `Span`.
pub(super) fn span(w: &mut Writer, span: &SpanData, limit: usize) {
    let context = &span.span_context;
    w.fixed32_field_16(flags(context.trace_flags(), span.parent_span_is_remote));
    w.message(15, |w| status(w, &span.status));
    w.count(14, span.links.dropped_count);
    for span_link in span.links.iter().rev() {
        w.message(13, |w| link(w, span_link, limit));
    }
    w.count(12, span.events.dropped_count);
    for span_event in span.events.iter().rev() {
        w.message(11, |w| event(w, span_event, limit));
    }
    w.count(10, span.dropped_attributes_count);
    attributes(w, 9, &span.attributes, limit);
    w.time(8, span.end_time);
    w.time(7, span.start_time);
    w.varint(6, kind(&span.span_kind));
    w.text(5, &span.name);
    if span.parent_span_id != SpanId::INVALID {
        w.bytes(4, &span.parent_span_id.to_bytes());
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
