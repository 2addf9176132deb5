//! What the layers and stages measure, and gauges for what the service around them has.
//!
//! The layers measure requests and stages by themselves. Everything that is asked for its value
//! now and then is registered with [`Gauges`], of which every
//! [`Telemetry`](crate::Telemetry) has one ([`gauges`](crate::Telemetry::gauges)).
mod gauges;
mod http;
mod stages;

pub use self::gauges::Gauges;
pub(crate) use self::{
    http::{HttpMetrics, Measurement},
    stages::StageMetrics,
};
