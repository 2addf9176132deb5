//! The server of `benches/end_to_end/run`: one constant answer behind hyper.
//!
//! `--layers` adds the layers of `Telemetry::from_env`, and `--label` an attribute of the service's own to the
//! measurements of each request.

use std::{convert::Infallible, error::Error, net::Ipv4Addr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, service_fn};
use tower_image_trace::{RequestTrace, Telemetry, opentelemetry::KeyValue};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = arguments.iter().position(|argument| argument == "--port");
    let Some(port) = port.and_then(|option| arguments.get(option + 1)) else {
        println!("a server for benches/end_to_end/run: --port PORT [--layers] [--label]");
        return Ok(());
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    let telemetry = Telemetry::from_env()?;
    let (in_progress, _) = telemetry.in_progress_layer();
    let has = |option| arguments.iter().any(|argument| argument == option);
    let layers = ServiceBuilder::new()
        .layer(in_progress)
        .layer(telemetry.trace_layer());
    match (has("--layers"), has("--label")) {
        (false, _) => serve(listener, service_fn(answer)).await,
        (true, false) => serve(listener, layers.service(service_fn(answer))).await,
        (true, true) => serve(listener, layers.service(service_fn(labelled))).await,
    }
}

async fn labelled(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let trace = RequestTrace::from_extensions(request.extensions());
    trace.metric_attribute(KeyValue::new("thumbs.preset", "avatar"));
    answer(request).await
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    RequestTrace::from_extensions(request.extensions()).set_route("/");
    Ok(Response::new(Full::new(Bytes::from_static(b"a picture\n"))))
}

async fn serve<S, B>(listener: TcpListener, service: S) -> Result<(), Box<dyn Error>>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // An error means that the client left.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service)
                .await;
        });
    }
}
