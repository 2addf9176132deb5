//! The stacks, each as its own documentation has it, with one service below that does what the
//! path says, and a client that is hyper's own.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use axum::{Router, error_handling::HandleErrorLayer, routing::any};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use opentelemetry::{
    Context,
    trace::{SpanKind, TraceContextExt},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_image_trace::{
    RequestTrace, RequestsInProgress, RequestsInProgressLayer, trace::PeerAddr,
};

use super::rows::Row;
use crate::support::{Recorder, recorder::Span};

pub type Answer = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stack {
    Axum,
    Hyper1,
    Hyper2,
    Tonic,
}

pub const STACKS: [Stack; 4] = [Stack::Axum, Stack::Hyper1, Stack::Hyper2, Stack::Tonic];

impl Stack {
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Hyper2 | Self::Tonic)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Client {
    Reads,
    LeavesTheHandler,
    LeavesTheBody,
}

/// How often the request's context was looked for, and was not the current one.
#[derive(Clone, Default)]
pub struct Contexts(Arc<[AtomicUsize; 2]>);

impl Contexts {
    pub fn seen(&self) -> usize {
        self.0[0].load(Ordering::SeqCst)
    }

    pub fn wrong(&self) -> usize {
        self.0[1].load(Ordering::SeqCst)
    }

