//! What the builder was told.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{
    endpoint::EndpointText,
    pem::Pem,
    protocol::Protocol,
    sampler::Sampler,
    values::{ExceptionSignal, HistogramAggregation},
};
#[cfg(feature = "_otlp")]
use crate::telemetry::keep::Keep;
use crate::{
    propagation::Propagators,
    telemetry::{id_generator::TraceIdGenerator, signal::Signal},
};

/// What was set by the builder; `None` leaves the decision to the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub(crate) console: bool,
    pub(crate) console_metrics: bool,
    pub(crate) console_logs: bool,
    pub(crate) endpoint: Option<EndpointText>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) insecure: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) service_name: Option<String>,
    pub(crate) service_version: Option<String>,
    pub(crate) resource_attributes: Vec<(String, String)>,
    pub(crate) propagators: Option<Propagators>,
    pub(crate) propagate_external: Option<bool>,
    pub(crate) trace_id_generator: Option<TraceIdGenerator>,
    pub(crate) sampler: Option<Sampler>,
    #[cfg(feature = "_otlp")]
    pub(crate) keep: Option<Keep>,
    pub(crate) metrics: Option<bool>,
    pub(crate) imgproxy_metrics: Option<bool>,
    pub(crate) prometheus: Option<bool>,
    pub(crate) prometheus_listen: Option<String>,
    pub(crate) prometheus_namespace: Option<String>,
    pub(crate) prometheus_without_scope: bool,
    pub(crate) page: Option<bool>,
    pub(crate) page_listen: Option<String>,
    pub(crate) page_max_bytes: Option<usize>,
    pub(crate) series_limit: Option<usize>,
    pub(crate) histogram_buckets: Vec<(String, Vec<f64>)>,
    pub(crate) histogram_aggregation: Option<HistogramAggregation>,
    pub(crate) logs: Option<bool>,
    pub(crate) exception_signal: Option<ExceptionSignal>,
    pub(crate) aws_resource: Option<bool>,
    pub(crate) max_queue_bytes: Option<usize>,
    pub(crate) max_concurrent_exports: Option<usize>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) server_certificate: Option<Pem>,
    pub(crate) client_certificate: Option<Pem>,
    pub(crate) client_key: Option<Pem>,
}

impl Code {
    /// Whether the signal is to be printed.
    pub(super) const fn prints(&self, signal: Signal) -> bool {
        match signal {
            Signal::Traces => self.console,
            Signal::Metrics => self.console_metrics,
            Signal::Logs => self.console_logs,
        }
    }
}
