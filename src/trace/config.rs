use std::fmt;

use http::request::Parts;

use super::{
    Networks, Record, Trust, addresses::AddressRules, headers::RecordedHeaders, rpc::Methods,
};
use crate::{
    instrument::ErrorView,
    metrics::{HttpMetrics, RpcMetrics},
    request::Recording,
    semconv::KnownMethods,
};

/// What a layer does with each request; shared by all its services and their requests.
pub(super) struct Config {
    /// Whether there are spans at all.
    pub(super) traces: bool,
    pub(super) recording: Recording,
    /// Whether the trace ids that the tracer makes are random (W3C Trace Context level 2).
    pub(super) random_trace_ids: bool,
    pub(super) http_metrics: Option<HttpMetrics>,
    pub(super) rpc_metrics: Option<RpcMetrics>,
    /// Whether the sampler is asked before there are any attributes.
    pub(super) attributes_after_sampling: bool,
    pub(super) filter: Option<Box<Filter>>,
    pub(super) trust: Option<TrustRule>,
    pub(super) addresses: AddressRules,
    pub(super) request_headers: Option<RecordedHeaders>,
    pub(super) response_headers: Option<RecordedHeaders>,
    /// Whether responses have a `traceresponse` header.
    pub(super) trace_response: bool,
    pub(super) known_methods: KnownMethods,
    pub(super) rpc_methods: Methods,
    pub(super) error_views: Vec<ErrorView>,
}

pub(super) type Filter = dyn Fn(&Parts) -> Record + Send + Sync;

/// Decides what a request's propagated context is worth.
pub(super) enum TrustRule {
    Closure(Box<dyn Fn(&Parts) -> Trust + Send + Sync>),
    /// Peers in these networks are trusted, the others as said.
    Networks(Networks, Trust),
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("recording", &self.recording)
            .field("metrics", &self.http_metrics.is_some())
            .finish_non_exhaustive()
    }
}
