//! An image service on axum. It shows where the time of each request goes.
//!
//! ```text
//! cargo run --release --example image_proxy              # prints curl lines to try
//! cargo run --release --example image_proxy -- --demo    # sends sample requests itself
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
//! steps, and [`error`] turns their errors into answers.

mod app;
mod arguments;
mod body;
mod demo;
mod error;
mod options;
mod origin;
mod process;
mod source;
#[cfg(feature = "libvips")]
mod vips;

use std::{
    error::Error,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot};
use tower_image_trace::{
    pool::Workers,
    telemetry::{Telemetry, TelemetryError, TelemetryEvent},
};

use app::App;
use arguments::{Arguments, USAGE};
use demo::Demo;
use source::{SourceLimits, Sources};

/// How long running requests may take after the service was asked to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long sending the last spans may take after that.
const FLUSH: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) if arguments.help => println!("{USAGE}"),
        Ok(arguments) => {
            if let Err(error) = run(arguments).await {
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

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error + Send + Sync>> {
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
    let telemetry = telemetry()?;
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
        in_progress,
    };
    app.register(telemetry.gauges());

    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, app.clone().router(telemetry.trace_layer(), count))
        .with_graceful_shutdown(async {
            // Dropping `stop` makes this an error, which is the signal to stop.
            let _ = stopped.await;
        });
    let server = tokio::spawn(server.into_future());

    let outcome = if arguments.demo {
        Demo::new(address, origin, &app.in_progress, &telemetry)
            .run()
            .await
    } else {
        print_curl_lines(address, origin);
        shutdown_signal().await.map_err(Into::into)
    };
    drop(stop);
    match tokio::time::timeout(DRAIN, server).await {
        Ok(served) => served??,
        Err(_) => eprintln!("image_proxy: gave up on requests that took longer than {DRAIN:?}"),
    }
    if let Err(error) = telemetry.shutdown(FLUSH).await {
        eprintln!("image_proxy: {error}");
    }
    outcome
}

/// Exports to the collector that the environment names, or to the terminal if it names none.
fn telemetry() -> Result<Telemetry, TelemetryError> {
    let say = |event: &TelemetryEvent| eprintln!("image_proxy: {event}");
    let telemetry = Telemetry::builder().on_event(say).build()?;
    if telemetry.is_enabled() {
        return Ok(telemetry);
    }
    Telemetry::builder().console().build()
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

/// Ends with ctrl-c, or with SIGTERM where there is one.
async fn shutdown_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
