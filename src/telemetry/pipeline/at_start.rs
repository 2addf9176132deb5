//! What is decided about spans when they start, where traces are kept or not at their end.

use std::sync::Arc;

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult};

use super::{head::Head, keeper::Keeper};
use crate::{
    propagation::{is_forced, without_threshold},
    telemetry::keep::{Threshold, randomness},
};

/// Decides about spans when they start. A span that is not sampled is recorded all the same if its trace may be
/// kept.
#[derive(Clone, Debug)]
pub(crate) struct AtStart {
    pub(crate) head: Head,
    /// `None`: nothing is decided at the end.
    pub(crate) keeper: Option<Arc<Keeper>>,
}

impl AtStart {
    /// Decides in place of a sampler, which has its say in new traces if it is made of rules.
    pub(super) fn change(
        &self,
        sampled: &mut SamplingResult,
        parent: Option<&Context>,
        trace_id: TraceId,
    ) {
        let span = parent.map(TraceContextExt::span);
        let context = span.as_ref().map(|span| span.span_context());
        let has_parent = context.is_some_and(SpanContext::is_valid);
        if has_parent || !self.head.has_rules || is_forced() {
            let is_recording = || span.as_ref().is_some_and(|span| span.is_recording());
            (sampled.decision, sampled.trace_state) = self.decide(context, is_recording, trace_id);
        } else if sampled.decision == SamplingDecision::Drop {
            sampled.decision = SamplingDecision::RecordOnly;
        }
    }

    /// The decision about a span below `parent`, which may be recording, and its `tracestate`.
    pub(crate) fn decide(
        &self,
        parent: Option<&SpanContext>,
        is_recording: impl Fn() -> bool,
        trace_id: TraceId,
    ) -> (SamplingDecision, TraceState) {
        let context = parent.filter(|context| context.is_valid());
        let state = context.map_or(&TraceState::NONE, SpanContext::trace_state);
        if is_forced() {
            return (
                SamplingDecision::RecordAndSample,
                Threshold::NONE.put_into(state),
            );
        }
        let head = &self.head;
        let decision = match context {
            Some(parent) if !parent.is_remote() => {
                // A span may begin after its parent has ended, or while it does.
                let is_kept = || {
                    let keeper = self.keeper.as_ref();
                    keeper.is_some_and(|keeper| keeper.keeps(parent.span_id()))
                };
                match parent.is_sampled() {
                    true => SamplingDecision::RecordAndSample,
                    false if is_kept() || is_recording() => SamplingDecision::RecordOnly,
                    false => SamplingDecision::Drop,
                }
            }
            Some(parent) if head.follows_callers => match parent.is_sampled() {
                true => SamplingDecision::RecordAndSample,
                false if head.records_unsampled_callers => SamplingDecision::RecordOnly,
                false => SamplingDecision::Drop,
            },
            _ => {
                let randomness = randomness(trace_id, state);
                if head.sampled.samples(randomness) {
                    let state = head.sampled.put_into(state);
                    return (SamplingDecision::RecordAndSample, state);
                }
                let decision = match head.recorded.samples(randomness) {
                    true => SamplingDecision::RecordOnly,
                    false => SamplingDecision::Drop,
                };
                return (decision, without_threshold(state.clone()));
            }
        };
        (decision, state.clone())
    }
}
