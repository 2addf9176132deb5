//! Export requests, made by the exporters of `opentelemetry-otlp`.
//!
//! They are given an HTTP client that keeps the finished request instead of sending it. The way to
//! the collector is this crate's own, for both protocols: each attempt has to be timed, retried,
//! counted and reported, and the exporters say no more than that something failed in the end.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, Protocol, RetryPolicy, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::settings::OtlpExporter;

/// A request as it goes over the wire, but for the framing of the protocol.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoded {
    pub(super) body: Bytes,
    pub(super) gzip: bool,
}

/// Where an exporter of `opentelemetry-otlp` leaves its request.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<Encoded>>);

impl Outbox {
    /// The request of the export that has just returned.
    pub(super) fn take(&self) -> Encoded {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An exporter's builder that leaves its requests here.
    pub(super) fn connect<B: WithExportConfig + WithHttpConfig>(
        &self,
        builder: B,
        settings: &OtlpExporter,
    ) -> B {
        // all set here, or the exporter would read them from the process environment
        let builder = builder
            .with_http_client(self.clone())
            .with_endpoint(settings.endpoint.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(settings.timeout)
            .with_retry_policy(RetryPolicy::disabled());
        if settings.gzip {
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
pub(super) struct SpanEncoder {
    exporter: opentelemetry_otlp::SpanExporter,
    outbox: Outbox,
}

impl SpanEncoder {
    pub(super) fn new(
        settings: &OtlpExporter,
        resource: &Resource,
    ) -> Result<Self, ExporterBuildError> {
        let outbox = Outbox::default();
        let builder = opentelemetry_otlp::SpanExporter::builder().with_http();
        let mut exporter = outbox.connect(builder, settings).build()?;
        exporter.set_resource(resource);
        Ok(Self { exporter, outbox })
    }

    pub(super) async fn encode(&self, batch: Vec<SpanData>) -> Encoded {
        // the outbox takes everything
        let _ = self.exporter.export(batch).await;
        self.outbox.take()
    }
}
