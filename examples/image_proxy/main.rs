//! An image service on axum that shows where the time of each request goes.
//!
//! ```text
//! cargo run --release --example image_proxy              # prints curl lines to try
//! cargo run --release --example image_proxy -- --demo    # sends them itself
//! ```
//!
//! `GET /resize/{options}/{source}` takes imgproxy's options and sources, see [`options`]:
//!
//! ```text
//! /resize/rs:fit:300:200/q:80/f:jpg/plain/http%3A%2F%2F127.0.0.1%3A4001%2Fchelsea.png
//! ```
//!
//! A request waits for a worker, downloads its source from an allowed origin ([`source`]),
//! is processed off the async threads ([`mod@process`]) and streams the result ([`body`]); [`app`] puts these
//! together and [`error`] says what the client is told when one of them fails.

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

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_image_trace::pool::Workers;
use tower_image_trace::telemetry::{Telemetry, TelemetryError, TelemetryEvent};

use app::App;
use arguments::{Arguments, USAGE};
use demo::Demo;
use source::{SourceLimits, Sources};

/// How long requests may go on after the service was asked to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the last spans may take to the collector then.
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
            // An error means that `stop` was dropped, which is how it is used.
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

/// To the collector that the environment names; without one, to the terminal.
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
            format!("port {port} is taken; --port N chooses another, --port 0 any free one")
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
