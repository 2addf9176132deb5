//! From settings to running providers: [`Telemetry`].
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_image_trace::telemetry::Telemetry;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::from_env()?; // IMGPROXY_OPEN_TELEMETRY_* and OTEL_*
//! // … serve requests …
//! telemetry.shutdown(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Spans go into a bounded queue; a thread with its own runtime sends them. So exporting works on every
//! kind of runtime and without one, never delays a request, and ends when asked to.
//!
//! # Mistakes in settings
//!
//! A mistake in code or in one of the crate's own variables is an error at the start, and all of them
//! are named together. `OTEL_*` variables belong to whoever runs the platform: a mistake there is a
//! [`SettingWarning`], and the variable is ignored, as the OpenTelemetry specification says.
//!
//! # When the collector is away
//!
//! A batch is retried for `OTEL_BSP_EXPORT_TIMEOUT` (30 s), with pauses from 0.25 s to 2 s, or as long
//! as the collector asks for, up to ten minutes. Meanwhile the queue takes `OTEL_BSP_MAX_QUEUE_SIZE` spans
//! (16,384), encoded, and at most [`Settings::max_queue_bytes`] (8 MiB; the root span of a request has about
//! 300 bytes). That survives a restart of 10 s at 1,000 spans/s. What does not fit is dropped and counted.
//! After a longer outage the collector gets what is recent, not what is oldest.
//!
//! [`Settings::max_concurrent_exports`] requests of a signal are on their way at once. Each stays below 4 MiB,
//! which is what receivers of gRPC take by default; one that is too large for the collector nevertheless is
//! split, down to one span.
//!
//! # Sampling rules of X-Ray
//!
//! With feature `xray`, [`Sampler::Xray`] samples by the rules of AWS X-Ray, of which a service on a local address
//! knows: the X-Ray daemon, the CloudWatch agent, or a collector with the extension `awsproxy`. The thread that
//! exports asks it for the rules and for the quotas of this process, so that no request waits for it.
//!
//! # Metrics that are pulled
//!
//! With feature `prometheus`, `Telemetry::prometheus` is a service with a page of metrics, with a collector or
//! without one. `OTEL_METRICS_EXPORTER=prometheus` and `IMGPROXY_PROMETHEUS_BIND` also start a listener for it.
//!
//! # The live page
//!
//! With feature `page`, `Telemetry::trace_page` is a service with what runs and with samples of what was slow,
//! failed or cancelled, with a collector or without one: see the module `page`.
//! `IMGPROXY_OPEN_TELEMETRY_PAGE_BIND` starts a listener for it.
//!
//! # What is kept
//!
//! Without further settings all that the sampler takes is exported. With `Keep` the spans of a request wait until
//! it ends, and are exported when it failed, was cancelled or was slow, or if the dice say so.
//!
//! # What it says about itself
//!
//! A line at the start says what was resolved, or that telemetry is off. Later lines report the first export, failures, recovery
//! and losses, at most once a minute each: see [`TelemetryEvent`]. They are `tracing` events with
//! the target `tower_image_trace::telemetry`, and go to [`TelemetryBuilder::on_event`]. Without either, they
//! are lines on standard error; those of the start are repeated in the log when it has a subscriber. The counts are in
//! [`Telemetry::span_stats`] and its siblings, and among the metrics as `otel.sdk.exporter.*` and
//! `otel.sdk.processor.*`.
#![doc = include_str!("../../docs/settings.md")]

#[cfg(any(feature = "page", feature = "prometheus"))]
mod accept;
#[cfg(feature = "aws")]
mod aws;
mod builder;
mod error;
mod event;
// What is pulled only has no queue.
#[cfg(feature = "_export")]
#[cfg_attr(
    not(any(feature = "_otlp", feature = "console")),
    allow(dead_code, unreachable_code, unused_variables)
)]
mod export;
mod id_generator;
#[cfg(feature = "_otlp")]
mod keep;
#[cfg(feature = "_listener")]
mod listener;
#[cfg(feature = "logs")]
mod log_lines;
#[cfg(not(feature = "_export"))]
mod no_pipeline;
#[cfg(any(feature = "_otlp", feature = "page"))]
mod otlp;
mod outlets;
#[cfg(feature = "_export")]
mod overflow;
#[cfg(feature = "_export")]
#[cfg_attr(not(any(feature = "_otlp", feature = "console")), allow(dead_code))]
mod pipeline;
#[cfg(feature = "prometheus")]
mod prometheus;
mod providers;
mod resource;
mod settings;
mod shown;
mod shutdown_signal;
mod signal;
mod start;
#[cfg(feature = "tracing")]
mod tracing_layer;
mod views;
#[cfg(feature = "_otlp")]
mod written;
#[cfg(feature = "xray")]
mod xray;

#[cfg(feature = "_otlp")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
pub use self::keep::{EndedRequest, Keep};
#[cfg(feature = "logs")]
pub use self::log_lines::WithTraceIds;
#[cfg(feature = "prometheus")]
pub use self::prometheus::{Prometheus, PrometheusBody, PrometheusFuture};
#[cfg(feature = "_otlp")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "otlp-grpc", feature = "otlp-http"))))]
pub use self::settings::Proxy;
#[cfg(feature = "page")]
pub(crate) use self::{
    accept::takes_gzip,
    otlp::{
        Batch,
        encode::{Header, message, span_name},
    },
    pipeline::{Ended, Gathered, Outcome, Pipeline, Taker, Trace},
    shutdown_signal::asked_to_stop,
    signal::Signal,
};
pub use self::{
    builder::TelemetryBuilder,
    error::{Consequence, SettingError, SettingWarning, TelemetryError},
    event::{SignalStats, TelemetryEvent},
    id_generator::{ContinuingIdGenerator, TraceIdGenerator},
    providers::Telemetry,
    settings::{
        Batching, ExceptionSignal, Exporter, HistogramAggregation, OtlpExporter, Pem,
        PrometheusExporter, Protocol, Sampler, Settings, SpanLimits, TracePageSettings, XrayRules,
    },
    shutdown_signal::shutdown_signal,
};
