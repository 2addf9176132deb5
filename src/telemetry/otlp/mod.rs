//! OTLP: from spans, log records and metrics to bytes, and their way to the collector.
//!
//! `encode` makes the requests (`stock` those of metrics), `transport` sends one over `grpc` or `http` by
//! way of `client`, and `answer` is what the collector said to it. `connect` makes the connections, with
//! `tls`, and `seen` tells what speaks at the other end.

mod answer;
mod client;
mod connect;
pub(super) mod encode;
#[cfg(feature = "otlp-grpc")]
mod grpc;
#[cfg(feature = "otlp-http")]
mod http;
mod seen;
mod stock;
mod tls;
mod transport;
mod validity;

pub(crate) use self::{
    answer::{Accepted, Failure, Retry},
    encode::{Batch, data_points, metrics},
    stock::MetricEncoder,
    tls::SystemRoots,
    transport::Transport,
};
