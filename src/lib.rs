//! Tower middleware that shows where the time of an image request went.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attribute;
#[cfg(feature = "console")]
pub mod console;
pub mod propagation;
