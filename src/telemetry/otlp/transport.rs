//! One signal's way to the collector, over either protocol.

use http::{Uri, uri::PathAndQuery};

#[cfg(not(all(feature = "otlp-grpc", feature = "otlp-http")))]
use super::answer::Retry;
#[cfg(feature = "otlp-grpc")]
use super::grpc;
#[cfg(feature = "otlp-http")]
use super::http as otlp_http;
use super::{
    answer::{Accepted, Failure},
    client::Client,
    encode::Encoded,
    tls::{SystemRoots, Tls},
};
use crate::telemetry::{
    error::SettingError,
    settings::{OtlpExporter, Protocol},
    signal::Signal,
};

/// One signal's way to the collector.
#[derive(Debug)]
pub(crate) struct Transport {
    client: Client,
    uri: Uri,
    protocol: Protocol,
}

impl Transport {
    pub(crate) fn new(
        exporter: &OtlpExporter,
        signal: Signal,
        system: &SystemRoots,
    ) -> Result<Self, SettingError> {
        let tls = match exporter.uses_tls() {
            true => Some(Tls::new(exporter, system)?),
            false => None,
        };
        Ok(Self {
            client: Client::new(exporter, tls),
            uri: match exporter.protocol {
                Protocol::Grpc => with_path(&exporter.endpoint, grpc_method(signal)),
                Protocol::Http | Protocol::Https => exporter.endpoint.clone(),
            },
            protocol: exporter.protocol,
        })
    }

    /// Makes one attempt to send an encoded request.
    pub(crate) async fn send(&mut self, request: &Encoded) -> Result<Accepted, Failure> {
        match self.protocol {
            #[cfg(feature = "otlp-grpc")]
            Protocol::Grpc => grpc::send(&mut self.client, &self.uri, request).await,
            #[cfg(feature = "otlp-http")]
            Protocol::Http | Protocol::Https => {
                otlp_http::send(&mut self.client, &self.uri, request).await
            }
            #[cfg(not(all(feature = "otlp-grpc", feature = "otlp-http")))]
            protocol => Err(Failure {
                message: format!("compiled without OTLP over {protocol}"),
                retry: Retry::Never,
            }),
        }
    }
}

fn with_path(endpoint: &Uri, path: &'static str) -> Uri {
    let mut parts = endpoint.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    // Scheme and authority come out of a whole URL, so they fit together.
    Uri::from_parts(parts).unwrap_or_else(|_| endpoint.clone())
}

/// The gRPC method that takes the signal's requests.
const fn grpc_method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}
