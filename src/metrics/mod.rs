//! What the layers and stages measure.
mod client;
mod http;
mod rpc;
mod stages;

pub(crate) use self::{
    client::ClientMetrics,
    http::{HttpMetrics, Measurement},
    rpc::RpcMetrics,
    stages::StageMetrics,
};
