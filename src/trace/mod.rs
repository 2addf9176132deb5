//! The root span of a request: [`ImageTraceLayer`] and its settings.
//!
//! # axum
//!
//! `Router::layer` sees the route that axum has matched, nested routers included.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use std::net::SocketAddr;
//! use axum::{Router, routing::get};
//! use tower_image_trace::{ImageTraceLayer, RequestTrace};
//!
//! let app: Router = Router::new()
//!     .route("/resize/{options}", get(async |trace: RequestTrace| trace.trace_id().to_string()))
//!     .layer(ImageTraceLayer::new());
//! // For `client.address`:
//! let app = app.into_make_service_with_connect_info::<SocketAddr>();
//! # }
//! ```
//!
//! A layer around a whole `Router` cannot see which route is matched. The extractor tells it, in each
//! handler that has one; for all handlers, run it for each matched route:
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::{Router, middleware::from_extractor, routing::get};
//! use tower_image_trace::{ImageTraceLayer, RequestTrace};
//!
//! let app: Router = Router::new()
//!     .route("/resize/{options}", get(async || "no extractor here"))
//!     .route_layer(from_extractor::<RequestTrace>());
//! // Around the router, for example to trace what its fallback answers.
//! let app = tower::Layer::layer(&ImageTraceLayer::new(), app);
//! # }
//! ```
//!
//! # hyper
//!
//! The handler names its route with [`set_route`](crate::RequestTrace::set_route); the accept loop
//! names the peer with a [`PeerAddr`]. Complete: `examples/hyper_thumbnailer.rs`.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, service_fn};
//! use tower_image_trace::{ImageTraceLayer, RequestTrace};
//!
//! let service = ServiceBuilder::new()
//!     .layer(ImageTraceLayer::new())
//!     .service(service_fn(async |request: Request<hyper::body::Incoming>| {
//!         RequestTrace::from_extensions(request.extensions()).set_route("/resize/{options}");
//!         Ok::<_, std::convert::Infallible>(Response::new(String::new()))
//!     }));
//! let service = hyper_util::service::TowerToHyperService::new(service);
//! ```
//!
//! # tonic
//!
//! A request with content type `application/grpc` is a call: its span is named after the method and
//! has `rpc.*` attributes, its duration is `rpc.server.call.duration` and not
//! `http.server.request.duration` (semconv rpc). The status comes from the trailers, or from a head that
//! is the whole answer. Complete: `examples/tonic_thumbnailer`.
//!
//! ```no_run
//! use tonic::transport::{Server, server::TcpConnectInfo};
//! use tower_image_trace::ImageTraceLayer;
//!
//! let trace = ImageTraceLayer::builder()
//!     .peer_address(|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr())
//!     .build();
//! let server = Server::builder().layer(trace);
//! ```
//!
//! # Order in a `ServiceBuilder`
//!
//! The first layer is the outermost.
//!
//! | layer | place | why |
//! |---|---|---|
//! | CORS | outside | it answers preflights, which are not image requests |
//! | catch-panic | outside | the panic passes through the span, which records its message |
//! | [`RequestsInProgressLayer`](crate::RequestsInProgressLayer) | outside | it counts refused requests too |
//! | `ImageTraceLayer` | | |
//! | timeout | inside | the span has the status that the client gets, and the stage that was cut off says so; outside, the request is recorded as cancelled |
//! | load-shed, concurrency limit, rate limit | inside | refusals are recorded |
//! | compression | inside | `http.response.body.size` is what goes over the wire |
//! | authorization | inside | refusals are recorded, with their status |
//!
//! # A layer inside another
//!
//! One layer is enough. Where a request passes through a second one, such as that of a nested router,
//! the first has the `SERVER` span and the second an `INTERNAL` one below it, in which the handler's
//! stages are. The request is measured once, with the route that the second layer knows.
//!
//! # Behind a load balancer
//!
//! Any client can send `traceparent`, `baggage` and `X-Forwarded-For`. With
//! [`trust_only`](ImageTraceLayerBuilder::trust_only) only your own callers' traces are continued,
//! and with [`trusted_proxies`](ImageTraceLayerBuilder::trusted_proxies) forwarding headers are read
//! only when one of your proxies wrote them:
//!
//! ```
//! use tower_image_trace::{ImageTraceLayer, Trust, trace::Networks};
//!
//! let own: Networks = "10.0.0.0/8, fd00::/8".parse()?;
//! let layer = ImageTraceLayer::builder()
//!     .trust_only(own.clone(), Trust::Link)
//!     .trusted_proxies(own)
//!     .build();
//! # Ok::<(), tower_image_trace::trace::NetworksError>(())
//! ```
//!
//! # `tracing` spans
//!
//! With feature `tracing`, `Telemetry::tracing_layer` in the subscriber makes spans of
//! `#[tracing::instrument]` children of the root span, or of the stage in which they are made
//! ([`run`](crate::Stage::run), [`run_blocking`](crate::Stage::run_blocking),
//! [`attach`](crate::Stage::attach), [`in_scope`](crate::Stage::in_scope)), and events logs.
//!
//! A `tracing-opentelemetry` layer of your own does so too, with a tracer of the same provider.
#![doc = include_str!("../../docs/recorded.md")]
mod active;
mod addresses;
mod attributes;
mod body;
mod config;
mod facts;
mod filter;
mod finish;
mod future;
mod headers;
mod layer;
mod response_headers;
mod rpc;
mod service;
mod trust;
mod web;

pub use self::{
    addresses::{ForwardedHeader, Networks, NetworksError, PeerAddr},
    body::ResponseBody,
    filter::Record,
    future::ResponseFuture,
    headers::{HeaderAllowList, HeaderAllowListError},
    layer::{ImageTraceLayer, ImageTraceLayerBuilder},
    response_headers::ServerTimingTrace,
    service::ImageTrace,
    trust::Trust,
};
pub use crate::redact::SourceUrls;
