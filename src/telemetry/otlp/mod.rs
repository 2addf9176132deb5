//! OTLP: from spans, log records and metrics to bytes, and their way to the collector.
//!
//! `encode` makes the requests (`stock` those of metrics), `transport` sends one over `grpc` or `http` by
//! way of `client`, and `answer` is what the collector said to it, of which `secrets` makes a line. `connect`
//! makes the connections, with `tls`, and `seen` tells what speaks at the other end.

#[cfg(feature = "_otlp")]
mod answer;
#[cfg(feature = "_otlp")]
mod client;
#[cfg(feature = "_otlp")]
mod connect;
// Without a collector, only the live page reads what is encoded.
#[cfg_attr(not(feature = "_otlp"), allow(dead_code, unused_imports))]
pub(super) mod encode;
#[cfg(feature = "otlp-grpc")]
mod grpc;
#[cfg(feature = "otlp-http")]
mod http;
#[cfg(feature = "_otlp")]
mod secrets;
#[cfg(feature = "_otlp")]
mod seen;
#[cfg(feature = "_otlp")]
mod stock;
#[cfg(feature = "_otlp")]
mod tls;
#[cfg(feature = "_otlp")]
mod transport;
#[cfg(feature = "_otlp")]
mod validity;

#[cfg(any(feature = "_otlp", feature = "page"))]
pub(crate) use self::encode::Batch;
#[cfg(feature = "_otlp")]
pub(crate) use self::{
    answer::{Accepted, Failure, Retry},
    encode::{data_points, metrics},
    stock::MetricEncoder,
    tls::SystemRoots,
    transport::Transport,
};
