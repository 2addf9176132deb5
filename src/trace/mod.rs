//! The root span of a request.
mod addresses;
mod attributes;
mod body;
mod config;
mod filter;
mod finish;
mod future;
mod headers;
mod layer;
mod response_headers;
mod rpc;
mod service;
mod trust;

pub(crate) use self::{
    addresses::server,
    attributes::{OTHER_METHOD, content_length, int, is_bodiless, method_name, protocol_version},
    config::{Config, ErrorView, Propagation, StartSpan},
    layer::{MeterChoice, known_methods, scope},
};
pub use self::{
    addresses::{Networks, NetworksError, PeerAddr},
    body::ResponseBody,
    filter::Skip,
    future::ResponseFuture,
    headers::{HeaderAllowList, HeaderAllowListError},
    layer::{ImageTraceLayer, ImageTraceLayerBuilder},
    service::ImageTrace,
    trust::Trust,
};
pub use crate::redact::SourceUrls;
