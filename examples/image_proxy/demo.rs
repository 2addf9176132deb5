//! `--demo`: requests to the service itself, over TCP, each with the answer that must come back.

use std::error::Error;
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
use tower_image_trace::RequestsInProgress;

/// The demo's workers, few enough for a burst to queue on every machine.
pub(crate) const WORKERS: usize = 2;

/// What an upstream service sends along: the trace that the request belongs to.
const UPSTREAM: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Runs the script; fails with the first answer that is not as expected.
pub(crate) async fn run(
    service: SocketAddr,
    origin: SocketAddr,
    in_progress: &RequestsInProgress,
) -> Outcome {
    let client = DemoClient {
        client: Client::builder(TokioExecutor::new()).build_http(),
        service,
        origin,
    };

    println!("A plain resize");
    let plain = client
        .clone()
        .get("rs:fit:300:200/f:jpg", "chelsea.png", None);
    plain.await?.expect(StatusCode::OK)?;

    println!("A burst of 8 requests for {WORKERS} workers");
    let mut burst = JoinSet::new();
    for _ in 0..8 {
        burst.spawn(
            client
                .clone()
                .get("rs:fill:500:500/f:webp", "hubble.jpg", None),
        );
    }
    while let Some(answer) = burst.join_next().await {
        answer??.expect(StatusCode::OK)?;
    }

    println!("A missing source");
    let missing = client.clone().get("rs:fit:300:200", "missing.jpg", None);
    missing.await?.expect(StatusCode::NOT_FOUND)?;

    println!("A source that is no picture");
    let text = client.clone().get("rs:fit:300:200", "notes.txt", None);
    text.await?.expect(StatusCode::UNPROCESSABLE_ENTITY)?;

    println!("A slow source, whose client disconnects after half a second");
    let slow = client.clone().get("rs:fit:300:200", "slow.png", None);
    if let Ok(answer) = timeout(Duration::from_millis(500), slow).await {
        return Err(format!("the slow source answered {}", answer?.status).into());
    }
    let noticed = async {
        while in_progress.requests() + in_progress.images() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let noticed = timeout(Duration::from_secs(5), noticed).await;
    noticed.map_err(|_| "the service did not notice that its client left")?;

    println!("A request that continues the trace of {UPSTREAM}");
    let traced = client.get("rs:force:200:200/f:png", "rocket.jpg", Some(UPSTREAM));
    traced.await?.expect(StatusCode::OK)
}

#[derive(Clone)]
struct DemoClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    service: SocketAddr,
    origin: SocketAddr,
}

struct Answer {
    url: String,
    status: StatusCode,
    body: Bytes,
}

impl DemoClient {
    async fn get(self, options: &str, picture: &str, traceparent: Option<&str>) -> Outcome<Answer> {
        let Self {
            client,
            service,
            origin,
        } = self;
        let url = format!("http://{service}/resize/{options}/plain/http://{origin}/{picture}");
        let mut request = Request::get(&url);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let response = client.request(request.body(Empty::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { url, status, body })
    }
}

impl Answer {
    /// An expected success is a picture as well, an expected failure a sentence.
    fn expect(&self, status: StatusCode) -> Outcome {
        let Self { url, body, .. } = self;
        if self.status != status {
            return Err(format!("{url} answered {}, expected {status}", self.status).into());
        }
        if status.is_success() {
            image::load_from_memory(body)
                .map_err(|error| format!("{url} answered no picture: {error}"))?;
        } else {
            print!("  {status}: {}", String::from_utf8_lossy(body));
        }
        Ok(())
    }
}
