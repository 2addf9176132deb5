//! Sends one trace and its metrics to the collector that the environment names, and prints the trace id.
//! This checks quickly that the settings of a service reach the collector.
//!
//! ```sh
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 cargo run --example send_one_trace
//! ```

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{RequestTrace, Telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = Telemetry::builder()
        .metrics(true)
        .on_event(|event| eprintln!("{event}"))
        .build()?;
    if !telemetry.is_enabled() {
        return Err("no collector is configured: set OTEL_EXPORTER_OTLP_ENDPOINT".into());
    }
    let (in_progress, _) = telemetry.in_progress_layer();
    let service = in_progress.layer(telemetry.trace_layer().layer(service_fn(handle)));
    service
        .oneshot(Request::get("/thumbnail").body(())?)
        .await?;
    telemetry.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn handle(request: Request<()>) -> Result<Response<String>, Infallible> {
    let trace = RequestTrace::from_extensions(request.extensions());
    trace.set_route("/thumbnail");
    trace.queue().end();
    trace.process("rs:fill:300:200").end();
    println!("{}", trace.trace_id());
    Ok(Response::new(String::new()))
}
