//! The root span of a request.
mod attributes;
mod body;
mod config;
mod finish;
mod future;
mod layer;
mod service;
mod trust;

pub(crate) use self::{
    attributes::{
        OTHER_METHOD, content_length, int, is_bodiless, method_name, protocol_version, server,
    },
    config::{Config, ErrorView, Propagation, StartSpan},
    layer::{MeterChoice, known_methods, scope},
};
pub use self::{
    body::ResponseBody,
    future::ResponseFuture,
    layer::{ImageTraceLayer, ImageTraceLayerBuilder},
    service::ImageTrace,
    trust::Trust,
};
