//! The image service of `examples/image_proxy`, on real pictures and over real TCP.

#[path = "../examples/image_proxy/app.rs"]
mod app;
#[path = "../examples/image_proxy/arguments.rs"]
mod arguments;
#[path = "../examples/image_proxy/body.rs"]
mod body;
#[path = "../examples/image_proxy/cache.rs"]
mod cache;
#[allow(dead_code)]
#[path = "../examples/image_proxy/demo.rs"]
mod demo;
#[path = "../examples/image_proxy/error.rs"]
mod error;
#[path = "../examples/image_proxy/options.rs"]
pub(crate) mod options;
#[path = "../examples/image_proxy/origin.rs"]
mod origin;
#[path = "../examples/image_proxy/process/mod.rs"]
pub(crate) mod process;
#[path = "../examples/image_proxy/rendition.rs"]
mod rendition;
#[path = "../examples/image_proxy/source.rs"]
mod source;
#[path = "../examples/image_proxy/url.rs"]
mod url;
#[cfg(feature = "libvips")]
#[path = "../examples/image_proxy/vips.rs"]
mod vips;

mod answers;
mod caching;
mod colors;
mod command_line;
mod downloads;
mod memory;
mod metrics;
mod paths;
mod pictures;
mod queueing;
#[cfg(unix)]
mod signals;
mod traces;
mod urls;
#[cfg(feature = "libvips")]
mod vips_pictures;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, Method, Request, StatusCode},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider},
};
use tokio::{net::TcpListener, sync::mpsc};
use tower_image_trace::{
    DownloadLayer, ImageTraceLayer, RequestTrace, RequestsInProgress, RequestsInProgressLayer,
    Telemetry, pool::Workers,
};

use app::App;
use cache::Cache;
use source::{SourceLimits, Sources};

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// The service on a port of its own, in front of one origin.
struct Service {
    address: SocketAddr,
    origin: SocketAddr,
    app: App,
    router: Router,
    spans: InMemorySpanExporter,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The limits of a test's service.
struct Limits {
    time: Duration,
    bytes: usize,
    workers: usize,
    queue: usize,
    memory: u64,
    cache: u64,
    max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: NEVER,
            bytes: 1024 * 1024,
            workers: 2,
            queue: 10,
            memory: 512 << 20,
            cache: 0,
            max_age: NEVER,
        }
    }
}

impl Service {
    /// Starts a service in front of the sample pictures.
    async fn start() -> Self {
        Self::with(origin::start().await.unwrap(), Limits::default()).await
    }

    async fn with(origin: SocketAddr, limits: Limits) -> Self {
        let spans = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(spans.clone())
            .build();
        let trace = ImageTraceLayer::builder()
            .tracer_provider(provider.clone())
            .attributes_after_sampling(true)
            .propagators(TraceContextPropagator::new())
            .build();
        let downloads = DownloadLayer::builder().tracer_provider(provider).build();
        let counted = RequestsInProgressLayer::pair();
        let mut service = Self::behind(origin, limits, (trace, downloads), counted).await;
        service.spans = spans;
        service
    }

    /// Starts a service whose traces and metrics `telemetry` exports.
    async fn observed(telemetry: &Telemetry, limits: Limits) -> Self {
        let origin = origin::start().await.unwrap();
        let trace = telemetry.trace_layer_builder().time_to_first_byte(true);
        let layers = (trace.build(), telemetry.download_layer());
        let service = Self::behind(origin, limits, layers, telemetry.in_progress_layer()).await;
        service.app.register(telemetry.gauges());
        service
    }

    async fn behind(
        origin: SocketAddr,
        limits: Limits,
        (trace, downloads): (ImageTraceLayer, DownloadLayer),
        (count, in_progress): (RequestsInProgressLayer, RequestsInProgress),
    ) -> Self {
        let app = App {
            sources: Sources::new(
                SourceLimits {
                    allowed: vec![format!("http://{origin}").parse().unwrap()],
                    time: limits.time,
                    bytes: limits.bytes,
                },
                &downloads,
            ),
            workers: Workers::new(limits.workers)
                .with_queue_limit(limits.queue)
                .with_in_progress(&in_progress),
            memory: limits.memory,
            cache: (limits.cache > 0).then(|| Cache::new(limits.cache, limits.max_age)),
            max_age: limits.max_age,
            in_progress,
        };
        let telemetry = Telemetry::builder().vars([] as [(&str, &str); 0]).build();
        let router = app
            .clone()
            .router(trace, count, telemetry.unwrap().prometheus());
        Self {
            address: serve(router.clone()).await,
            origin,
            app,
            router,
            spans: InMemorySpanExporter::default(),
        }
    }

    /// Requests a source of the origin with these options.
    async fn resize(&self, options: &str, source: &str) -> Answer {
        let origin = self.origin;
        self.get(&format!("/resize/{options}/plain/http://{origin}{source}"))
            .await
    }

    /// The number of workers that are free.
    async fn idle_workers(&self) -> usize {
        let mut taken = Vec::new();
        let trace = RequestTrace::default();
        loop {
            tokio::select! {
                biased;
                Ok(worker) = self.app.workers.acquire(&trace) => taken.push(worker),
                () = std::future::ready(()) => return taken.len(),
            }
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    async fn send(&self, method: Method, path: &str) -> Answer {
        self.ask(method, path, &[]).await
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        // Each request has its own client, so dropping the request closes its connection.
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// Sends a message when it is dropped.
struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
