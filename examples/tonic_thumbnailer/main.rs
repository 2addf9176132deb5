//! A gRPC image service on tonic. It shows where the time of each call goes.
//!
//! ```text
//! cargo run --example tonic_thumbnailer [-- --port 50051]
//! (printf '{"width":300,"source":"'; base64 -w0 examples/image_proxy/images/chelsea.png; printf '"}') |
//!     grpcurl -plaintext -import-path examples/tonic_thumbnailer -proto thumbnailer.proto -d @ \
//!         127.0.0.1:50051 thumbs.v1.Thumbnailer/Resize
//! ```
//!
//! Any other client calls it by `thumbnailer.proto`; there is no reflection. It prints a waterfall for each call, or exports to the collector that the environment names.
//! [`service`] answers the calls, [`api`] is `thumbnailer.proto` in Rust, and the work on pictures is
//! image_proxy's ([`mod@process`]). Calls of tonic's health service are measured but get no spans.

mod api;
#[path = "../image_proxy/options.rs"]
#[allow(dead_code, reason = "calls have no paths with options")]
mod options;
#[path = "../image_proxy/process/mod.rs"]
#[allow(dead_code, reason = "image_proxy records more of a picture")]
mod process;
mod service;
#[path = "../image_proxy/url.rs"]
#[allow(dead_code, reason = "sources come with their calls")]
mod url;

use std::{error::Error, net::Ipv4Addr, time::Duration};

use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, time::timeout};
use tonic::transport::{
    Server,
    server::{TcpConnectInfo, TcpIncoming},
};
use tower_image_trace::{
    ImageTraceLayer, Settings, Telemetry, TelemetryError, shutdown_signal, trace::Record,
};

use api::ThumbnailerServer;

/// How long running calls may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long work that cannot be cancelled is waited for.
const CANCEL: Duration = Duration::from_secs(1);
/// How long sending the last spans may take.
const FLUSH: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let port = match Vec::from_iter(std::env::args().skip(1)).as_slice() {
        [] => 50051,
        [option, port] if option == "--port" => port.parse()?,
        _ => return Err("usage: tonic_thumbnailer [--port PORT]".into()),
    };
    let runtime = Runtime::new()?;
    let telemetry = runtime.block_on(async { telemetry() })?;
    let outcome = runtime.block_on(serve(port, &telemetry));
    // Calls that are still running are dropped with their runtime. That ends their spans, which are then sent.
    runtime.shutdown_timeout(CANCEL);
    telemetry.shutdown_blocking(FLUSH)?;
    outcome
}

/// Answers calls until a signal.
async fn serve(port: u16, telemetry: &Telemetry) -> Result<(), Box<dyn Error>> {
    let signal = shutdown_signal();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ThumbnailerServer>().await;
    let (in_progress, _) = telemetry.in_progress_layer();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .layer(in_progress)
        .layer(trace_layer(telemetry))
        .add_service(health_service)
        .add_service(ThumbnailerServer)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
            // Dropping `stop` makes this an error, which is the signal to stop.
            let _ = stopped.await;
        });
    let server = tokio::spawn(server);

    signal.await;
    drop(stop);
    match timeout(DRAIN, server).await {
        Ok(served) => served??,
        Err(_) => eprintln!("tonic_thumbnailer: gave up on calls that took longer than {DRAIN:?}"),
    }
    Ok(())
}

/// Exports to the collector that the environment names, or to the terminal if it names none.
fn telemetry() -> Result<Telemetry, TelemetryError> {
    let settings = Settings::from_env()?;
    match settings.is_enabled() {
        true => Telemetry::from_settings(settings),
        false => Telemetry::builder().console().build(),
    }
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
