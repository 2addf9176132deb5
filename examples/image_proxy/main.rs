//! An image service on axum. It shows where the time of each request goes.
//!
//! ```text
//! cargo run --release --example image_proxy              # prints curl lines to try
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
//! it off the async threads ([`mod@process`]) and streams the result ([`body`]). [`app`] connects these
//! steps, and [`error`] turns their errors into answers. Of an animation, the first frame is processed.

mod app;
mod arguments;
mod body;
mod demo;
mod error;
mod options;
mod origin;
mod process;
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
    telemetry::{Settings, Telemetry, TelemetryError, TelemetryEvent},
};

use app::App;
use arguments::{Arguments, USAGE};
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
        in_progress,
    };
    app.register(telemetry.gauges());

    let (stop, stopped) = oneshot::channel::<()>();
    let trace = telemetry
        .trace_layer_builder()
        .time_to_first_byte(true)
        .build();
    let router = app.clone().router(trace, count, telemetry.prometheus());
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
        print_curl_lines(address, origin);
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
/// it names none.
fn telemetry() -> Result<Telemetry, TelemetryError> {
    let say = |event: &TelemetryEvent| eprintln!("image_proxy: {event}");
    let telemetry = Telemetry::builder().on_event(say);
    match Settings::from_env()?.is_enabled() {
        true => telemetry.build(),
        false => telemetry.console().prometheus(true).build(),
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

fn print_curl_lines(address: SocketAddr, origin: SocketAddr) {
    println!(
        "Listening on http://{address}, with sample pictures on http://{origin}. Try:

  curl -o cat.jpg  http://{address}/resize/rs:fit:300:200/q:80/f:jpg/plain/http://{origin}/chelsea.png
  curl -o sky.webp http://{address}/resize/rs:fill:400:400/f:webp/plain/http://{origin}/hubble.jpg
  curl http://{address}/resize/rs:fit:300:200/plain/http://{origin}/no-such-picture.jpg
"
    );
}
