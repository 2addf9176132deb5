//! What both OTLP transports have in common.

use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::client::Client;
use super::encode::Encoded;
#[cfg(feature = "otlp-grpc")]
use super::grpc;
#[cfg(feature = "otlp-http")]
use super::http as otlp_http;
use super::settings::{OtlpExporter, Protocol, Signal};

/// What the collector said to a request it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Items it refused nevertheless (OTLP's partial success).
    pub(super) rejected: u64,
    pub(super) message: String,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) retry: Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The same request would be refused again.
    Never,
    /// The collector is not there, or asks for a pause without saying how long.
    Backoff,
    /// The collector asks for a pause of this length.
    After(Duration),
}

/// The way of one signal to the collector.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    uri: Uri,
    protocol: Protocol,
}

impl Transport {
    pub(super) fn new(exporter: &OtlpExporter, signal: Signal) -> Self {
        let uri = match exporter.protocol {
            Protocol::Grpc => {
                let mut parts = exporter.endpoint.clone().into_parts();
                parts.path_and_query = Some(PathAndQuery::from_static(signal.grpc_method()));
                // scheme and authority come out of a whole URL, so they fit together
                Uri::from_parts(parts).unwrap_or_else(|_| exporter.endpoint.clone())
            }
            Protocol::Http | Protocol::Https => exporter.endpoint.clone(),
        };
        Self {
            client: Client::new(exporter),
            uri,
            protocol: exporter.protocol,
        }
    }

    /// Makes one attempt to send an encoded request.
    pub(super) async fn send(&mut self, request: &Encoded) -> Result<Accepted, Failure> {
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

/// What the body of a successful answer says about items that were refused.
///
/// The messages of all signals are the same on the wire, and one that cannot be read is taken as
/// full success: the collector has answered 2xx.
pub(super) fn accepted(body: &[u8]) -> Accepted {
    match ExportTraceServiceResponse::decode(body)
        .ok()
        .and_then(|answer| answer.partial_success)
    {
        Some(partial) => Accepted {
            rejected: partial.rejected_spans.try_into().unwrap_or(0),
            message: partial.error_message,
        },
        None => Accepted::default(),
    }
}
