//! The handle with which a service records the stages of a request.
//!
//! [`ImageTraceLayer`](crate::ImageTraceLayer) puts a [`RequestTrace`] into the extensions of each request.
//! From it come the [`Stage`]s: child spans that also feed `request_span_duration_seconds`.
//!
//! ```
//! use std::io;
//! use tower_image_trace::RequestTrace;
//!
//! # async fn fetch() -> io::Result<Vec<u8>> { Ok(Vec::new()) }
//! # fn resize(source: Vec<u8>) -> io::Result<Vec<u8>> { Ok(source) }
//! async fn thumbnail(trace: RequestTrace) -> io::Result<Vec<u8>> {
//!     // Ends when the future is ready; an `Err` is recorded, a drop before that is a cancellation.
//!     let source = trace.download("https://cdn.example/cat.jpg").run(fetch()).await?;
//!     // Runs on tokio's blocking pool, with the stage's context current there.
//!     trace.process("rs:fill:300:200").run_blocking(move || resize(source)).await
//! }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap()
//! #     .block_on(thumbnail(RequestTrace::default())).unwrap();
//! ```
//!
//! Nothing here can make a request fail. Without the layer, or with tracing off, the handle and its
//! stages only run what they are given.

mod body;
mod current;
mod error;
mod error_type;
mod future;
mod handle;
mod picture;
mod recording;
#[cfg(feature = "page")]
mod running;
mod stage;
mod stage_body;
mod state;

#[cfg(feature = "logs")]
pub(crate) use self::current::current_exists;
#[cfg(feature = "_otlp")]
pub(crate) use self::current::without_current;
#[cfg(feature = "tokio")]
pub use self::future::RunBlocking;
#[cfg(feature = "page")]
pub(crate) use self::running::{Asked, Place, RunningRequest, RunningRequests};
pub use self::{
    body::RequestBody,
    error::{AsError, ErrorKind, HoldsError, IsError},
    future::{Attached, Run, RunInfallible},
    handle::RequestTrace,
    picture::{Cache, Picture},
    stage::Stage,
    stage_body::StageBody,
};
pub(crate) use self::{
    current::Current,
    error::ErrorReport,
    error_type::{Class, as_error, io_error_type},
    recording::{Labelled, Layer, Recording},
    state::{Interruption, RequestState, Route},
};
