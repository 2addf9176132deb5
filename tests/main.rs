//! One binary for all behaviours: a file a behaviour.
// Nobody else reaches the modules of a test binary, and a failed unwrap is a failed test.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod addresses;
mod allocations;
#[cfg(all(feature = "reqwest", feature = "tracing"))]
mod axum_thumbnailer;
mod both_spans;
#[cfg(feature = "bound-instruments")]
mod bound_instruments;
mod buffer_pool;
mod cancelled_requests;
mod completed_requests;
mod console_waterfall;
mod continued_traces;
mod current_context;
mod dashboards;
mod download_attempts;
mod download_cancelled;
mod download_errors;
mod download_propagation;
mod every_row;
mod failed_requests;
mod field_faults;
mod filter_and_trust;
mod forced_sampling;
mod gauges;
mod grpc_calls;
mod grpc_clients;
mod histograms;
mod hostile_errors;
mod hostile_requests;
mod image_proxy;
mod keep;
mod metric_attributes;
mod otlp_failures;
mod otlp_in_the_field;
mod otlp_same_trace;
mod otlp_tls;
#[cfg(all(feature = "process", target_os = "linux"))]
mod process_metrics;
mod prometheus_page;
mod propagation_over_http;
mod propagation_properties;
mod propagation_together;
mod propagation_vectors;
mod propagation_w3c_trace_context;
mod real_connections;
mod recorded_headers;
mod redaction;
mod requests_in_progress;
#[cfg(feature = "reqwest")]
mod reqwest_downloads;
mod response_headers;
mod routes_and_methods;
#[cfg(feature = "tokio-metrics")]
mod runtime_metrics;
mod stages;
mod support;
#[cfg(feature = "aws")]
mod telemetry_aws;
#[cfg(feature = "logs")]
mod telemetry_console;
#[cfg(feature = "logs")]
mod telemetry_logs;
mod telemetry_metrics;
mod telemetry_self_metrics;
mod telemetry_settings;
mod telemetry_shutdown;
mod telemetry_throughput;
mod telemetry_without_traces;
mod trace_page;
#[cfg(feature = "tracing")]
mod tracing_recipe;
mod tracing_spans;
mod workers;
#[cfg(feature = "xray")]
mod xray_rules;
