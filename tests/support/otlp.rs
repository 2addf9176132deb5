//! A collector in this process that speaks gRPC and HTTP/protobuf on one port.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use axum::{Router, routing::post};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    trace::v1,
};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tonic::codec::CompressionEncoding;

/// A timeout for waits that succeed at once unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How the collector answers the next requests.
#[derive(Clone, Debug, Default)]
pub enum Behaviour {
    #[default]
    Accept,
    /// Accepts the request after a delay.
    Slow(Duration),
    /// Never answers.
    Hang,
    /// Accepts requests when so many wait for their answer at once.
    Together(usize),
    /// Accepts the request except for this many items.
    Reject(i64, &'static str),
    /// Refuses requests of more bytes, with 413 and with this status over gRPC.
    AtMost {
        bytes: usize,
        grpc: tonic::Code,
        message: &'static str,
    },
    /// Answers over HTTP with exactly this.
    Http(StatusCode, Vec<(header::HeaderName, String)>, String),
    /// Answers with this status, over HTTP and over gRPC.
    Refuse {
        http: StatusCode,
        grpc: tonic::Code,
        message: &'static str,
        retry_after: Option<Duration>,
    },
}

/// A received span with its resource.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    pub span: v1::Span,
    pub resource: BTreeMap<String, String>,
    pub scope: String,
}

impl ReceivedSpan {
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn attributes(&self) -> BTreeMap<String, String> {
        attributes(&self.span.attributes)
    }
}

impl Deref for ReceivedSpan {
    type Target = v1::Span;

    fn deref(&self) -> &v1::Span {
        &self.span
    }
}

#[derive(Default)]
struct State {
    spans: Vec<ReceivedSpan>,
    metrics: Vec<Metric>,
    metric_scopes: Vec<(String, String)>,
    logs: Vec<LogRecord>,
    /// The heads of all requests, including refused ones.
    requests: Vec<HeaderMap>,
    /// The size of the largest request, before compression.
    largest: usize,
    connections: usize,
    /// Requests that wait for their answer.
    waiting: usize,
    most_waiting: usize,
    /// When they came.
    arrivals: Vec<Instant>,
    behaviour: Behaviour,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The collector. It runs on its own thread, so that blocking and async tests can wait for it. Dropping
/// it stops it.
pub struct OtlpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OtlpServer {
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn start_tls(config: ServerConfig) -> Self {
        Self::start_tls_at(SocketAddr::from(([127, 0, 0, 1], 0)), config)
    }

    pub fn start_tls_at(address: SocketAddr, config: ServerConfig) -> Self {
        Self::start_with(address, Some(TlsAcceptor::from(Arc::new(config))))
    }

