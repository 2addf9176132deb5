//! `--demo`: the service sends requests to itself over TCP and checks each answer.

use std::{
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_image_trace::{RequestsInProgress, Telemetry};

/// The demo's workers: few, so that the burst has to queue on every machine.
pub(crate) const WORKERS: usize = 2;

/// The `traceparent` that an upstream service would send.
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

    /// Sends all requests, and fails with the first unexpected answer.
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

    /// Sends a few requests a second, of which some fail, for as long as it is polled.
    pub(crate) async fn traffic(&self) -> Outcome {
        for number in 0_u32.. {
            // Of two kinds, most results are in no cache.
            let side = 200 + number % 301;
            let changing = match number % 8 {
                0 => format!("rs:fill:{side}:{side}/f:webp"),
                _ => format!("rs:fit:{side}:{side}/f:jpg"),
            };
            let (options, picture) = match number % 8 {
                0 => (&*changing, "hubble.jpg"),
                1 => ("rs:fit:300:200", "missing.jpg"),
                2 => ("rs:fit:300:200", "notes.txt"),
                3 => ("rs:nonsense", "coffee.png"),
                4 => ("rs:force:200:200/f:png", "rocket.jpg"),
                5 => ("rs:fit:64:64/f:jpg", "coffee.png"),
                6 => (&*changing, "chelsea.png"),
                _ => ("rs:fit:300:200/f:jpg", "chelsea.png"),
            };
            // Every answer is one that a service gives.
            let _ = self.get(options, picture, None).await?;
            if number % 64 == 0 {
                let slow = self.get("rs:fit:300:200", "slow.png", None);
                let _ = timeout(Duration::from_millis(100), slow).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Returns the answer's status and body. Dropping the future disconnects.
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

    /// Waits until the service is idle and has shown its traces.
    async fn settle(&self) -> Outcome {
        let done = async {
            while self.in_progress.requests() > 0 || self.in_progress.images() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let done = timeout(Duration::from_secs(10), done).await;
        done.map_err(|_| "the service is still busy after its last answer")?;
        // An unreachable collector does not fail the demo. The shutdown reports what was lost.
        let _ = self.telemetry.force_flush(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// Unlike `println!`, this does not panic when stdout is closed.
fn heading(text: &str) -> Outcome {
    Ok(writeln!(io::stdout(), "# {text}\n")?)
}

/// A success must have a picture as its body.
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
