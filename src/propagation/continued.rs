//! Root spans of traces that began upstream.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState},
};

use super::{sampling::is_denied, undecided::continued_trace_id};

thread_local! {
    static NEXT_TRACE_ID: Cell<TraceId> = const { Cell::new(TraceId::INVALID) };
}

/// Runs `start`, in which the next root span gets the trace id `id`, if the id generator of the
/// tracer provider calls [`take_next_trace_id`].
///
/// An AWS load balancer names a trace without being a span in it (`X-Amzn-Trace-Id: Root=…`). There
/// is no parent for the root span, and a span builder takes no trace id.
pub fn with_next_trace_id<R>(id: TraceId, start: impl FnOnce() -> R) -> R {
    // A guard: the id must not leak into the next trace of this thread if `start` panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            NEXT_TRACE_ID.set(TraceId::INVALID);
        }
    }
    NEXT_TRACE_ID.set(id);
    let _reset = Reset;
    start()
}

/// The trace id given to [`with_next_trace_id`], for id generators. It is returned once, so that a
/// second root span in the same closure begins a trace of its own.
pub fn take_next_trace_id() -> Option<TraceId> {
    match NEXT_TRACE_ID.replace(TraceId::INVALID) {
        TraceId::INVALID => None,
        id => Some(id),
    }
}

/// The parent that stands for a caller who denied sampling and named no parent, if `cx` has such a
/// denial. Samplers treat it as any other caller who did not sample.
pub(crate) fn denied_parent(cx: &Context) -> Option<SpanContext> {
    if !is_denied(cx) {
        return None;
    }
    let trace_id = match continued_trace_id(cx) {
        Some(id) => id,
        None => TraceId::from(u128::from(random_bits()) << 64 | u128::from(random_bits())),
    };
    let span_id = SpanId::from(random_bits());
    let flags = TraceFlags::NOT_SAMPLED;
    Some(SpanContext::new(
        trace_id,
        span_id,
        flags,
        true,
        TraceState::NONE,
    ))
}

/// Bits of the standard library's randomly keyed hash. Ids need no better ones.
fn random_bits() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TraceId = TraceId::from_bytes([7; 16]);

    #[test]
    fn the_next_trace_takes_the_id_and_the_one_after_does_not() {
        let ids = with_next_trace_id(ID, || [take_next_trace_id(), take_next_trace_id()]);
        assert_eq!(ids, [Some(ID), None]);
    }

    #[test]
    fn an_id_that_was_not_taken_does_not_leak() {
        with_next_trace_id(ID, || ());
        assert_eq!(take_next_trace_id(), None);
        let panicked = std::panic::catch_unwind(|| with_next_trace_id(ID, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(take_next_trace_id(), None);
    }
}