    /// Reserves an address at which nothing listens yet. It stays reserved while the socket lives.
    pub fn reserve() -> (SocketAddr, TcpSocket) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    /// Starts a collector on a reserved address, or on that of a stopped collector, as after a restart.
    pub fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, None)
    }

    fn start_with(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Collector(shared.clone());
        let thread = std::thread::spawn(move || {
            // A real collector is another process: its log must not go to the test's subscriber.
            let _suppressed = opentelemetry::Context::enter_telemetry_suppressed_scope();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, tls, collector) => {}
                }
            });
        });
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Stops the collector and returns what it had accepted.
    pub fn stop(self) -> Vec<ReceivedSpan> {
        let shared = self.shared.clone();
        drop(self);
        std::mem::take(&mut shared.state.lock().unwrap().spans)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `127.0.0.1:port`, for both protocols.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.state.lock().unwrap().behaviour = behaviour;
    }

    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.shared.state.lock().unwrap().spans.clone()
    }

    pub fn metrics(&self) -> Vec<Metric> {
        self.shared.state.lock().unwrap().metrics.clone()
    }

    /// The name and schema URL of each scope of each request.
    pub fn metric_scopes(&self) -> Vec<(String, String)> {
        self.shared.state.lock().unwrap().metric_scopes.clone()
    }

    pub fn logs(&self) -> Vec<LogRecord> {
        self.shared.state.lock().unwrap().logs.clone()
    }

    /// The headers of all requests, gRPC metadata included.
    pub fn requests(&self) -> Vec<HeaderMap> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// The size in bytes of the largest request, before compression.
    pub fn largest_request(&self) -> usize {
        self.shared.state.lock().unwrap().largest
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    /// The most requests that waited for their answer at the same time.
    pub fn most_waiting(&self) -> usize {
        self.shared.state.lock().unwrap().most_waiting
    }

    /// When each of the requests came.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.shared.state.lock().unwrap().arrivals.clone()
    }

    /// Blocks until the collector has this many spans.
    pub fn wait_for_spans(&self, count: usize) -> Vec<ReceivedSpan> {
        self.wait_for(|state| (state.spans.len() >= count).then(|| state.spans.clone()))
    }

    /// Blocks until the collector has this many log records.
    pub fn wait_for_logs(&self, count: usize) -> Vec<LogRecord> {
        self.wait_for(|state| (state.logs.len() >= count).then(|| state.logs.clone()))
    }

    /// Blocks until the collector has a metric with this name.
    pub fn wait_for_metric(&self, name: &str) -> Metric {
        self.wait_for(|state| {
            let mut metrics = state.metrics.iter();
            metrics.find(|metric| metric.name == name).cloned()
        })
    }

    /// Waits for metrics beyond the first `count` that arrived, and returns them.
    pub fn wait_for_metrics_beyond(&self, count: usize) -> Vec<Metric> {
        self.wait_for(|state| {
            Some(state.metrics.get(count..)?.to_vec()).filter(|new| !new.is_empty())
        })
    }

    /// Blocks until this many requests have come, accepted or refused.
    pub fn wait_for_requests(&self, count: usize) -> Vec<HeaderMap> {
        self.wait_for(|state| (state.requests.len() >= count).then(|| state.requests.clone()))
    }

    /// Blocks until this many connections were accepted.
    pub fn wait_for_connections(&self, count: usize) {
        self.wait_for(|state| (state.connections >= count).then_some(()));
    }

    fn wait_for<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{} requests, {} spans, metrics {:?}",
                state.requests.len(),
                state.spans.len(),
                state.metrics.iter().map(|m| &m.name).collect::<Vec<_>>(),
            );
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Drop for OtlpServer {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, collector: Collector) {
    let shared = Arc::clone(&collector.0);
    let traces = TraceServiceServer::new(collector.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let metrics = MetricsServiceServer::new(collector.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let logs = LogsServiceServer::new(collector.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let router = Router::new()
        .route("/v1/traces", post(http_traces))
        .route("/v1/metrics", post(http_metrics))
        .route("/v1/logs", post(http_logs))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(
            collector.clone(),
            as_told,
        ))
        .with_state(collector)
        .route_service(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            traces,
        )
        .route_service(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            metrics,
        )
        .route_service(
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            logs,
        );
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        shared.state.lock().unwrap().connections += 1;
        shared.changed.notify_all();
        let service = TowerToHyperService::new(router.clone());
        let tls = tls.clone();
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            match tls {
                None => {
                    let _ = connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    // As nginx does.
                    let connection = match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => connection.http2_only(),
                        _ => connection.http1_only(),
                    };
                    let _ = connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            }
        });
    }
}

#[derive(Clone)]
struct Collector(Arc<Shared>);

/// Decides how to answer: with the number of rejected items in an accepted request, or with a refusal.
type Verdict = Result<Option<(i64, &'static str)>, Refusal>;

struct Refusal {
    http: StatusCode,
    grpc: tonic::Code,
    message: &'static str,
    retry_after: Option<Duration>,
}

/// Counts a request that waits for its answer.
struct Waiting<'a>(&'a Collector);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.state.lock().unwrap().waiting -= 1;
    }
}

/// Answers over HTTP as [`Behaviour::Http`] says.
async fn as_told(
    axum::extract::State(collector): axum::extract::State<Collector>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let told = {
        let mut state = collector.0.state.lock().unwrap();
        match state.behaviour.clone() {
            Behaviour::Http(status, headers, body) => {
                state.requests.push(request.headers().clone());
                Some((status, headers, body))
            }
            _ => None,
        }
    };
    collector.0.changed.notify_all();
    let Some((status, headers, body)) = told else {
        return next.run(request).await;
    };
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body.into()).unwrap()
}

