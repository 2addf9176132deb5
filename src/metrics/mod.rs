//! What the layers and stages measure.
mod client;
mod http;
mod stages;

pub(crate) use self::{
    client::ClientMetrics,
    http::{HttpMetrics, Measurement},
    stages::StageMetrics,
};
