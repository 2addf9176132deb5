//! An image service on axum. It shows where the time of each request goes.
//!
//! ```text
//! cargo run --release --example image_proxy              # prints addresses to open, and curl lines to try
//! cargo run --release --example image_proxy -- --demo    # sends sample requests itself
//! curl http://127.0.0.1:8080/metrics                     # what Prometheus pulls
//! ```
//!
//! `GET /resize/{options}/{source}` takes imgproxy's options and sources, see [`options`]:
//!
//! ```text
//! /resize/rs:fit:300:200/q:80/f:jpg/plain/http%3A%2F%2F127.0.0.1%3A4001%2Fchelsea.png
//! ```
//!
//! A request waits for a worker, downloads its source from an allowed origin ([`source`]), processes
//! it off the async threads ([`mod@process`]) and streams the result ([`body`]), with the headers that let
//! clients keep it ([`rendition`]). Results that are asked for again come from a [`cache`], without all that.
//! [`app`] connects these steps, and [`error`] turns their errors into answers. Of an animation, the first frame is processed.
//! `GET /` is a page with sample pictures and the stages of each ([`gallery`]).

mod app;
mod arguments;
mod body;
mod cache;
mod demo;
mod error;
mod gallery;
mod options;
mod origin;
mod process;
mod rendition;
mod source;
mod url;
#[cfg(feature = "libvips")]
mod vips;

use std::{
    error::Error,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, time::timeout};
use tower_image_trace::{
    pool::Workers,
    shutdown_signal,
    telemetry::{Exporter, Telemetry, TelemetryError, TelemetryEvent},
    trace::ServerTimingTrace,
};

use app::App;
use arguments::{Arguments, USAGE};
use cache::Cache;
use demo::Demo;
use source::{SourceLimits, Sources};

/// How long work that cannot be cancelled is waited for.
const CANCEL: Duration = Duration::from_secs(1);
/// How long sending the last spans may take.
const FLUSH: Duration = Duration::from_secs(5);

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) if arguments.help => println!("{USAGE}"),
        Ok(arguments) => {
            if let Err(error) = run(arguments) {
                eprintln!("image_proxy: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(sentence) => {
            eprintln!("image_proxy: {sentence}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn run(arguments: Arguments) -> Outcome {
    let runtime = Runtime::new()?;
    let telemetry = runtime.block_on(async { telemetry() })?;
    let outcome = runtime.block_on(serve(arguments, &telemetry));
    // Requests that are still running are dropped with their runtime. That ends their spans, which are then sent.
    runtime.shutdown_timeout(CANCEL);
    if let Err(error) = telemetry.shutdown_blocking(FLUSH) {
        eprintln!("image_proxy: {error}");
    }
    outcome
}

/// Answers requests until a signal or the end of the demo.
async fn serve(arguments: Arguments, telemetry: &Telemetry) -> Outcome {
    let signal = shutdown_signal();
    let listener = bind(arguments.port).await?;
    let address = listener.local_addr()?;
    let origin = origin::start().await?;

    let mut allowed = arguments.allowed_origins;
    allowed.push(format!("http://{origin}").parse()?);
    let workers = if arguments.demo {
        demo::WORKERS
    } else {
        std::thread::available_parallelism().map_or(2, usize::from)
    };
    let (count, in_progress) = telemetry.in_progress_layer();
    let app = App {
        sources: Sources::new(
            SourceLimits {
                allowed,
                time: Duration::from_secs(5),
                bytes: 32 * 1024 * 1024,
            },
            &telemetry.download_layer(),
        ),
        workers: Workers::new(workers)
            .with_queue_limit(16 * workers)
            .with_in_progress(&in_progress),
        memory: arguments.memory,
        cache: (arguments.cache > 0).then(|| Cache::new(arguments.cache, arguments.max_age)),
        max_age: arguments.max_age,
        in_progress,
    };
    app.register(telemetry.gauges());

    let (stop, stopped) = oneshot::channel::<()>();
    let mut trace = telemetry
        .trace_layer_builder()
        .time_to_first_byte(true)
        .server_timing(true)
        .server_timing_trace(ServerTimingTrace::Trace);
    if let Some(proxies) = arguments.trusted_proxies {
        trace = trace.trusted_proxies(proxies);
    }
    let router = app
        .clone()
        .router(trace.build(), count, telemetry.prometheus())
        .merge(gallery::router(origin))
        // Added after the layers too: the page does not trace itself.
        .nest_service("/debug/traces", telemetry.trace_page());
    // Without connect info no span knows the address of its client.
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        // Dropping `stop` makes this an error, which is the signal to stop.
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let demo = Demo::new(address, origin, &app.in_progress, telemetry);
    let outcome = if arguments.demo {
        demo.run().await
    } else {
        print_what_to_try(address, origin);
        let traffic = async {
            match arguments.traffic {
                true => demo.traffic().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signal => Ok(()),
            outcome = traffic => outcome,
        }
    };
    drop(stop);
    match timeout(arguments.drain, server).await {
        Ok(served) => served??,
        Err(_) => eprintln!(
            "image_proxy: gave up on requests that took longer than {:?}",
            arguments.drain
        ),
    }
    outcome
}

/// Exports to the collector that the environment names, or prints traces and leaves metrics to Prometheus if
/// it names none. The live page is there in any case.
fn telemetry() -> Result<Telemetry, TelemetryError> {
    let builder = || {
        let say = |event: &TelemetryEvent| eprintln!("image_proxy: {event}");
        Telemetry::builder().on_event(say).trace_page(true)
    };
    let settings = builder().settings()?;
    let exporters = [&settings.traces, &settings.metrics, &settings.logs];
    let is_exported = exporters
        .iter()
        .any(|exporter| **exporter != Exporter::None);
    match is_exported || settings.prometheus.is_some() {
        true => builder().build(),
        false => builder().console().prometheus(true).build(),
    }
}

async fn bind(port: u16) -> Result<TcpListener, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    listener.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "port {port} is in use: choose another with --port N, or a free one with --port 0"
            )
        }
        _ => format!("cannot listen on 127.0.0.1:{port}: {error}"),
    })
}

fn print_what_to_try(address: SocketAddr, origin: SocketAddr) {
    println!(
        "Listening on http://{address}, with sample pictures on http://{origin}. Open:

  http://{address}/               sample pictures, each with its stages and its trace
  http://{address}/debug/traces/  the live traces

Or try:

  curl -o cat.jpg  http://{address}/resize/rs:fit:300:200/q:80/f:jpg/plain/http://{origin}/chelsea.png
  curl -o sky.webp http://{address}/resize/rs:fill:400:400/f:webp/plain/http://{origin}/hubble.jpg
  curl http://{address}/resize/rs:fit:300:200/plain/http://{origin}/no-such-picture.jpg
"
    );
}
