//! Tower middleware that shows where the time of an image request went.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attribute;
#[cfg(feature = "console")]
pub mod console;
pub mod in_progress;
mod metrics;
pub mod propagation;
mod redact;
pub mod request;
pub mod trace;

pub use self::{
    in_progress::{RequestsInProgress, RequestsInProgressLayer},
    request::{ErrorKind, RequestTrace, Stage},
    trace::{ImageTraceLayer, Trust},
};
