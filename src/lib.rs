//! Tower middleware that shows where the time of an image request went.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod propagation;
#[cfg(feature = "telemetry")]
pub mod telemetry;

#[cfg(feature = "telemetry")]
pub use telemetry::{
    Protocol, Settings, Telemetry, TelemetryBuilder, TelemetryError, TraceIdGenerator,
};
