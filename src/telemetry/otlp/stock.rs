//! Requests for metrics, made by the exporter of `opentelemetry-otlp`.
//!
//! The exporter gets an HTTP client that keeps the finished request instead of sending it. The way to
//! the collector is this crate's own, for all signals: each attempt has to be timed, retried, counted and
//! reported, and the exporter only says that something failed in the end.

use std::{
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Response, header::CONTENT_ENCODING};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    MetricExporter, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    error::OTelSdkError,
    metrics::{data::ResourceMetrics, exporter::PushMetricExporter as _},
};

use crate::telemetry::error::TelemetryError;

/// Where the exporter leaves its request.
#[derive(Clone, Debug, Default)]
struct Outbox(Arc<Mutex<Bytes>>);

#[async_trait]
impl HttpClient for Outbox {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // `OTEL_EXPORTER_OTLP_COMPRESSION` in the process environment counts for the exporter, and cannot
        // be overruled.
        let body = match request.headers().contains_key(CONTENT_ENCODING) {
            true => {
                let mut body = Vec::new();
                GzDecoder::new(request.body().as_ref()).read_to_end(&mut body)?;
                body.into()
            }
            false => request.into_body(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = body;
        Ok(Response::new(Bytes::new()))
    }
}

/// Makes the requests for collections of metrics.
#[derive(Debug)]
pub(crate) struct MetricEncoder {
    exporter: MetricExporter,
    outbox: Outbox,
}

impl MetricEncoder {
    pub(crate) fn new() -> Result<Self, TelemetryError> {
        let outbox = Outbox::default();
        // Everything is set, or the exporter would read it from the process environment.
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(outbox.clone())
            .with_endpoint("http://localhost")
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(Duration::from_secs(1))
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| TelemetryError::Exporter(Box::new(error)))?;
        Ok(Self { exporter, outbox })
    }

    /// An `ExportMetricsServiceRequest`.
    pub(crate) async fn encode(&self, metrics: &ResourceMetrics) -> Result<Bytes, OTelSdkError> {
        self.exporter.export(metrics).await?;
        let mut outbox = self.outbox.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut outbox))
    }
}
