//! One binary for all behaviours: a file a behaviour.
// Nobody else reaches the modules of a test binary, and a failed unwrap is a failed test.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod cancelled_requests;
mod completed_requests;
#[cfg(feature = "console")]
mod console_waterfall;
mod current_context;
mod failed_requests;
mod filter_and_trust;
#[cfg(all(feature = "otlp-grpc", feature = "otlp-http"))]
mod otlp_same_trace;
mod propagation_vectors;
mod requests_in_progress;
mod routes_and_methods;
mod stages;
mod support;
#[cfg(all(feature = "otlp-grpc", feature = "otlp-http"))]
mod telemetry_shutdown;
