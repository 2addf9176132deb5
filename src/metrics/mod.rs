//! What the layers and stages measure.
mod http;
mod rpc;
mod stages;

pub(crate) use self::{
    http::{HttpMetrics, Measurement},
    rpc::RpcMetrics,
    stages::StageMetrics,
};
