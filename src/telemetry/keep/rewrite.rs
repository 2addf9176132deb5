//! Changes of a span that is encoded already.

use opentelemetry::trace::{TraceFlags, TraceState};

use super::{Reason, Threshold};
use crate::{
    attribute::TRACE_KEPT,
    telemetry::otlp::encode::{Attributes, Fields, put_field},
};

/// Fields of a `Span`.
const TRACE_STATE: u32 = 3;
const FLAGS: u32 = 16;

/// The entry of a span whose trace is kept: with the threshold in its `tracestate`, if there is a new one, and,
/// for a local root, with the reason. It has the flag of what is sampled.
pub(crate) fn rewritten(
    entry: &[u8],
    threshold: Option<Threshold>,
    reason: Option<Reason>,
) -> Vec<u8> {
    let mut span = Vec::with_capacity(entry.len() + 64);
    let message = Fields::new(entry)
        .next()
        .map_or(&[][..], |field| field.value);
    let mut state = None;
    for field in Fields::new(message) {
        match (field.number, threshold) {
            (TRACE_STATE, Some(_)) => state = str::from_utf8(field.value).ok(),
            (FLAGS, _) => {
                span.extend_from_slice(field.whole);
                // The lowest of four bytes comes first.
                if let Some(lowest) = field.whole.len().checked_sub(4) {
                    let start = span.len() - field.whole.len();
                    span[start + lowest] |= TraceFlags::SAMPLED.to_u8();
                }
            }
            _ => span.extend_from_slice(field.whole),
        }
    }
    if let Some(threshold) = threshold {
        let state: TraceState = state
            .and_then(|state| state.parse().ok())
            .unwrap_or_default();
        let state = threshold.put_into(&state).header();
        put_field(&mut span, TRACE_STATE as u8, state.as_bytes());
    }
    if let Some(reason) = reason {
        let mut attribute = Attributes::default();
        attribute.text(TRACE_KEPT, reason.name(), usize::MAX);
        span.extend_from_slice(attribute.written());
    }
    let mut rewritten = Vec::with_capacity(span.len() + 8);
    put_field(&mut rewritten, 2, &span);
    rewritten
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::{
        KeyValue,
        trace::{SpanContext, SpanId, SpanKind, Status, TraceId},
    };
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
    use prost::Message;

    use super::*;
    use crate::telemetry::otlp::encode::{self, Recorded};

    fn entry(state: &str, flags: TraceFlags) -> Vec<u8> {
        let state = state.parse().unwrap_or_default();
        let ids = (TraceId::from(7_u128), SpanId::from(9_u64));
        let context = SpanContext::new(ids.0, ids.1, flags, false, state);
        let span = Recorded {
            context: &context,
            parent: SpanId::from(8_u64),
            parent_is_remote: true,
            name: "GET /",
            kind: &SpanKind::Server,
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::now(),
            written: &[],
            attributes: &[
                KeyValue::new("one", 1),
                KeyValue::new("two", "x".repeat(200)),
            ],
            dropped_attributes: 3,
            events: &[],
            dropped_events: 0,
            links: &[],
            dropped_links: 0,
            status: &Status::error("broken"),
        };
        encode::span(&span, None, <[u8]>::to_vec)
    }

    fn decode(entry: &[u8]) -> Span {
        let scope = ScopeSpans::decode(entry).expect("an entry of a scope");
        scope.spans.into_iter().next().expect("one span")
    }

    #[test]
    fn only_the_state_and_the_reason_are_new() {
        let half = Threshold::of_share(0.5);
        for (before, after) in [
            ("", "ot=th:8"),
            ("a=1", "ot=th:8,a=1"),
            ("ot=th:0", "ot=th:8"),
        ] {
            let old = entry(before, TraceFlags::default());
            let new = decode(&rewritten(&old, Some(half), Some(Reason::Slow)));
            assert_eq!(new.trace_state, after);
            let mut old = decode(&old);
            assert_eq!(new.attributes[..2], old.attributes[..]);
            assert_eq!(new.attributes[2].key, TRACE_KEPT);
            assert_eq!((old.flags, new.flags), (0x300, 0x301));
            old.flags = new.flags;
            old.trace_state = new.trace_state.clone();
            old.attributes.clone_from(&new.attributes);
            assert_eq!(new, old);
        }
        let old = entry("a=1", TraceFlags::SAMPLED);
        assert_eq!(decode(&rewritten(&old, None, None)), decode(&old));
    }
}
