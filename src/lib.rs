//! Tower middleware that shows where the time of an image request went.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attribute;
#[cfg(feature = "console")]
pub mod console;
pub mod in_progress;
pub mod metrics;
pub mod propagation;
mod redact;
pub mod request;
mod scope;
#[cfg(feature = "telemetry")]
pub mod telemetry;
pub mod trace;

#[cfg(feature = "telemetry")]
pub use self::telemetry::{
    Protocol, Settings, Telemetry, TelemetryBuilder, TelemetryError, TraceIdGenerator,
};
pub use self::{
    in_progress::{RequestsInProgress, RequestsInProgressLayer},
    propagation::{Propagator, Propagators},
    request::{ErrorKind, RequestTrace, Stage},
    trace::{ImageTraceLayer, Trust},
};
