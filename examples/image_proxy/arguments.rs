//! The command line.

use std::time::Duration;

use super::source::Origin;

/// A tebibyte.
const MAX_MIB: u64 = 1 << 20;

pub(crate) const USAGE: &str = "\
Usage: image_proxy [--port N] [--allow-origin URL]... [--max-memory MIB]
                   [--drain SECONDS] [--traffic | --demo]

  --port N            port on 127.0.0.1 (default 8080; 0 takes a free one)
  --allow-origin URL  another origin of pictures, such as http://127.0.0.1:9000
  --max-memory MIB    memory that each worker may take for a picture (default
                      512); a request that needs more is answered with 422
  --drain SECONDS     time that running requests have after SIGINT or SIGTERM
                      (default 10)
  --traffic           send sample requests all the time, for dashboards
  --demo              send sample requests, show their traces and exit
  --help              this text

Traces go to the terminal, or to the collector that OTEL_EXPORTER_OTLP_ENDPOINT
or IMGPROXY_OPEN_TELEMETRY_ENDPOINT names. Metrics are at /metrics where
Prometheus pulls them: without a collector, or with
OTEL_METRICS_EXPORTER=otlp,prometheus.";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) port: u16,
    pub(crate) allowed_origins: Vec<Origin>,
    /// Most bytes that a worker takes for a picture.
    pub(crate) memory: u64,
    /// How long running requests may take after the signal to stop.
    pub(crate) drain: Duration,
    pub(crate) traffic: bool,
    pub(crate) demo: bool,
    pub(crate) help: bool,
}

impl Arguments {
    /// The error is one sentence for the user.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let mut port = None;
        let mut parsed = Self {
            port: 0,
            allowed_origins: Vec::new(),
            memory: 512 << 20,
            drain: Duration::from_secs(10),
            traffic: false,
            demo: false,
            help: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--port" => {
                    let value = arguments.next().unwrap_or_default();
                    let value = value
                        .parse()
                        .map_err(|_| format!("`--port {value}`: 0 to 65535 is accepted"))?;
                    port = Some(value);
                }
                "--allow-origin" => {
                    let value = arguments.next().unwrap_or_default();
                    let origin = value.parse().map_err(|_| {
                        format!("`--allow-origin {value}`: an http:// URL is accepted")
                    })?;
                    parsed.allowed_origins.push(origin);
                }
                "--max-memory" => {
                    let value = arguments.next().unwrap_or_default();
                    let mib = value.parse().ok().filter(|mib| (1..=MAX_MIB).contains(mib));
                    let mib = mib.ok_or_else(|| {
                        format!("`--max-memory {value}`: 1 to {MAX_MIB} (MiB) is accepted")
                    })?;
                    parsed.memory = mib << 20;
                }
                "--drain" => {
                    let value = arguments.next().unwrap_or_default();
                    let seconds = value.parse::<u32>();
                    let seconds = seconds.map_err(|_| {
                        format!("`--drain {value}`: a whole number of seconds is accepted")
                    })?;
                    parsed.drain = Duration::from_secs(seconds.into());
                }
                "--traffic" => parsed.traffic = true,
                "--demo" => parsed.demo = true,
                "--help" | "-h" => parsed.help = true,
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        // The demo is its own client, so any port does, and two demos can run at the same time.
        parsed.port = port.unwrap_or(if parsed.demo { 0 } else { 8080 });
        Ok(parsed)
    }
}
