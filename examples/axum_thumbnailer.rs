//! A service as most are: axum, reqwest, `tracing`, and work that blocks. One trace has it all.
//!
//! ```text
//! OTEL_TRACES_EXPORTER=console cargo run --example axum_thumbnailer --features reqwest,tracing
//! curl -o cat.webp 'http://127.0.0.1:8080/thumbnail?url=http://127.0.0.1:8080/cat.png'
//! ```
//!
//! The service is its own source here: both requests are in one trace, on the terminal, or in the collector
//! that `OTEL_EXPORTER_OTLP_ENDPOINT` names, and at <http://127.0.0.1:8080/debug/traces/>.

use axum::{Router, body::Bytes, extract, http::StatusCode, routing::get};
use std::{collections::HashMap, error::Error, io::Cursor, net::SocketAddr, time::Duration};
use tower_image_trace::download::{Origin, ReqwestClient, ReqwestError};
use tower_image_trace::{RequestTrace, Telemetry, shutdown_signal, telemetry::WithTraceIds};
use tracing_subscriber::{Layer, filter::LevelFilter, fmt, prelude::*};

// The stage has the URL, redacted; fields of `tracing` are recorded as they are.
#[tracing::instrument(skip_all)]
async fn fetch(client: &ReqwestClient, url: &str) -> Result<Bytes, ReqwestError> {
    let source = client.get(url).await?.error_for_status()?.bytes().await?;
    tracing::info!(bytes = source.len(), "fetched");
    Ok(source)
}

fn resize(source: &[u8]) -> image::ImageResult<Vec<u8>> {
    let mut result = Cursor::new(Vec::new());
    let picture = image::load_from_memory(source)?.thumbnail(300, 300);
    picture.write_to(&mut result, image::ImageFormat::WebP)?;
    Ok(result.into_inner())
}

async fn thumbnail(
    extract::State(client): extract::State<ReqwestClient>,
    extract::Query(query): extract::Query<HashMap<String, String>>,
    trace: RequestTrace,
) -> Result<([(&'static str, &'static str); 1], Vec<u8>), (StatusCode, String)> {
    let failed = |status, error: &dyn Error| (status, error.to_string());
    let url = query.get("url").map_or("", String::as_str);
    let source = trace.download(url).run(fetch(&client, url)).await;
    let source = source.map_err(|error| failed(StatusCode::BAD_GATEWAY, &error))?;
    let picture = trace
        .process("300x300")
        .run_blocking(move || resize(&source));
    let picture = picture.await;
    let picture = picture.map_err(|error| failed(StatusCode::UNPROCESSABLE_ENTITY, &error))?;
    Ok(([("content-type", "image/webp")], picture))
}

pub(crate) fn app(telemetry: &Telemetry, friend: Origin) -> Result<Router, ReqwestError> {
    // No other origin gets the ids of traces.
    let downloads = telemetry.download_layer_builder().propagate_to([friend]);
    let cat = include_bytes!("image_proxy/images/chelsea.png").as_slice();
    Ok(Router::new()
        .route("/thumbnail", get(thumbnail))
        .route("/cat.png", get(cat))
        .layer(telemetry.trace_layer())
        .nest_service("/debug/traces", telemetry.trace_page())
        .with_state(downloads.build().reqwest(reqwest::Client::builder())?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // With its default features, reqwest brings a provider of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let telemetry = Telemetry::builder().trace_page(true).build()?;
    let lines = fmt::layer().event_format(WithTraceIds::new(fmt::format()));
    let lines = lines.with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(telemetry.tracing_layer().with_filter(LevelFilter::INFO))
        .with(lines.with_filter(LevelFilter::INFO))
        .init();
    let app = app(&telemetry, "http://127.0.0.1:8080".parse()?)?;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown_signal());
    server.await?;
    Ok(telemetry.shutdown(Duration::from_secs(5)).await?)
}