    fn look(&self, trace: &RequestTrace) {
        let current = Context::map_current(|current| current.span().span_context().trace_id());
        self.0[0].fetch_add(1, Ordering::SeqCst);
        if current != trace.trace_id() {
            self.0[1].fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub struct Server {
    stack: Stack,
    address: SocketAddr,
    hangs: Arc<Notify>,
    pub recorder: Recorder,
    pub in_progress: RequestsInProgress,
    pub contexts: Contexts,
}

impl Server {
    pub async fn start(stack: Stack) -> Self {
        let recorder = Recorder::new();
        let (count, in_progress) = RequestsInProgressLayer::pair();
        let hangs = Arc::<Notify>::default();
        let contexts = Contexts::default();
        let behave = BehaveLayer {
            stack,
            hangs: Arc::clone(&hangs),
            contexts: contexts.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match stack {
            Stack::Axum => {
                let layers = ServiceBuilder::new()
                    .layer(HandleErrorLayer::new(async |_: BoxError| {
                        StatusCode::BAD_GATEWAY
                    }))
                    .layer(count)
                    .layer(recorder.layer())
                    .layer(behave);
                let app = Router::new()
                    .route("/rows/{row}", any(async || "ok"))
                    .layer(layers)
                    .into_make_service_with_connect_info::<SocketAddr>();
                tokio::spawn(async { axum::serve(listener, app).await });
            }
            Stack::Hyper1 | Stack::Hyper2 => {
                let service = ServiceBuilder::new()
                    .layer(count)
                    .layer(recorder.layer())
                    .layer(behave)
                    .service(service_fn(async |_: Request<Incoming>| {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
                    }));
                tokio::spawn(async move {
                    while let Ok((stream, peer)) = listener.accept().await {
                        let peer = PeerAddr::from(peer);
                        let service = ServiceBuilder::new()
                            .map_request(move |mut request: Request<Incoming>| {
                                request.extensions_mut().insert(peer.clone());
                                request
                            })
                            .service(service.clone());
                        tokio::spawn(async move {
                            let service = TowerToHyperService::new(service);
                            let _ = auto::Builder::new(TokioExecutor::new())
                                .serve_connection(TokioIo::new(stream), service)
                                .await;
                        });
                    }
                });
            }
            Stack::Tonic => {
                let layer = recorder
                    .builder()
                    .peer_address(|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr())
                    .build();
                let server = tonic::transport::Server::builder()
                    .layer(count)
                    .layer(layer)
                    .layer(behave)
                    .add_service(RowsServer)
                    .serve_with_incoming(TcpIncoming::from(listener));
                tokio::spawn(server);
            }
        }
        Self {
            stack,
            address,
            hangs,
            recorder,
            in_progress,
            contexts,
        }
    }

    /// Sends a request on a connection of its own, which goes on until it is aborted.
    pub async fn open(&self, method: &str, name: &str) -> (JoinHandle<()>, Answer) {
        let authority = format!("localhost:{}", self.address.port());
        let request = match self.stack {
            Stack::Tonic => Request::post(format!("http://{authority}/rows.v1.Rows/{name}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers"),
            Stack::Hyper2 => Request::builder()
                .method(method)
                .uri(format!("http://{authority}/rows/{name}?w=3&sig=secret")),
            _ => Request::builder()
                .method(method)
                .uri(format!("/rows/{name}?w=3&sig=secret"))
                .header("host", authority),
        };
        // An empty message, with its gRPC prefix.
        let message = if self.stack == Stack::Tonic {
            &[0; 5][..]
        } else {
            &[]
        };
        let request = request
            .header("user-agent", "rows")
            .body(Full::new(Bytes::from_static(message)))
            .unwrap();

        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        if self.stack.is_http2() {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .unwrap();
            let connection = tokio::spawn(async { drop(connection.await) });
            let answer = async move { sender.send_request(request).await };
            (connection, Box::pin(answer))
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let connection = tokio::spawn(async { drop(connection.await) });
            let answer = async move { sender.send_request(request).await };
            (connection, Box::pin(answer))
        }
    }

    /// Sends the row's request, and takes as much of the answer as the row's client does.
    pub async fn send(&self, row: &Row) {
        let (connection, answer) = self.open(row.method, row.name).await;
        match row.client {
            Client::Reads => {
                // An error is a connection that a failed service closed.
                if let Ok(response) = answer.await {
                    let _ = response.into_body().collect().await;
                }
            }
            Client::LeavesTheHandler => {
                tokio::select! {
                    _ = answer => panic!("{} must hang", row.name),
                    () = self.hangs.notified() => {}
                }
            }
            Client::LeavesTheBody => {
                let mut body = answer.await.unwrap().into_body();
                body.frame().await.unwrap().unwrap();
            }
        }
        connection.abort();
    }

    pub async fn wait_for_the_end(&self) {
        // The root is exported after its stages, and both after they count as ended.
        while self.in_progress.requests() > 0 || self.roots().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn roots(&self) -> Vec<Span> {
        let mut roots = self.recorder.spans();
        roots.retain(|span| span.0.span_kind == SpanKind::Server);
        roots
    }
}

/// Does what the last segment of the path says, or else calls the service below.
#[derive(Clone)]
struct BehaveLayer {
    stack: Stack,
    hangs: Arc<Notify>,
    contexts: Contexts,
}

impl<S> Layer<S> for BehaveLayer {
    type Service = Behave<S>;

    fn layer(&self, inner: S) -> Behave<S> {
        Behave {
            inner,
            layer: self.clone(),
        }
    }
}

#[derive(Clone)]
struct Behave<S> {
    inner: S,
    layer: BehaveLayer,
}

impl<S, B, R> Service<Request<B>> for Behave<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send + 'static>,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let trace = RequestTrace::from_extensions(request.extensions());
        let BehaveLayer {
            stack,
            hangs,
            contexts,
        } = self.layer.clone();
        contexts.look(&trace);
        if matches!(stack, Stack::Hyper1 | Stack::Hyper2) {
            trace.set_route("/rows/{row}");
        }
        let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let inner = self.inner.call(request);
        Box::pin(async move {
            tokio::task::yield_now().await;
            contexts.look(&trace);
            let frames = match &*name {
                "SlowBody" => 2,
                "BodyFails" => 1,
                "EndlessBody" => usize::MAX,
                "NotFound" => return Ok(refusal(stack, StatusCode::NOT_FOUND, "5")),
                "Unavailable" => return Ok(refusal(stack, StatusCode::SERVICE_UNAVAILABLE, "14")),
                "Fails" => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "origin is slow").into());
                }
                "Panics" => panic!("on purpose"),
                "Hangs" => {
                    let _stage = trace.download("http://cdn.example/slow.jpg");
                    hangs.notify_one();
                    std::future::pending().await
                }
                _ => {
                    let response = inner.await.map_err(Into::into)?;
                    return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
                }
            };
            let body = stream::unfold(0, move |sent| {
                let (trace, contexts) = (trace.clone(), contexts.clone());
                let name = name.clone();
                async move {
                    contexts.look(&trace);
                    if sent > 0 {
                        let pause = if name == "SlowBody" { 300 } else { 1 };
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                    let frame = match &*name {
                        _ if sent < frames => Ok(Frame::data(Bytes::from("frame"))),
                        "BodyFails" if sent == frames => Err(BoxError::from(io::Error::new(
                            io::ErrorKind::ConnectionReset,
                            "origin went away",
                        ))),
                        "SlowBody" if sent == frames && stack == Stack::Tonic => {
                            Ok(Frame::trailers(grpc_status("0")))
                        }
                        _ => return None,
                    };
                    Some((frame, sent + 1))
                }
            });
            let mut response = Response::new(StreamBody::new(body).boxed_unsync());
            if stack == Stack::Tonic {
                response
                    .headers_mut()
                    .insert("content-type", "application/grpc".parse().unwrap());
            }
            Ok(response)
        })
    }
}

fn refusal(stack: Stack, status: StatusCode, code: &'static str) -> Response<AnyBody> {
    let empty = Full::default()
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(empty);
    if stack == Stack::Tonic {
        *response.headers_mut() = grpc_status(code);
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
    } else {
        *response.status_mut() = status;
    }
    response
}

fn grpc_status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static(code),
    )])
}

/// `rows.v1.Rows`, of which one method exists.
#[derive(Clone)]
struct RowsServer;

impl tonic::server::NamedService for RowsServer {
    const NAME: &'static str = "rows.v1.Rows";
}

impl Service<Request<tonic::body::Body>> for RowsServer {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != "/rows.v1.Rows/Ok" {
                return Ok(tonic::Status::unimplemented("no such method").into_http());
            }
            let ok = service_fn(|_: tonic::Request<()>| async {
                Ok::<_, tonic::Status>(tonic::Response::new(()))
            });
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            Ok(tonic::server::Grpc::new(codec).unary(ok, request).await)
        })
    }
}
