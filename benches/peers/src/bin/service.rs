//! The cheapest service there is, one constant answer behind hyper, with the layer of each crate and
//! its way to a collector, for `benches/end_to_end/run` and `benches/end_to_end/flood`.
//!
//! `service PORT MODE [collector's URL] [port of the live page]`; each crate is set up as its README or its
//! docs say. All but `ours` send spans through the SDK's batch processor and `opentelemetry-otlp` over HTTP.
//! `/fails` fails and `/waits` takes a second.

use std::{convert::Infallible, error::Error, fmt, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_instrumentation_tower::http::server as contrib;
use opentelemetry_otlp::{Protocol as OtlpProtocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tower::{Layer, Service, service_fn};
use tower_image_trace::{ImageTraceLayer, Propagator, Propagators, Protocol, Telemetry};
use tracing_subscriber::{Registry, layer::SubscriberExt};

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let usage = "service PORT MODE [URL] [PAGE_PORT]";
    let port = arguments.next().ok_or(usage)?;
    let mode = arguments.next().ok_or(usage)?;
    let collector = arguments.next().unwrap_or_default();
    let page = arguments.next();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    let service = service_fn(answer);
    match &*mode {
        "none" => serve(listener, service).await,
        "ours" | "ours, with the page" | "ours, with the page open" => {
            let telemetry = Telemetry::builder()
                .endpoint(collector)
                .protocol(Protocol::Http)
                .propagators(tracecontext());
            let telemetry = match &*mode {
                "ours" => telemetry,
                _ => telemetry.trace_page_listen(format!("127.0.0.1:{}", page.ok_or(usage)?)),
            };
            let telemetry = telemetry.build()?;
            serve(listener, telemetry.trace_layer().layer(service)).await?;
            Ok(telemetry.shutdown(Duration::from_secs(10)).await?)
        }
        "ours, stock exporter" => {
            let provider = stock(&collector)?;
            let layer = ImageTraceLayer::builder()
                .tracer_provider(provider.clone())
                .propagators(tracecontext())
                .metrics(false)
                .build();
            serve(listener, layer.layer(service)).await?;
            Ok(provider.shutdown()?)
        }
        "opentelemetry-instrumentation-tower" => {
            let provider = stock(&collector)?;
            let layer = contrib::LayerBuilder::builder().with_metrics(false);
            serve(listener, layer.build()?.layer(service)).await?;
            Ok(provider.shutdown()?)
        }
        "tower-otel" => {
            let provider = stock(&collector)?;
            let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("peers"));
            tracing::subscriber::set_global_default(Registry::default().with(telemetry))?;
            let layer = tower_otel::trace::HttpLayer::server(tracing::Level::INFO);
            serve(listener, layer.layer(service)).await?;
            Ok(provider.shutdown()?)
        }
        unknown => Err(format!("no mode {unknown:?}").into()),
    }
}

/// The format that the peers read.
fn tracecontext() -> Propagators {
    [Propagator::TraceContext].into_iter().collect()
}

/// The SDK's batch processor and `opentelemetry-otlp`, and the globals that the peers use.
fn stock(collector: &str) -> Result<SdkTracerProvider, Failed> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{collector}/v1/traces"))
        .with_protocol(OtlpProtocol::HttpBinary)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .build();
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(provider)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"a picture\n")));
    match request.uri().path() {
        "/fails" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "/waits" => sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    Ok(response)
}

/// Serves until SIGTERM comes.
async fn serve<S, B>(listener: TcpListener, service: S) -> Result<(), Failed>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Failed> + fmt::Debug,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failed>,
{
    let mut terminated = signal(SignalKind::terminate())?;
    loop {
        let connection = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = terminated.recv() => return Ok(()),
        };
        connection.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // An error is a client that left.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service)
                .await;
        });
    }
}
