//! The rules as a sampler of the SDK.

use std::sync::Arc;

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId},
};
use opentelemetry_sdk::{
    Resource,
    trace::{SamplingDecision, SamplingResult, ShouldSample},
};

use super::rules::Rules;
use crate::telemetry::settings::{Sampler, Settings};

/// Decides about root spans.
#[derive(Clone, Debug)]
pub(crate) struct XraySampler(pub(super) Arc<Rules>);

impl XraySampler {
    /// `None`: something else decides, or nothing is to be sampled.
    pub(crate) fn of(settings: &Settings, resource: &Resource) -> Option<Self> {
        let decides = matches!(settings.sampler, Sampler::Xray(_)) && settings.makes_traces();
        decides.then(|| Self(Rules::new(resource)))
    }
}

impl ShouldSample for XraySampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: match self.0.sample(trace_id, attributes) {
                true => SamplingDecision::RecordAndSample,
                false => SamplingDecision::Drop,
            },
            attributes: Vec::new(),
            trace_state: parent
                .map(|parent| parent.span().span_context().trace_state().clone())
                .unwrap_or_default(),
        }
    }
}
