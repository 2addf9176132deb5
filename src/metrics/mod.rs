//! What the layers and stages measure, and gauges for the service around them.
//!
//! The layers measure requests and stages by themselves. Values that are read at each collection are
//! registered with [`Gauges`]; every [`Telemetry`](crate::Telemetry) has its own
//! ([`gauges`](crate::Telemetry::gauges)).
#![doc = include_str!("../../docs/metrics.md")]

mod active;
#[cfg(feature = "bound-instruments")]
mod bound;
mod buckets;
mod client;
mod gauges;
mod http;
mod imgproxy;
mod labels;
mod metric;
mod picture;
#[cfg(feature = "process")]
mod process;
mod rpc;
#[cfg(feature = "tokio-metrics")]
mod runtime;
mod series;
mod stages;
mod vips;

#[cfg(feature = "page")]
pub(crate) use self::gauges::{WatchedWorkers, WorkerCounts};
pub(crate) use self::{
    active::{ActiveRequests, ActiveSeries},
    buckets::SIZE_BUCKETS,
    client::ClientMetrics,
    http::{Extra, HttpMetrics},
    labels::Labels,
    picture::PictureMetrics,
    rpc::RpcMetrics,
    series::{Measurement, RequestSeries, labelled},
    stages::StageMetrics,
};
pub use self::{gauges::Gauges, metric::Metric, vips::VipsMemory};
