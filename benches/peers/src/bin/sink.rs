//! A collector for `benches/end_to_end`: takes OTLP over HTTP, and counts what arrived.
//!
//! `sink PORT [milliseconds before each answer]`. `GET /` answers with the number of spans and of
//! bytes of spans since the last time, and starts anew.

use std::{
    convert::Infallible,
    error::Error,
    net::Ipv4Addr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::TcpListener;

static SPANS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().ok_or("sink PORT [milliseconds]")?;
    let pause = arguments.next().map_or(Ok(0), |pause| pause.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(async move {
            let take = service_fn(move |request| take(request, Duration::from_millis(pause)));
            // An error is a client that left.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(connection), take)
                .await;
        });
    }
}

async fn take(
    request: Request<Incoming>,
    pause: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        let counts = format!("{} {}\n", SPANS.swap(0, Relaxed), BYTES.swap(0, Relaxed));
        return Ok(Response::new(counts.into()));
    }
    let is_traces = request.uri().path() == "/v1/traces";
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    if is_traces {
        BYTES.fetch_add(body.len() as u64, Relaxed);
        let request = ExportTraceServiceRequest::decode(body).unwrap_or_default();
        let scopes = request
            .resource_spans
            .iter()
            .flat_map(|one| &one.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        SPANS.fetch_add(spans as u64, Relaxed);
    }
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let mut answer = Response::new(Full::default());
    let protobuf = http::HeaderValue::from_static("application/x-protobuf");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, protobuf);
    Ok(answer)
}
