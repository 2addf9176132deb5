//! What the behaviours are tested with.

pub mod body;
pub mod certificates;
#[allow(dead_code)]
pub mod otlp;
pub mod recorder;
pub mod registry;

pub use self::{body::ChannelBody, recorder::Recorder};
