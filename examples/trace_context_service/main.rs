//! A service that W3C's Trace Context test suite can test.
//!
//! ```text
//! cargo run --example trace_context_service -- --propagators tracecontext,baggage --port 5000
//! python test/test.py http://127.0.0.1:5000/test      # in a clone of w3c/trace-context
//! ```
//!
//! `POST /test` takes a JSON array of `{ "url", "arguments" }`. For each element, in order, the
//! service POSTs `arguments` to `url` with the context of a span of its own, and awaits the answer.

mod service;

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpListener;
use tower_image_trace::Propagators;

const USAGE: &str = "usage: trace_context_service [--propagators LIST] [--port PORT]

  --propagators LIST  comma-separated, as in OTEL_PROPAGATORS (default tracecontext,baggage)
  --port PORT         on 127.0.0.1; 0 takes any that is free (default 5000)";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace_context_service: {error}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut propagators = Propagators::default();
    let mut port = 5000;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        // Both `--port 5000` and `--port=5000`.
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = || {
            let given = value.clone().or_else(|| arguments.next());
            given.ok_or_else(|| format!("{option} needs a value"))
        };
        match option {
            "--propagators" => propagators = value()?.parse()?,
            "--port" => port = value()?.parse()?,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(format!("unknown option {option}").into()),
        }
    }

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}/test, {propagators}", listener.local_addr()?);
    let app = service::app(SdkTracerProvider::default(), propagators);
    axum::serve(listener, app).await?;
    Ok(())
}
