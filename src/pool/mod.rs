//! Pools that an image service uses, with gauges: workers with a queue in front of them, and buffers
//! that are used again.

mod buffers;
#[cfg(feature = "tokio")]
mod workers;

pub use self::buffers::{Buffer, BufferPool};
#[cfg(feature = "tokio")]
pub use self::workers::{TooManyRequests, Worker, Workers};
