//! Settings: from text to values, as plain data that knows nothing of exporters.
//!
//! `code` and `env` hold what the service and the environment say, `resolve` and `exporters` make
//! `values` of it, and `check` looks at values that code has built.

mod certificates;
mod check;
mod code;
#[cfg(feature = "_otlp")]
mod credentials;
mod endpoint;
mod env;
mod exporters;
mod headers;
mod page;
mod pairs;
mod pem;
mod prometheus;
mod protocol;
#[cfg(feature = "_otlp")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
mod proxy;
mod pulled;
mod resolve;
mod sampler;
mod trace_page;
mod values;
mod xray;

#[cfg(feature = "_otlp")]
pub(crate) use self::credentials::{Credentials, Roots};
#[cfg(feature = "_otlp")]
pub use self::proxy::Proxy;
pub(super) use self::{
    code::Code,
    endpoint::EndpointText,
    env::{PREFIX, Variables},
};
pub use self::{
    pem::Pem,
    protocol::Protocol,
    pulled::PrometheusExporter,
    sampler::Sampler,
    trace_page::TracePageSettings,
    values::{
        Batching, ExceptionSignal, Exporter, HistogramAggregation, OtlpExporter, Settings,
        SpanLimits,
    },
    xray::XrayRules,
};
