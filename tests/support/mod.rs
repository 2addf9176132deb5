//! Tools for the tests of behaviours.

pub mod body;
pub mod certificates;
pub mod download;
#[cfg(all(feature = "otlp-grpc", feature = "otlp-http"))]
pub mod events;
pub mod file;
#[cfg(all(feature = "otlp-grpc", feature = "otlp-http"))]
#[allow(dead_code)]
pub mod otlp;
pub mod process;
pub mod recorder;
pub mod registry;
pub mod semconv;

pub use self::{body::ChannelBody, recorder::Recorder};
