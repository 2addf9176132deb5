//! One signal's way to the collector, over either protocol.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::{Uri, uri::PathAndQuery};
use opentelemetry_sdk::Resource;

#[cfg(feature = "otlp-grpc")]
use super::grpc;
#[cfg(feature = "otlp-http")]
use super::http as otlp_http;
use super::{
    answer::{Accepted, Failure},
    client::{Client, Encoded},
    encode::{Batch, Header},
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
    gzip: bool,
    /// The resource of all requests.
    resource: Header,
}

impl Transport {
    pub(crate) fn new(
        exporter: &OtlpExporter,
        signal: Signal,
        system: &SystemRoots,
        resource: &Resource,
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
            gzip: exporter.gzip,
            resource: Header::resource(resource),
        })
    }

    /// The request for a batch, with the framing of the protocol.
    pub(crate) fn encode(&self, batch: &Batch) -> Encoded {
        // gRPC, Length-Prefixed-Message: a flag for compression, four bytes of length, the message.
        let room = match self.protocol {
            Protocol::Grpc => 5,
            Protocol::Http | Protocol::Https => 0,
        };
        let mut body = match self.gzip {
            true => gzip(&batch.request(&self.resource, 0), room),
            false => batch.request(&self.resource, room),
        };
        if room > 0 {
            // A request has the size of a batch, far below 4 GiB.
            let len = u32::try_from(body.len() - room).unwrap_or(u32::MAX);
            body[0] = self.gzip.into();
            body[1..room].copy_from_slice(&len.to_be_bytes());
        }
        Encoded {
            body: body.into(),
            gzip: self.gzip,
        }
    }

    /// Makes one attempt to send a request.
    pub(crate) async fn send(&self, request: &Encoded) -> Result<Accepted, Failure> {
        let mut accepted = match self.protocol {
            #[cfg(feature = "otlp-grpc")]
            Protocol::Grpc => grpc::send(&self.client, &self.uri, request).await,
            #[cfg(feature = "otlp-http")]
            Protocol::Http | Protocol::Https => {
                otlp_http::send(&self.client, &self.uri, request).await
            }
            #[cfg(not(all(feature = "otlp-grpc", feature = "otlp-http")))]
            protocol => Err(Failure::no_otlp(format!(
                "compiled without OTLP over {protocol}"
            ))),
        }?;
        accepted.message = self.client.secrets().one_line(&accepted.message);
        Ok(accepted)
    }
}

/// Compresses a request, behind so many free bytes.
fn gzip(request: &[u8], room: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![0; room], Compression::default());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(request);
    encoder.finish().unwrap_or_default()
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