impl Collector {
    async fn take(
        &self,
        head: HeaderMap,
        request: &impl Message,
        store: impl FnOnce(&mut State),
    ) -> Verdict {
        let size = request.encoded_len();
        let behaviour = {
            let mut state = self.0.state.lock().unwrap();
            state.requests.push(head);
            state.largest = state.largest.max(size);
            state.waiting += 1;
            state.most_waiting = state.most_waiting.max(state.waiting);
            state.arrivals.push(Instant::now());
            state.behaviour.clone()
        };
        let _waiting = Waiting(self);
        self.0.changed.notify_all();
        let partial = match behaviour {
            Behaviour::Accept => None,
            Behaviour::Slow(pause) => {
                tokio::time::sleep(pause).await;
                None
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Together(count) => {
                while self.0.state.lock().unwrap().most_waiting < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                None
            }
            Behaviour::Reject(count, message) => Some((count, message)),
            Behaviour::AtMost {
                bytes,
                grpc,
                message,
            } if size > bytes => {
                return Err(Refusal {
                    http: StatusCode::PAYLOAD_TOO_LARGE,
                    grpc,
                    message,
                    retry_after: None,
                });
            }
            Behaviour::AtMost { .. } | Behaviour::Http(..) => None,
            Behaviour::Refuse {
                http,
                grpc,
                message,
                retry_after,
            } => {
                return Err(Refusal {
                    http,
                    grpc,
                    message,
                    retry_after,
                });
            }
        };
        store(&mut self.0.state.lock().unwrap());
        self.0.changed.notify_all();
        Ok(partial)
    }

    async fn take_traces(&self, head: HeaderMap, request: ExportTraceServiceRequest) -> Verdict {
        self.take(head, &request.clone(), |state| {
            for resource in request.resource_spans {
                let about = attributes(&resource.resource.unwrap_or_default().attributes);
                for scope in resource.scope_spans {
                    let name = scope.scope.unwrap_or_default().name;
                    state
                        .spans
                        .extend(scope.spans.into_iter().map(|span| ReceivedSpan {
                            span,
                            resource: about.clone(),
                            scope: name.clone(),
                        }));
                }
            }
        })
        .await
    }

    async fn take_metrics(&self, head: HeaderMap, request: ExportMetricsServiceRequest) -> Verdict {
        self.take(head, &request.clone(), |state| {
            let scopes = request
                .resource_metrics
                .into_iter()
                .flat_map(|r| r.scope_metrics);
            for scope in scopes {
                let name = scope.scope.unwrap_or_default().name;
                state.metric_scopes.push((name, scope.schema_url));
                state.metrics.extend(scope.metrics);
            }
        })
        .await
    }
}

impl Collector {
    async fn take_logs(&self, head: HeaderMap, request: ExportLogsServiceRequest) -> Verdict {
        self.take(head, &request.clone(), |state| {
            let scopes = request.resource_logs.into_iter().flat_map(|r| r.scope_logs);
            state
                .logs
                .extend(scopes.flat_map(|scope| scope.log_records));
        })
        .await
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        let (head, _, request) = request.into_parts();
        self.take_logs(head.into_headers(), request)
            .await
            .map_err(grpc_status)?;
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (head, _, request) = request.into_parts();
        let partial = self.take_traces(head.into_headers(), request).await;
        let partial_success = partial.map_err(grpc_status)?.map(trace_partial);
        Ok(tonic::Response::new(ExportTraceServiceResponse {
            partial_success,
        }))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let (head, _, request) = request.into_parts();
        let partial = self.take_metrics(head.into_headers(), request).await;
        let partial_success = partial.map_err(grpc_status)?.map(metrics_partial);
        Ok(tonic::Response::new(ExportMetricsServiceResponse {
            partial_success,
        }))
    }
}

fn trace_partial((rejected_spans, message): (i64, &str)) -> ExportTracePartialSuccess {
    ExportTracePartialSuccess {
        rejected_spans,
        error_message: message.to_owned(),
    }
}

fn metrics_partial((rejected_data_points, message): (i64, &str)) -> ExportMetricsPartialSuccess {
    ExportMetricsPartialSuccess {
        rejected_data_points,
        error_message: message.to_owned(),
    }
}

fn grpc_status(refusal: Refusal) -> tonic::Status {
    match refusal.retry_after {
        Some(pause) => {
            let details = retry_details(refusal.grpc, refusal.message, pause);
            tonic::Status::with_details(refusal.grpc, refusal.message, details)
        }
        None => tonic::Status::new(refusal.grpc, refusal.message),
    }
}

/// A `google.rpc.Status` that holds a `google.rpc.RetryInfo`.
fn retry_details(code: tonic::Code, message: &str, pause: Duration) -> Bytes {
    #[derive(Clone, PartialEq, Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(message, optional, tag = "2")]
        value: Option<RetryInfo>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Delay>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let delay = Delay {
        seconds: pause.as_secs().try_into().unwrap(),
        nanos: pause.subsec_nanos().try_into().unwrap(),
    };
    let info = Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: Some(RetryInfo {
            retry_delay: Some(delay),
        }),
    };
    let status = RpcStatus {
        code: code.into(),
        message: message.to_owned(),
        details: vec![info],
    };
    status.encode_to_vec().into()
}

