//! `--demo`: requests to the service itself, over TCP, each with the answer that must come back.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_image_trace::{RequestsInProgress, Telemetry};

/// The demo's workers, few enough for a burst to queue on every machine.
pub(crate) const WORKERS: usize = 2;

/// What an upstream service sends along: the trace that the request belongs to.
const UPSTREAM: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) struct Demo<'a> {
    client: Client<HttpConnector, Empty<Bytes>>,
    service: SocketAddr,
    origin: SocketAddr,
    in_progress: &'a RequestsInProgress,
    telemetry: &'a Telemetry,
}

impl<'a> Demo<'a> {
    pub(crate) fn new(
        service: SocketAddr,
        origin: SocketAddr,
        in_progress: &'a RequestsInProgress,
        telemetry: &'a Telemetry,
    ) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            service,
            origin,
            in_progress,
            telemetry,
        }
    }

    /// Runs the script; fails with the first answer that is not as expected.
    pub(crate) async fn run(&self) -> Outcome {
        heading("A plain resize")?;
        let plain = self.get("rs:fit:300:200/f:jpg", "chelsea.png", None);
        expect(StatusCode::OK, plain.await?)?;
        self.settle().await?;

        heading(&format!(
            "A burst that has to queue: 6 requests for {WORKERS} workers"
        ))?;
        let mut burst = JoinSet::new();
        for _ in 0..6 {
            burst.spawn(self.get("rs:fill:500:500/f:webp", "hubble.jpg", None));
        }
        while let Some(answer) = burst.join_next().await {
            expect(StatusCode::OK, answer??)?;
        }
        self.settle().await?;

        heading("A missing source")?;
        let missing = self.get("rs:fit:300:200", "missing.jpg", None);
        expect(StatusCode::NOT_FOUND, missing.await?)?;
        self.settle().await?;

        heading("A source that is no picture")?;
        let text = self.get("rs:fit:300:200", "notes.txt", None);
        expect(StatusCode::UNPROCESSABLE_ENTITY, text.await?)?;
        self.settle().await?;

        heading("A slow source, and a client that disconnects after half a second")?;
        let slow = self.get("rs:fit:300:200", "slow.png", None);
        if let Ok(answer) = timeout(Duration::from_millis(500), slow).await {
            return Err(format!("the slow source answered {}", answer?.0).into());
        }
        self.settle().await?;

        heading(&format!("A request of the trace {UPSTREAM}"))?;
        let traced = self.get("rs:force:200:200/f:png", "rocket.jpg", Some(UPSTREAM));
        expect(StatusCode::OK, traced.await?)?;
        self.settle().await
    }

    /// The answer's status and body. Dropping the future disconnects.
    fn get(
        &self,
        options: &str,
        picture: &str,
        traceparent: Option<&str>,
    ) -> impl Future<Output = Outcome<(StatusCode, Bytes)>> + use<> {
        let Self {
            service, origin, ..
        } = self;
        let url = format!("http://{service}/resize/{options}/plain/http://{origin}/{picture}");
        let mut request = Request::get(url);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let client = self.client.clone();
        async move {
            let response = client.request(request.body(Empty::new())?).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        }
    }

    /// Waits until the service is done with everything, and its traces are shown.
    async fn settle(&self) -> Outcome {
        let done = async {
            while self.in_progress.requests() > 0 || self.in_progress.images() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let done = timeout(Duration::from_secs(10), done).await;
        done.map_err(|_| "the service is still busy after its last answer")?;
        // A collector that is away fails no demo; the shutdown says what it missed.
        let _ = self.telemetry.force_flush(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// `println!` would panic when nobody reads on.
fn heading(text: &str) -> Outcome {
    Ok(writeln!(io::stdout(), "# {text}\n")?)
}

/// An expected success is a picture as well.
fn expect(expected: StatusCode, (status, body): (StatusCode, Bytes)) -> Outcome {
    if status != expected {
        let text = String::from_utf8_lossy(&body);
        return Err(format!("expected {expected}, got {status}: {}", text.trim_end()).into());
    }
    if status.is_success() {
        image::load_from_memory(&body)?;
    }
    Ok(())
}
