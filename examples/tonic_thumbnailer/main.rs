//! A gRPC image service on tonic. It shows where the time of each call goes.
//!
//! ```text
//! cargo run --example tonic_thumbnailer [-- --port 50051]
//! ```
//!
//! It prints a waterfall for each call, or exports to the collector that the environment names.
//! [`service`] does the work, and [`api`] is `thumbnailer.proto` in Rust. Calls of tonic's health
//! service are measured but get no spans.

mod api;
mod service;

use std::{error::Error, net::Ipv4Addr, time::Duration};

use tokio::net::TcpListener;
use tonic::transport::{
    Server,
    server::{TcpConnectInfo, TcpIncoming},
};
use tower_image_trace::{ImageTraceLayer, Telemetry, trace::Record};

use api::ThumbnailerServer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = match Vec::from_iter(std::env::args().skip(1)).as_slice() {
        [] => 50051,
        [option, port] if option == "--port" => port.parse()?,
        _ => return Err("usage: tonic_thumbnailer [--port PORT]".into()),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);

    let telemetry = match Telemetry::from_env()? {
        enabled if enabled.is_enabled() => enabled,
        _ => Telemetry::builder().console().build()?,
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ThumbnailerServer>().await;
    let (in_progress, _) = telemetry.in_progress_layer();

    Server::builder()
        .layer(in_progress)
        .layer(trace_layer(&telemetry))
        .add_service(health_service)
        .add_service(ThumbnailerServer)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
            // An error means that there is no signal handler. The service then stops at once.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    telemetry.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

fn trace_layer(telemetry: &Telemetry) -> ImageTraceLayer {
    telemetry
        .trace_layer_builder()
        .filter(|parts| match parts.uri.path() {
            "/grpc.health.v1.Health/Check" => Record::Metrics,
            _ => Record::All,
        })
        .peer_address(|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr())
        .build()
}
