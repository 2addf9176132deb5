use std::cell::Cell;

use opentelemetry::trace::TraceId;

thread_local! {
    static NEXT_TRACE_ID: Cell<TraceId> = const { Cell::new(TraceId::INVALID) };
}

/// Starts the root span made inside `start` in the trace `id`, if the tracer provider's id
/// generator asks [`take_next_trace_id`].
///
/// An AWS load balancer names the trace without being a span in it (`X-Amzn-Trace-Id: Root=…`), so
/// there is no parent to make the span a child of, and the span builder takes no trace id.
pub fn with_next_trace_id<R>(id: TraceId, start: impl FnOnce() -> R) -> R {
    // A guard, because the id must not leak into the next trace of this thread when `start` panics.
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

/// The id that [`with_next_trace_id`] wants for the trace that begins now; for id generators. It is
/// given once, so that a second root span in the same closure is a trace of its own.
pub fn take_next_trace_id() -> Option<TraceId> {
    match NEXT_TRACE_ID.replace(TraceId::INVALID) {
        TraceId::INVALID => None,
        id => Some(id),
    }
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
