//! Which traces are recorded and sampled from their start, where they are kept or not at their end.

use opentelemetry::trace::SpanContext;

use crate::telemetry::{
    keep::{Keep, Threshold, randomness},
    settings::Sampler,
};

/// Which traces are recorded, and which of them are sampled from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Whether rules take the place of the dice.
    pub(super) has_rules: bool,
    /// Whether the caller's decision counts.
    pub(crate) follows_callers: bool,
    /// Of the traces that start here, those that are recorded.
    pub(super) recorded: Threshold,
    /// Of these, those that the dice sample.
    pub(super) sampled: Threshold,
    pub(super) records_unsampled_callers: bool,
}

impl Head {
    pub(crate) fn new(sampler: &Sampler, keep: &Keep) -> Self {
        let share = match sampler {
            Sampler::AlwaysOn | Sampler::ParentBasedAlwaysOn | Sampler::Xray(_) => 1.0,
            Sampler::AlwaysOff | Sampler::ParentBasedAlwaysOff => 0.0,
            Sampler::TraceIdRatio(share) | Sampler::ParentBasedTraceIdRatio(share) => *share,
        };
        Self {
            has_rules: matches!(sampler, Sampler::Xray(_)),
            follows_callers: sampler.follows_callers(),
            recorded: Threshold::of_share(share),
            sampled: Threshold::of_share(share.min(keep.share())),
            records_unsampled_callers: keep.keeps_errors_of_unsampled(),
        }
    }

    /// Whether a trace that starts here is recorded.
    pub(super) fn records(&self, context: &SpanContext) -> bool {
        let randomness = || randomness(context.trace_id(), context.trace_state());
        self.recorded == Threshold::NONE || self.recorded.samples(randomness())
    }
}
