//! What the behaviours are tested with.

pub mod body;
pub mod recorder;

pub use self::{body::ChannelBody, recorder::Recorder};
