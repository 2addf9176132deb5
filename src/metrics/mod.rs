//! What the layers and stages measure.
mod http;
mod stages;

pub(crate) use self::{
    http::{HttpMetrics, Measurement},
    stages::StageMetrics,
};
