//! Export requests, made by the exporters of `opentelemetry-otlp`.
//!
//! The exporters get an HTTP client that keeps the finished request instead of sending it. The way to
//! the collector is this crate's own, for both protocols: each attempt has to be timed, retried,
//! counted and reported, and the exporters only say that something failed in the end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header::CONTENT_ENCODING};
use opentelemetry_http::{HttpClient, HttpError};
#[cfg(feature = "logs")]
use opentelemetry_otlp::LogExporter;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, MetricExporter, Protocol, RetryPolicy, SpanExporter,
    WithExportConfig, WithHttpConfig,
};
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::{data::ResourceMetrics, exporter::PushMetricExporter as _},
    trace::{SpanData, SpanExporter as _},
};

use crate::telemetry::error::TelemetryError;

/// A request as it goes over the wire, without the framing of the protocol.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded {
    pub(super) body: Bytes,
    pub(super) gzip: bool,
}

/// Where an exporter of `opentelemetry-otlp` leaves its request.
#[derive(Clone, Debug, Default)]
struct Outbox(Arc<Mutex<Encoded>>);

impl Outbox {
    /// The request of the export that has just returned.
    fn take(&self) -> Encoded {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An exporter's builder that leaves its requests here.
    fn connect<B: WithExportConfig + WithHttpConfig>(&self, builder: B, gzip: bool) -> B {
        // Everything is set, or the exporter would read it from the process environment.
        let builder = builder
            .with_http_client(self.clone())
            .with_endpoint("http://localhost")
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(Duration::from_secs(1))
            .with_retry_policy(RetryPolicy::disabled());
        if gzip {
            builder.with_compression(Compression::Gzip)
        } else {
            builder
        }
    }
}

#[async_trait]
impl HttpClient for Outbox {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let gzip = request.headers().contains_key(CONTENT_ENCODING);
        let body = request.into_body();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Encoded { body, gzip };
        Ok(Response::new(Bytes::new()))
    }
}

/// Makes the requests for batches of spans.
#[derive(Debug)]
pub(crate) struct SpanEncoder {
    exporter: SpanExporter,
    outbox: Outbox,
}

impl SpanEncoder {
    pub(crate) fn new(gzip: bool, resource: &Resource) -> Result<Self, TelemetryError> {
        let outbox = Outbox::default();
        let builder = outbox.connect(SpanExporter::builder().with_http(), gzip);
        let mut exporter = builder.build().map_err(not_built)?;
        exporter.set_resource(resource);
        Ok(Self { exporter, outbox })
    }

    pub(crate) async fn encode(&self, batch: Vec<SpanData>) -> Encoded {
        // The outbox takes everything.
        let _ = self.exporter.export(batch).await;
        self.outbox.take()
    }
}

/// Makes the requests for collections of metrics.
#[derive(Debug)]
pub(crate) struct MetricEncoder {
    exporter: MetricExporter,
    outbox: Outbox,
}

impl MetricEncoder {
    pub(crate) fn new(gzip: bool) -> Result<Self, TelemetryError> {
        let outbox = Outbox::default();
        let builder = outbox.connect(MetricExporter::builder().with_http(), gzip);
        let exporter = builder.build().map_err(not_built)?;
        Ok(Self { exporter, outbox })
    }

    pub(crate) async fn encode(&self, metrics: &ResourceMetrics) -> Result<Encoded, OTelSdkError> {
        self.exporter.export(metrics).await?;
        Ok(self.outbox.take())
    }
}

/// Makes the requests for batches of log records.
#[cfg(feature = "logs")]
#[derive(Debug)]
pub(crate) struct LogEncoder {
    exporter: LogExporter,
    outbox: Outbox,
}

#[cfg(feature = "logs")]
impl LogEncoder {
    pub(crate) fn new(gzip: bool, resource: &Resource) -> Result<Self, TelemetryError> {
        let outbox = Outbox::default();
        let builder = outbox.connect(LogExporter::builder().with_http(), gzip);
        let mut exporter = builder.build().map_err(not_built)?;
        exporter.set_resource(resource);
        Ok(Self { exporter, outbox })
    }

    pub(crate) async fn encode(&self, batch: LogBatch<'_>) -> Encoded {
        // The outbox takes everything.
        let _ = self.exporter.export(batch).await;
        self.outbox.take()
    }
}

fn not_built(error: ExporterBuildError) -> TelemetryError {
    TelemetryError::Exporter(Box::new(error))
}
