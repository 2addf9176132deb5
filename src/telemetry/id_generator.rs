//! How the ids of traces and spans are made.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_aws::trace::XrayIdGenerator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::error::SettingError;
use crate::propagation::take_next_trace_id;

/// How the ids of new traces are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

/// An id generator that takes the trace id given to
/// [`with_next_trace_id`](crate::propagation::with_next_trace_id), and otherwise makes one with `G`.
#[derive(Clone, Debug, Default)]
pub struct ContinuingIdGenerator<G> {
    inner: G,
}

impl<G> ContinuingIdGenerator<G> {
    /// Makes new ids with `inner`.
    pub const fn new(inner: G) -> Self {
        Self { inner }
    }
}

impl<G: IdGenerator> IdGenerator for ContinuingIdGenerator<G> {
    fn new_trace_id(&self) -> TraceId {
        take_next_trace_id().unwrap_or_else(|| self.inner.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.inner.new_span_id()
    }
}

/// The generator that a [`TraceIdGenerator`] stands for.
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
            // The SDK's generator makes the same id by way of a text, which takes most of the time that
            // a span needs to begin.
            Self::Xray(generator) => timed(
                SystemTime::now(),
                [generator.new_span_id(), generator.new_span_id()],
            ),
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

/// A trace id of X-Ray: the seconds since 1970 in 4 bytes, and 12 random bytes.
fn timed(now: SystemTime, random: [SpanId; 2]) -> TraceId {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let [high, low] = random.map(SpanId::to_bytes);
    let mut id = [0; 16];
    // The time in four bytes lasts until 2106, and then begins anew, as in the SDKs of AWS.
    id[..4].copy_from_slice(&(since.as_secs() as u32).to_be_bytes());
    id[4..8].copy_from_slice(&high[..4]);
    id[8..].copy_from_slice(&low);
    TraceId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::with_next_trace_id;

    #[test]
    fn a_continued_trace_keeps_its_id() {
        let id = TraceId::from_bytes([7; 16]);
        let generator = ContinuingIdGenerator::new(RandomIdGenerator::default());
        let ids = with_next_trace_id(id, || [generator.new_trace_id(), generator.new_trace_id()]);
        assert_eq!(ids[0], id);
        assert_ne!(ids[1], id);
    }

    #[test]
    fn names_go_there_and_back_in_any_case() {
        for kind in [TraceIdGenerator::Xray, TraceIdGenerator::Random] {
            let name = kind.to_string();
            for name in [name.to_ascii_uppercase(), name] {
                assert_eq!(name.parse::<TraceIdGenerator>().unwrap(), kind);
            }
        }
        let error = "uuid".parse::<TraceIdGenerator>().unwrap_err().to_string();
        assert!(error.contains("xray or random"), "{error}");
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
