use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_aws::trace::XrayIdGenerator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::error::SettingError;

/// How the ids of new traces are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceIdGenerator {
    /// The first 4 bytes are the time, as AWS X-Ray wants it; the default, as in imgproxy.
    #[default]
    Xray,
    /// All 16 bytes are random.
    Random,
}

impl fmt::Display for TraceIdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xray => "xray",
            Self::Random => "random",
        })
    }
}

impl FromStr for TraceIdGenerator {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.to_ascii_lowercase().as_str() {
            "xray" => Ok(Self::Xray),
            "random" => Ok(Self::Random),
            _ => Err(SettingError::Invalid {
                setting: "trace_id_generator".to_owned(),
                value: text.to_owned(),
                expected: "xray or random".to_owned(),
            }),
        }
    }
}

thread_local! {
    static NEXT_TRACE_ID: Cell<TraceId> = const { Cell::new(TraceId::INVALID) };
}

/// Starts the root span made inside `start` in the trace `id`, when the tracer provider uses a
/// [`ContinuingIdGenerator`].
///
/// An AWS load balancer names the trace without being a span in it (`X-Amzn-Trace-Id: Root=…`), so
/// there is no parent to make the span a child of, and the span builder takes no trace id.
pub fn with_next_trace_id<R>(id: TraceId, start: impl FnOnce() -> R) -> R {
    // a guard, because the id must not leak into the next trace of this thread when `start` panics
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

/// An id generator that takes the trace id given to [`with_next_trace_id`], or else one of `G`'s.
#[derive(Clone, Debug, Default)]
pub struct ContinuingIdGenerator<G> {
    inner: G,
}

impl<G> ContinuingIdGenerator<G> {
    /// Makes new ids by `inner`.
    pub const fn new(inner: G) -> Self {
        Self { inner }
    }
}

impl<G: IdGenerator> IdGenerator for ContinuingIdGenerator<G> {
    fn new_trace_id(&self) -> TraceId {
        // taken, so that a second root span in the same closure is a trace of its own
        match NEXT_TRACE_ID.replace(TraceId::INVALID) {
            TraceId::INVALID => self.inner.new_trace_id(),
            id => id,
        }
    }

    fn new_span_id(&self) -> SpanId {
        self.inner.new_span_id()
    }
}

/// The generator a [`TraceIdGenerator`] stands for.
#[derive(Debug)]
pub(super) enum AnyIdGenerator {
    Xray(XrayIdGenerator),
    Random(RandomIdGenerator),
}

impl From<TraceIdGenerator> for AnyIdGenerator {
    fn from(kind: TraceIdGenerator) -> Self {
        match kind {
            TraceIdGenerator::Xray => Self::Xray(XrayIdGenerator::default()),
            TraceIdGenerator::Random => Self::Random(RandomIdGenerator::default()),
        }
    }
}

impl IdGenerator for AnyIdGenerator {
    fn new_trace_id(&self) -> TraceId {
        match self {
            Self::Xray(generator) => generator.new_trace_id(),
            Self::Random(generator) => generator.new_trace_id(),
        }
    }

    fn new_span_id(&self) -> SpanId {
        match self {
            Self::Xray(generator) => generator.new_span_id(),
            Self::Random(generator) => generator.new_span_id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TraceId = TraceId::from_bytes([7; 16]);

    #[test]
    fn the_next_trace_takes_the_id_and_the_one_after_does_not() {
        let generator = ContinuingIdGenerator::new(RandomIdGenerator::default());
        let ids = with_next_trace_id(ID, || [generator.new_trace_id(), generator.new_trace_id()]);
        assert_eq!(ids[0], ID);
        assert_ne!(ids[1], ID);
    }

    #[test]
    fn an_id_that_was_not_taken_does_not_leak() {
        let generator = ContinuingIdGenerator::new(RandomIdGenerator::default());
        with_next_trace_id(ID, || ());
        assert_ne!(generator.new_trace_id(), ID);
        let panicked = std::panic::catch_unwind(|| with_next_trace_id(ID, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_ne!(generator.new_trace_id(), ID);
    }

    #[test]
    fn xray_ids_start_with_the_time() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let id = AnyIdGenerator::from(TraceIdGenerator::Xray)
            .new_trace_id()
            .to_bytes();
        let time = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        assert!(u64::from(time) - now < 60, "{time} is not about {now}");
    }
}
