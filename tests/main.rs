//! One binary for all behaviours: a file a behaviour, each named in the sentence it proves.

#[cfg(feature = "console")]
mod console_waterfall;
