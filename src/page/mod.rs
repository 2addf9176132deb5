//! The live page of traces: what runs, and samples of what was slow, failed or cancelled, in a browser.
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::SocketAddr;
//! use axum::{Router, routing::get};
//! use tower_image_trace::Telemetry;
//!
//! let telemetry = Telemetry::builder().trace_page(true).build()?;
//! let app: Router = Router::new()
//!     .route("/thumbnail/{source}", get(async || "…"))
//!     .layer(telemetry.trace_layer())
//!     // Added after the layer, so that the page does not trace itself.
//!     .nest_service("/debug/traces", telemetry.trace_page());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! // The page asks where a request comes from.
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Without a route, `IMGPROXY_OPEN_TELEMETRY_PAGE_BIND=127.0.0.1:9411` or
//! [`trace_page_listen`](crate::TelemetryBuilder::trace_page_listen) serves it on a listener of its own.
//!
//! # What it holds
//!
//! Every span that ends is encoded once, for the exporter and for the page. When the root of a request ends, its
//! spans become a sample of its route, its outcome (ok, failed, cancelled) and its latency band, and each of
//! these slots keeps its latest samples. So a flood of ordinary requests displaces neither the one that failed
//! nor the one that was slow. All of it takes 8 MiB at most
//! ([`trace_page_max_bytes`](crate::TelemetryBuilder::trace_page_max_bytes)). Rates and quantiles count every
//! request.
//!
//! # Who may look
//!
//! By default a request is answered when it comes from this machine (its peer is a loopback address), asks for
//! it under a loopback name (`Host: localhost`, `127.0.0.1` or `[::1]`, so that no foreign website reaches it by
//! DNS rebinding), and was not forwarded by a proxy that says so (`Forwarded`, `Via`, `X-Forwarded-…`,
//! `X-Envoy-…`, `X-Original-…`, and addresses such as `X-Real-IP` and `CF-Connecting-IP`). A proxy on this machine
//! that forwards everything and says nothing makes the page public: keep the path out of it, or decide with
//! [`authorize`](TracePageBuilder::authorize).
//!
//! The peer is a [`PeerAddr`](crate::trace::PeerAddr) or a `SocketAddr` in the request's extensions, or axum's
//! `ConnectInfo<SocketAddr>`. When it is unknown, the answer is 403 with a sentence that says what to do: a `Host`
//! header alone proves nothing, because any client can write it.
//!
//! [`TracePageBuilder::allow`] opens the page to networks, and [`TracePageBuilder::authorize`] lets a closure
//! decide.
//!
//! # What else it serves
//!
//! All data is JSON: `api/state` (also as server-sent events, `api/events`), `api/traces`, `api/traces/{id}`, a
//! trace as OTLP JSON (`api/traces/{id}/otlp.json`), and OpenTelemetry's zPages under `tracez/api/`
//! (`aggregations`, `latency/{band}/{name}`, `running/{name}`, `error/{name}`).

mod access;
mod answer;
mod body;
mod events;
mod files;
mod latency;
mod query;
mod routes;
mod service;
mod state;
mod store;
mod trace_json;
mod zpages;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry_sdk::Resource;

pub use self::{
    body::TracePageBody,
    service::{TracePage, TracePageBuilder, TracePageFuture},
};
use self::{events::Events, store::Store};
use crate::{
    in_progress::RequestsInProgress,
    metrics::{Gauges, WatchedWorkers},
    request::RunningRequests,
    telemetry::{Gathered, Header, Pipeline, Settings},
};

/// All that the page shows.
#[derive(Debug)]
pub(crate) struct Page {
    service_name: String,
    service_version: Option<String>,
    resource: Header,
    max_bytes: usize,
    is_exporting: bool,
    store: Arc<Store>,
    gathered: Arc<Gathered>,
    running: Arc<RunningRequests>,
    in_progress: OnceLock<RequestsInProgress>,
    watched: OnceLock<Watched>,
    events: Events,
}

/// What is there only when all of telemetry has started.
#[derive(Debug)]
struct Watched {
    pipeline: Weak<Pipeline>,
    workers: WatchedWorkers,
}

impl Page {
    /// `max_bytes`: everything that is held takes so much memory at most.
    pub(crate) fn new(settings: &Settings, max_bytes: usize, resource: &Resource) -> Arc<Self> {
        let store = Arc::new(Store::new(max_bytes));
        Arc::new(Self {
            service_name: settings.service_name.clone(),
            service_version: settings.service_version.clone(),
            resource: Header::resource(resource),
            max_bytes,
            is_exporting: settings.exports_traces(),
            gathered: Arc::new(Gathered::new(max_bytes / 4, store.clone())),
            store,
            running: Arc::default(),
            in_progress: OnceLock::new(),
            watched: OnceLock::new(),
            events: Events::default(),
        })
    }

    pub(crate) const fn gathered(&self) -> &Arc<Gathered> {
        &self.gathered
    }

    pub(crate) const fn running(&self) -> &Arc<RunningRequests> {
        &self.running
    }

    /// Shows how the exporters and the service's workers do.
    pub(crate) fn watch(&self, pipeline: &Arc<Pipeline>, gauges: &Gauges) {
        let _ = self.watched.set(Watched {
            pipeline: Arc::downgrade(pipeline),
            workers: gauges.watched_workers().clone(),
        });
    }

    /// Shows these counts.
    pub(crate) fn count_in_progress(&self, counts: &RequestsInProgress) {
        let _ = self.in_progress.set(counts.clone());
    }
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e6).round() / 1e3
}
