//! The HTTP client under both OTLP transports.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use super::{
    answer::{Answer, Failure, Retry},
    connect::{Connector, Route},
    secrets::Secrets,
    seen::{FirstBytes, Spoken},
    tls::Tls,
};
use crate::{
    request::{Class, io_error_type},
    semconv::OTHER,
    telemetry::settings::{OtlpExporter, Protocol},
};

/// A collector answers with a few bytes; anything longer does not come from a collector.
const MAX_ANSWER: usize = 1024 * 1024;

type Connections = legacy::Client<Connector, Full<Bytes>>;

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(super) body: Bytes,
    pub(super) gzip: bool,
}

/// A client for one endpoint; it must be used on the I/O thread, where its connections live.
#[derive(Debug)]
pub(super) struct Client {
    connections: Mutex<Pool>,
    connector: Connector,
    headers: HeaderMap,
    timeout: Duration,
    http2: bool,
    tls: Option<Arc<Tls>>,
    first_bytes: Arc<FirstBytes>,
    /// Host and port, for messages.
    collector: String,
    secrets: Secrets,
}

/// The connections that are in use, and how often they were replaced.
#[derive(Clone, Debug)]
struct Pool {
    connections: Connections,
    generation: u64,
}

impl Client {
    pub(super) fn new(exporter: &OtlpExporter, tls: Option<Tls>) -> Self {
        let http2 = exporter.protocol == Protocol::Grpc;
        let agent = concat!("tower-image-trace/", env!("CARGO_PKG_VERSION"));
        let secret = |(name, value): &(HeaderName, HeaderValue)| {
            let mut value = value.clone();
            value.set_sensitive(true);
            (name.clone(), value)
        };
        let mut headers = HeaderMap::from_iter(exporter.headers.iter().map(secret));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(agent));
        let proxy = exporter.proxy.as_ref();
        let proxy = proxy.map(|proxy| Route::new(proxy, tls.is_some() || http2));
        if let Some(authorization) = proxy.as_ref().and_then(Route::authorization) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        let tls = tls.map(Arc::new);
        let authority = exporter.endpoint.authority();
        // A user and a password may stand before them.
        let collector = authority.and_then(|it| it.as_str().rsplit('@').next());
        let first_bytes = Arc::<FirstBytes>::default();
        let connector = Connector::new(tls.clone(), proxy, Arc::clone(&first_bytes));
        Self {
            connections: Mutex::new(Pool {
                connections: pool(http2, connector.clone()),
                generation: 0,
            }),
            connector,
            headers,
            timeout: exporter.timeout,
            http2,
            tls,
            first_bytes,
            collector: collector.unwrap_or_default().to_owned(),
            secrets: Secrets::of(exporter),
        }
    }

    #[cfg(feature = "otlp-grpc")]
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Posts `body` and reads the answer, all within the timeout of one attempt.
    ///
    /// `own` are the headers that make the protocol; they win over those from the settings.
    pub(super) async fn post(
        &self,
        uri: &Uri,
        own: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(own);
        let Pool {
            connections,
            generation,
        } = self.pool().clone();
        let exchange = timeout(self.timeout, self.exchange(&connections, request));
        exchange.await.unwrap_or_else(|_| {
            self.replace(generation);
            Err(Failure {
                message: format!("no answer within {:?}", self.timeout),
                error_type: Class::Timeout.as_str().into(),
                retry: Retry::Backoff,
            })
        })
    }

    /// Leaves a connection that hangs: over HTTP/2 all further requests would hang too.
    fn replace(&self, generation: u64) {
        let mut pool_in_use = self.pool();
        // Another request may have replaced it already.
        if pool_in_use.generation == generation {
            pool_in_use.generation += 1;
            pool_in_use.connections = pool(self.http2, self.connector.clone());
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(
        &self,
        connections: &Connections,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Failure> {
        let response = connections.request(request).await;
        let response = response.map_err(|error| self.failure(&error))?;
        let (head, mut body) = response.into_parts();
        let mut answer = Answer {
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
            is_cut: false,
            #[cfg(feature = "otlp-grpc")]
            trailers: None,
        };
        let mut read = BytesMut::new();
        while !answer.is_cut
            && let Some(frame) = body.frame().await
        {
            match frame.map_err(|error| self.failure(&error))?.into_data() {
                Ok(data) => {
                    let room = MAX_ANSWER - read.len();
                    answer.is_cut = data.len() > room;
                    read.extend_from_slice(&data[..data.len().min(room)]);
                }
                #[cfg(feature = "otlp-grpc")]
                Err(frame) => answer.trailers = frame.into_trailers().ok(),
                #[cfg(not(feature = "otlp-grpc"))]
                Err(_) => {}
            }
        }
        answer.body = read.freeze();
        if let Some(tls) = &self.tls {
            tls.answered();
        }
        Ok(answer)
    }

    fn failure(&self, error: &(dyn Error + 'static)) -> Failure {
        // A GOAWAY of HTTP/2 holds a text of the other end.
        let message = self.secrets.one_line(&chain(error));
        let explained = self.tls.as_ref().and_then(|tls| tls.explain(error));
        let error_type = match (&explained, Class::of(error, true)) {
            (Some(_), _) => Class::Tls.as_str(),
            (None, Some(class)) => class.as_str(),
            (None, None) => io_error_type(error).unwrap_or(OTHER),
        };
        let explained = explained.or_else(|| self.wrong_protocol(error));
        Failure {
            message: match explained {
                Some(explained) => format!("{explained} ({message})"),
                None => message,
            },
            error_type: error_type.into(),
            retry: Retry::Backoff,
        }
    }

    /// What speaks at the other end, when it is not the protocol that was set.
    fn wrong_protocol(&self, error: &(dyn Error + 'static)) -> Option<String> {
        // Without a connection nothing was spoken.
        let is_connect = |error: &legacy::Error| error.is_connect();
        let connected = !error.downcast_ref().is_some_and(is_connect) || self.tls.is_some();
        let spoken = self.first_bytes.spoken().filter(|_| connected)?;
        let collector = &self.collector;
        Some(match (spoken, self.tls.is_some(), self.http2) {
            (Spoken::Http1 | Spoken::Http2, true, _) => format!(
                "the collector at {collector} does not speak TLS: use http:// in the endpoint, or set \
                 GRPC_INSECURE=true and no certificate"
            ),
            (Spoken::Tls, false, _) => format!(
                "the collector at {collector} speaks TLS: use https:// in the endpoint, or set \
                 GRPC_INSECURE=false"
            ),
            (Spoken::Http1, false, true) => format!(
                "the collector at {collector} speaks HTTP/1.1: set PROTOCOL=http, or use its gRPC port \
                 (usually 4317)"
            ),
            (Spoken::Http2, false, false) => format!(
                "the collector at {collector} speaks gRPC: set PROTOCOL=grpc, or use its HTTP port \
                 (usually 4318)"
            ),
            (Spoken::Nothing, false, false) => format!(
                "the collector at {collector} has closed the connection without an answer, as a gRPC \
                 port does: use its HTTP port (usually 4318), or set PROTOCOL=grpc"
            ),
            (Spoken::Nothing, false, true) => format!(
                "the collector at {collector} has closed the connection without an answer: it may speak \
                 TLS (use https:// in the endpoint) or HTTP/1.1 (set PROTOCOL=http)"
            ),
            _ => return None,
        })
    }
}

fn pool(http2: bool, connector: Connector) -> Connections {
    legacy::Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in crate::instrument::chain(error).skip(1) {
        let cause_text = cause.to_string();
        // Many errors repeat their cause.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
    }
    text
}
