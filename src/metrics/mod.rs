//! What the layers and stages measure, and gauges for what the service around them has.
//!
//! The layers measure requests and stages by themselves. Everything that is asked for its value
//! now and then is registered with [`Gauges`], of which every
//! [`Telemetry`](crate::Telemetry) has one ([`gauges`](crate::Telemetry::gauges)).
mod active;
#[cfg(feature = "bound-instruments")]
mod bound;
mod buffers;
mod client;
mod gauges;
mod http;
mod imgproxy;
#[cfg(feature = "process")]
mod process;
mod rpc;
#[cfg(feature = "tokio-metrics")]
mod runtime;
mod stages;
mod vips;
#[cfg(feature = "tokio")]
mod workers;

use self::imgproxy::ImgproxyMetrics;
#[cfg(feature = "tokio")]
pub use self::workers::{TooManyRequests, Worker, Workers};
pub(crate) use self::{
    active::{ActiveRequests, ActiveSeries},
    client::ClientMetrics,
    gauges::Name,
    http::{HttpMetrics, Measurement, RequestSeries},
    rpc::RpcMetrics,
    stages::StageMetrics,
};
pub use self::{
    buffers::{Buffer, BufferPool},
    gauges::Gauges,
    vips::VipsMemory,
};
