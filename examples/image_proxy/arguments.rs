//! The command line.

use std::{str::FromStr, time::Duration};

use tower_image_trace::trace::Networks;

use super::source::Origin;

/// A tebibyte.
const MAX_MIB: u64 = 1 << 20;

pub(crate) const USAGE: &str = "\
Usage: image_proxy [--port N] [--allow-origin URL]... [--trusted-proxy LIST]
                   [--max-memory MIB] [--cache MIB] [--max-age SECONDS]
                   [--drain SECONDS] [--traffic | --demo]

GET /resize/{options}/{source} answers with a picture, such as
/resize/rs:fit:300:200/f:jpg/plain/http%3A%2F%2F127.0.0.1%3A9000%2Fcat.png

  {options}  rs:{fit|fill|force}:{width}:{height}, w:{width}, h:{height},
             q:{1 to 100}, f:{jpg|png|webp}; without f, the format is that of
             the source, and PNG becomes WebP where the client accepts that
  {source}   plain/ and a percent-encoded URL, or the URL in URL-safe base64

GET / shows sample pictures, /debug/traces/ the live traces, /metrics the
metrics for Prometheus, and /health answers as long as the service runs.

  --port N            port on 127.0.0.1 (default 8080; 0 takes a free one)
  --allow-origin URL  another origin of pictures, such as http://127.0.0.1:9000
  --trusted-proxy LIST
                      addresses and networks, such as 127.0.0.1,10.0.0.0/8,
                      of proxies whose X-Forwarded-For or Forwarded says who
                      the client is
  --max-memory MIB    memory that each worker may take for a picture (default
                      512); a request that needs more is answered with 422
  --cache MIB         memory for results that may be asked for again (default
                      64; 0 keeps none)
  --max-age SECONDS   time that a result may be kept here, by clients and by
                      caches on the way (default 3600)
  --drain SECONDS     time that running requests have after SIGINT or SIGTERM
                      (default 10)
  --traffic           send sample requests all the time, for dashboards
  --demo              send sample requests, show their traces and exit
  --help              this text

Traces go to the terminal, or to the collector that OTEL_EXPORTER_OTLP_ENDPOINT
or IMGPROXY_OPEN_TELEMETRY_ENDPOINT names. The span processing_image says in
image.result.cache whether the result was in the cache. Metrics are at /metrics
where Prometheus pulls them: without a collector, or with
OTEL_METRICS_EXPORTER=otlp,prometheus.";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) port: u16,
    pub(crate) allowed_origins: Vec<Origin>,
    /// The proxies that may say who the client is.
    pub(crate) trusted_proxies: Option<Networks>,
    /// Most bytes that a worker takes for a picture.
    pub(crate) memory: u64,
    /// Most bytes of the cache; 0 means none.
    pub(crate) cache: u64,
    /// How long a result may be kept.
    pub(crate) max_age: Duration,
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
            trusted_proxies: None,
            memory: 512 << 20,
            cache: 64 << 20,
            max_age: Duration::from_secs(3600),
            drain: Duration::from_secs(10),
            traffic: false,
            demo: false,
            help: false,
        };
        while let Some(argument) = arguments.next() {
            let name = argument.as_str();
            match name {
                "--port" => port = Some(value(&mut arguments, name, "0 to 65535")?),
                "--allow-origin" => {
                    let origin = value(&mut arguments, name, "an http:// URL")?;
                    parsed.allowed_origins.push(origin);
                }
                "--trusted-proxy" => {
                    let accepted = "a list like 127.0.0.1,10.0.0.0/8";
                    parsed.trusted_proxies = Some(value(&mut arguments, name, accepted)?);
                }
                "--max-memory" => parsed.memory = mib(&mut arguments, name, 1)?,
                "--cache" => parsed.cache = mib(&mut arguments, name, 0)?,
                "--max-age" => parsed.max_age = seconds(&mut arguments, name)?,
                "--drain" => parsed.drain = seconds(&mut arguments, name)?,
                "--traffic" => parsed.traffic = true,
                "--demo" => parsed.demo = true,
                "--help" | "-h" => parsed.help = true,
                _ => return Err(format!("unknown argument `{name}`")),
            }
        }
        // The demo is its own client, so any port does, and two demos can run at the same time.
        parsed.port = port.unwrap_or(if parsed.demo { 0 } else { 8080 });
        Ok(parsed)
    }
}

/// The value of the argument `name`.
fn value<T: FromStr>(
    arguments: &mut impl Iterator<Item = String>,
    name: &str,
    accepted: &str,
) -> Result<T, String> {
    let text = arguments.next().unwrap_or_default();
    let value = text.parse().ok().filter(|_| !text.is_empty());
    value.ok_or_else(|| format!("`{name} {text}`: {accepted} is accepted"))
}

/// Bytes, from a number of MiB that is `least` or more.
fn mib(
    arguments: &mut impl Iterator<Item = String>,
    name: &str,
    least: u64,
) -> Result<u64, String> {
    let accepted = format!("{least} to {MAX_MIB} (MiB)");
    let mib: u64 = value(arguments, name, &accepted)?;
    match (least..=MAX_MIB).contains(&mib) {
        true => Ok(mib << 20),
        false => Err(format!("`{name} {mib}`: {accepted} is accepted")),
    }
}

fn seconds(arguments: &mut impl Iterator<Item = String>, name: &str) -> Result<Duration, String> {
    let seconds: u32 = value(arguments, name, "a whole number of seconds")?;
    Ok(Duration::from_secs(seconds.into()))
}
