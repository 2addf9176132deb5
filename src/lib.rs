//! Tower middleware that shows where the time of an image request went.
//!
//! ```text
//!  request ──► RequestsInProgressLayer   +1 until the response body is dropped
//!         ──► ImageTraceLayer
//!               propagation       headers ─► parent context         (Trust: Parent | Link | Ignore)
//!               root span         SERVER, "{method} {route}"
//!               extensions        RequestTrace goes into the request: the handle
//!         ──► handler             trace.queue() ─► trace.download(url) ─► trace.process(options) ─► trace.stream()
//!               each stage        a child span and one duration; errors go to stage, root and errors_total
//!         ◄── response head       status code
//!         ◄── response body       frames counted
//!               the end           exactly once: completed, failed, cancelled in a phase, or panicked
//!         ──► Telemetry           OTLP over gRPC or HTTP, or the waterfall on the terminal
//! ```
//!
//! ```no_run
//! # #[cfg(all(feature = "axum", feature = "telemetry"))]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{io, net::SocketAddr, time::Duration};
//! use axum::{Router, routing::get};
//! use tower_image_trace::{RequestTrace, Telemetry, shutdown_signal};
//!
//! # async fn fetch() -> io::Result<Vec<u8>> { Ok(Vec::new()) }
//! # fn resize(source: Vec<u8>) -> io::Result<Vec<u8>> { Ok(source) }
//! async fn thumbnail(trace: RequestTrace) -> Result<Vec<u8>, String> {
//!     // The future reads the whole body: the stage ends with it.
//!     let source = trace.download("https://cdn.example/cat.jpg").run(fetch()).await;
//!     let source = source.map_err(|error| error.to_string())?;
//!     let work = trace.process("rs:fill:300:200").run_blocking(move || resize(source));
//!     work.await.map_err(|error| error.to_string())
//! }
//!
//! let telemetry = Telemetry::from_env()?; // IMGPROXY_OPEN_TELEMETRY_* and OTEL_*
//! let app: Router = Router::new()
//!     .route("/thumbnail/{source}", get(thumbnail))
//!     .layer(telemetry.trace_layer());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
//!     .with_graceful_shutdown(shutdown_signal())
//!     .await?;
//! telemetry.shutdown(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Where to look: [`trace`] is the layer and the root span, [`request`] the handle and its stages,
//! [`in_progress`] the counts, [`download`] the layer for what the service fetches, [`metrics`] the
//! gauges, [`pool`] workers and buffers, [`propagation`] the wire formats, `telemetry` the way from settings to
//! running providers, `console` the waterfall, `page` the live page of traces, [`attribute`] the names of the crate's own attributes.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | `RequestTrace` as an extractor, routes from `MatchedPath` |
//! | `tokio` | yes | `Stage::run_blocking` |
//! | `console` | yes | the waterfall on the terminal |
//! | `otlp-grpc`, `otlp-http` | yes | `Telemetry` with OTLP over gRPC, over HTTP with protobuf |
//! | `telemetry` | yes | what these three have in common: `Telemetry`, `Settings` |
//! | `hyper-client` | yes | `DownloadLayer` knows hyper's errors and the addresses it connects to |
//! | `reqwest` | | `DownloadLayer::reqwest`: the same for reqwest 0.13 |
//! | `logs` | | the service's `tracing` events over OTLP, trace ids in ordinary log lines |
//! | `tracing` | | `Telemetry::tracing_layer`: the service's `tracing` spans in its traces, with `logs` |
//! | `aws` | | resource attributes of EC2, ECS, EKS and Lambda |
//! | `xray` | yes | the sampling rules of AWS X-Ray |
//! | `prometheus` | yes | a page of metrics for Prometheus |
//! | `page` | yes | the live page of traces |
//! | `process`, `tokio-metrics` | yes | metrics of the process (Linux), of the tokio runtime |
//! | `libvips` | | libvips' memory; needs `libvips-dev` |
//! | `bound-instruments` | yes | metrics of requests, stages and errors through bound instruments, which the SDK calls experimental: of `Telemetry`'s layers where metrics are cumulative, of others with `bound_instruments` |
//!
//! Without any of them the middleware needs the OpenTelemetry API and nothing of its SDK.
#![forbid(unsafe_code)]
#![cfg_attr(
    docsrs,
    feature(doc_cfg),
    doc(auto_cfg(hide(feature = "_export", feature = "_otlp", feature = "_listener")))
)]

pub mod attribute;
#[cfg(feature = "console")]
pub mod console;
pub mod download;
pub mod in_progress;
mod instrument;
mod intern;
pub mod metrics;
#[cfg(feature = "page")]
pub mod page;
pub mod pool;
pub mod propagation;
mod redact;
pub mod request;
mod semconv;
#[cfg(feature = "telemetry")]
pub mod telemetry;
pub mod trace;

#[cfg(feature = "telemetry")]
pub use self::telemetry::{
    Protocol, Settings, Telemetry, TelemetryBuilder, TelemetryError, TraceIdGenerator,
    shutdown_signal,
};
pub use self::{
    download::DownloadLayer,
    in_progress::{RequestsInProgress, RequestsInProgressLayer},
    propagation::{Propagator, Propagators},
    request::{ErrorKind, RequestTrace, Stage},
    trace::{ImageTraceLayer, Trust},
};

/// The crate of the attributes and contexts that this one takes, in the version that fits.
pub use opentelemetry;

/// The README's example must compile.
#[cfg(all(doctest, feature = "axum", feature = "otlp-grpc"))]
#[doc = include_str!("../README.md")]
mod readme {}
