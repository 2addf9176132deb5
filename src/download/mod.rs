//! Fetching sources: a client span for each attempt, with [`DownloadLayer`].
//!
//! ```
//! # #[cfg(feature = "hyper-client")] {
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{BoxError, Layer, ServiceExt};
//! use tower_image_trace::{DownloadLayer, RequestTrace};
//!
//! async fn fetch(trace: RequestTrace) -> Result<(), BoxError> {
//!     let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
//!     let client = DownloadLayer::new().layer(client);
//!
//!     let url = "http://cdn.example/cat.jpg";
//!     let request = Request::get(url).body(Empty::new())?;
//!     // The attempt is a child of `downloading_image`, because that is the current span in `run`.
//!     let response = trace.download(url).run(client.oneshot(request)).await?;
//!     # drop(response);
//!     Ok(())
//! }
//! # }
//! ```
//!
//! The span is a `CLIENT` span as OpenTelemetry's semantic conventions describe it (http-spans, HTTP
//! client), named after the method. Its parent is the current context, or the
//! [`Context`](opentelemetry::Context) in the request's extensions where there is one, such as
//! [`Stage::context`](crate::Stage::context). It ends with the last frame of the response's body.
//!
//! # The request it is for
//!
//! An attempt belongs to the current request ([`RequestTrace::current`](crate::RequestTrace::current)). A
//! client that works on another task gets it as a [`RequestTrace`](crate::RequestTrace) in the extensions
//! of the outgoing request. The settings of that request's trace layer (`sensitive_query_keys`,
//! `source_urls`, `longest_message` …) apply to `url.full` and to errors, and all spans of the request
//! follow one clock.
//!
//! # How an attempt ends
//!
//! | | status | `error.type` |
//! |---|---|---|
//! | 1xx, 2xx and 3xx | unset | |
//! | 4xx and 5xx | `Error` | the code |
//! | an error before the response | `Error` | `dns`, `connect`, `tls`, `timeout`, else the kind of the I/O error or the type |
//! | an error in the body | `Error` | `timeout`, else `body` |
//! | a panic | `Error` | `panic` |
//! | dropped before the response, or a 2xx response dropped before the end of its body | unset, [`image.stage.cancelled`](crate::attribute::STAGE_CANCELLED) | |
//!
//! The body of a redirect or of an error need not be read for the attempt to be complete.
//!
//! # Redirects and retries
//!
//! Each call is an attempt with a span of its own, so the layer belongs inside the service that retries
//! or follows redirects. An [`Attempts`] in the request's extensions numbers the attempts.
//!
//! # With reqwest
//!
//! With feature `reqwest`, `DownloadLayer::reqwest` makes a client of reqwest whose attempts, redirects and
//! all, are recorded as above.
//!
//! # Trace context in outgoing requests
//!
//! It is not sent unless [`propagate_external`](DownloadLayerBuilder::propagate_external) or
//! [`propagate_to`](DownloadLayerBuilder::propagate_to) asks for it.
//!
//! # The metric
//!
//! `http.client.request.duration` has the server's address and port, as the conventions require.
//! Where sources may come from anywhere, that is an unbounded number of series, so only the first
//! 100 servers of a layer are named
//! ([`measured_servers`](DownloadLayerBuilder::measured_servers)); the others share `_OTHER`.
mod attempts;
mod body;
mod config;
mod error;
mod finish;
mod future;
mod layer;
mod origin;
#[cfg(feature = "reqwest")]
mod reqwest;
mod server;
mod service;

#[cfg(feature = "reqwest")]
pub use self::reqwest::{ReqwestClient, ReqwestError, ReqwestFuture, ReqwestService};
pub use self::{
    attempts::Attempts,
    body::DownloadBody,
    future::DownloadFuture,
    layer::{DownloadLayer, DownloadLayerBuilder},
    origin::{Origin, OriginError},
    service::Download,
};
