#[cfg(feature = "page")]
use std::sync::Arc;
use std::{fmt, mem};

use http::{HeaderValue, Response, request::Parts, response};
use opentelemetry::KeyValue;

use super::{
    Networks, Record, ServerTimingTrace, Trust, addresses::AddressRules, headers::RecordedHeaders,
    rpc::Methods,
};
#[cfg(feature = "page")]
use crate::request::RunningRequests;
use crate::{
    instrument::{ErrorView, guarded},
    metrics::{HttpMetrics, RpcMetrics},
    request::Recording,
    semconv::KnownMethods,
};

/// What a layer does with each request; shared by all its services and their requests.
pub(super) struct Config {
    /// Where running requests are listed.
    #[cfg(feature = "page")]
    pub(super) running: Option<Arc<RunningRequests>>,
    /// Whether there are spans at all.
    pub(super) traces: bool,
    pub(super) recording: Recording,
    /// Whether the trace ids that the tracer makes are random (W3C Trace Context level 2).
    pub(super) random_trace_ids: bool,
    pub(super) http_metrics: Option<HttpMetrics>,
    pub(super) rpc_metrics: Option<RpcMetrics>,
    pub(super) labels: LabelRules,
    /// Whether the filter, the trust rule or the labels see the head of the request.
    pub(super) sees_parts: bool,
    /// Whether the sampler is asked before there are any attributes.
    pub(super) attributes_after_sampling: bool,
    pub(super) filter: Option<Box<Filter>>,
    pub(super) trust: Option<TrustRule>,
    /// Which requests are sampled whatever the sampler says.
    pub(super) sample_when: Option<Box<SampleRule>>,
    pub(super) addresses: AddressRules,
    pub(super) request_headers: Option<RecordedHeaders>,
    pub(super) response_headers: Option<RecordedHeaders>,
    /// Whether responses have a `traceresponse` header.
    pub(super) trace_response: bool,
    /// How `Server-Timing` names the trace, if it does.
    pub(super) server_timing_trace: Option<ServerTimingTrace>,
    /// The origins whose pages may read the timing of responses.
    pub(super) timing_allow_origin: Option<HeaderValue>,
    pub(super) known_methods: KnownMethods,
    pub(super) rpc_methods: Methods,
    pub(super) error_views: Vec<ErrorView>,
}

pub(super) type Filter = dyn Fn(&Parts) -> Record + Send + Sync;

pub(super) type SampleRule = dyn Fn(&Parts) -> bool + Send + Sync;

/// Decides what a request's propagated context is worth.
pub(super) enum TrustRule {
    Closure(Box<dyn Fn(&Parts) -> Trust + Send + Sync>),
    /// Peers in these networks are trusted, the others as said.
    Networks(Networks, Trust),
}

/// What gives attributes of the service's own to a request's measurements.
#[derive(Default)]
pub(super) struct LabelRules {
    pub(super) of_request: Option<Box<RequestLabels>>,
    pub(super) of_response: Option<Box<ResponseLabels>>,
}

pub(super) type RequestLabels = dyn Fn(&Parts) -> Vec<KeyValue> + Send + Sync;
pub(super) type ResponseLabels = dyn Fn(&Parts, &response::Parts) -> Vec<KeyValue> + Send + Sync;

/// What the rules make of a request.
#[derive(Debug, Default)]
pub(super) struct StartLabels {
    pub(super) labels: Vec<KeyValue>,
    /// For when the response is there.
    pub(super) parts: Option<Box<Parts>>,
}

impl LabelRules {
    pub(super) fn any(&self) -> bool {
        self.of_request.is_some() || self.of_response.is_some()
    }

    pub(super) fn start(&self, parts: &Parts) -> StartLabels {
        // A panic in a closure of the service's must not fail the request.
        let labels = self.of_request.as_ref();
        let labels = labels.and_then(|labels| guarded(|| labels(parts)));
        StartLabels {
            labels: labels.unwrap_or_default(),
            parts: self.of_response.as_ref().map(|_| Box::new(parts.clone())),
        }
    }

    /// Shows both heads to the service.
    pub(super) fn end<B>(&self, request: &Parts, response: &mut Response<B>) -> Vec<KeyValue> {
        let Some(labels) = &self.of_response else {
            return Vec::new();
        };
        let (mut parts, ()) = Response::new(()).into_parts();
        let mut exchange = |parts: &mut response::Parts| {
            mem::swap(&mut parts.status, response.status_mut());
            mem::swap(&mut parts.version, response.version_mut());
            mem::swap(&mut parts.headers, response.headers_mut());
            mem::swap(&mut parts.extensions, response.extensions_mut());
        };
        exchange(&mut parts);
        let labels = guarded(|| labels(request, &parts));
        exchange(&mut parts);
        labels.unwrap_or_default()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("recording", &self.recording)
            .field("metrics", &self.http_metrics.is_some())
            .finish_non_exhaustive()
    }
}