type HttpAnswer = Result<axum::response::Response, axum::response::Response>;

async fn http_traces(
    axum::extract::State(collector): axum::extract::State<Collector>,
    head: HeaderMap,
    body: Bytes,
) -> HttpAnswer {
    let request = decode(&head, &body);
    let partial = collector
        .take_traces(head.clone(), request)
        .await
        .map_err(http_refusal)?;
    let partial_success = partial.map(trace_partial);
    Ok(http_answer(
        &head,
        &ExportTraceServiceResponse { partial_success },
    ))
}

async fn http_metrics(
    axum::extract::State(collector): axum::extract::State<Collector>,
    head: HeaderMap,
    body: Bytes,
) -> HttpAnswer {
    let request = decode(&head, &body);
    let partial = collector
        .take_metrics(head.clone(), request)
        .await
        .map_err(http_refusal)?;
    let partial_success = partial.map(metrics_partial);
    Ok(http_answer(
        &head,
        &ExportMetricsServiceResponse { partial_success },
    ))
}

async fn http_logs(
    axum::extract::State(collector): axum::extract::State<Collector>,
    head: HeaderMap,
    body: Bytes,
) -> HttpAnswer {
    let request = decode(&head, &body);
    collector
        .take_logs(head.clone(), request)
        .await
        .map_err(http_refusal)?;
    Ok(http_answer(&head, &ExportLogsServiceResponse::default()))
}

const PROTOBUF: (header::HeaderName, HeaderValue) = (
    header::CONTENT_TYPE,
    HeaderValue::from_static("application/x-protobuf"),
);

/// Panics on an invalid request, which the client sees as a broken connection.
fn decode<M: Message + Default>(head: &HeaderMap, body: &[u8]) -> M {
    assert_eq!(head[PROTOBUF.0], PROTOBUF.1);
    match head.get(header::CONTENT_ENCODING) {
        Some(encoding) => {
            assert_eq!(encoding, "gzip");
            let mut plain = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(body);
            std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
            M::decode(plain.as_slice()).unwrap()
        }
        None => M::decode(body).unwrap(),
    }
}

/// Compressed, if the exporter takes that.
fn http_answer(head: &HeaderMap, message: &impl Message) -> axum::response::Response {
    let mut body = message.encode_to_vec();
    let response = http::Response::builder().header(PROTOBUF.0, PROTOBUF.1);
    let response = match head.get(header::ACCEPT_ENCODING) {
        Some(coding) if coding == "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            std::io::Write::write_all(&mut encoder, &body).unwrap();
            body = encoder.finish().unwrap();
            response.header(header::CONTENT_ENCODING, "gzip")
        }
        _ => response,
    };
    response.body(body.into()).unwrap()
}

fn http_refusal(refusal: Refusal) -> axum::response::Response {
    let mut response = http::Response::builder().status(refusal.http);
    if let Some(pause) = refusal.retry_after {
        response = response.header(header::RETRY_AFTER, pause.as_secs());
    }
    response.body(refusal.message.into()).unwrap()
}

pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), text(attribute)))
        .collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
