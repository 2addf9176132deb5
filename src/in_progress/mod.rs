//! How many requests and images are in progress.
//!
//! ```
//! use tower::{ServiceBuilder, service_fn};
//! use tower_image_trace::RequestsInProgressLayer;
//!
//! let (layer, in_progress) = RequestsInProgressLayer::pair();
//! let service = ServiceBuilder::new().layer(layer).service(service_fn(
//!     async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(String::new())),
//! ));
//! assert_eq!(in_progress.requests(), 0);
//!
//! // Around the work on one image:
//! let image = in_progress.image();
//! assert_eq!(in_progress.images(), 1);
//! drop(image);
//! assert_eq!(in_progress.images(), 0);
//! # let _ = service;
//! ```
//!
//! Requests are counted by the layer. Images are counted where the service says so, as here, or by
//! [`Workers`](crate::pool::Workers) that have the counts
//! ([`with_in_progress`](crate::pool::Workers::with_in_progress)); without either, `images_in_progress` stays 0.
//!
//! A request is in progress from the call of its service until its response body is dropped, whether
//! that was read to the end, failed, cancelled or unwound.

mod body;
mod counter;
mod future;
mod layer;
mod service;

pub use self::{
    body::InProgressBody,
    counter::{ImageGuard, RequestsInProgress},
    future::InProgressFuture,
    layer::RequestsInProgressLayer,
    service::InProgress,
};
