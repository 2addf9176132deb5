//! The root span of a request.
mod attributes;
mod body;
mod config;
mod finish;
mod future;
mod layer;
mod service;
mod trust;

pub(crate) use self::config::Config;
pub use self::{
    body::ResponseBody,
    future::ResponseFuture,
    layer::{ImageTraceLayer, ImageTraceLayerBuilder},
    service::ImageTrace,
    trust::Trust,
};
