//! OTLP: from batches to bytes, and their way to the collector.
//!
//! `encode` makes the requests, `transport` sends one over `grpc` or `http` by way of `client`, and
//! `answer` is what the collector said to it.

mod answer;
mod client;
mod encode;
#[cfg(feature = "otlp-grpc")]
mod grpc;
#[cfg(feature = "otlp-http")]
mod http;
mod tls;
mod transport;

#[cfg(feature = "logs")]
pub(crate) use self::encode::LogEncoder;
pub(crate) use self::{
    answer::{Failure, Retry},
    encode::{Encoded, MetricEncoder, SpanEncoder},
    tls::SystemRoots,
    transport::Transport,
};
