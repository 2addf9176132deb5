//! The modes of the benchmark: the same request through each crate, set up as its README or docs say.

use std::{convert::Infallible, fmt::Debug};

use axum::{
    Router,
    body::Body,
    response::IntoResponse,
    routing::{Route, get},
};
use axum_tracing_opentelemetry::middleware::OtelAxumLayer;
use http::{Request, Response};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_tower::http::server as contrib;
use tower::{Layer, Service, ServiceBuilder, layer::util::Identity, service_fn};
use tower_http::trace::TraceLayer;
use tower_image_trace::{ImageTraceLayer, Propagator, Propagators, metrics::Gauges};
use tracing::Level;

use super::{
    pipeline::{Pipeline, sample},
    requests::{BODY, Start, handle, sender},
};

pub(crate) struct Mode {
    pub(crate) table: Table,
    pub(crate) name: &'static str,
    pub(crate) start: Box<Start>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Table {
    pub(crate) served: Served,
    pub(crate) signals: Signals,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Served {
    Router,
    Bare,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Signals {
    SampledOut,
    Traces,
    TracesAndMetrics,
}

pub(crate) const BASELINE: &str = "no layer";
pub(crate) const OURS: &str = "tower-image-trace";
/// The only peer that does not read the caller's trace context.
pub(crate) const PARENTLESS: &str = "tower-http";

/// All modes. In each table, the baseline comes first and this crate second.
pub(crate) fn modes(pipeline: &Pipeline) -> Vec<Mode> {
    let mut modes = Vec::new();
    for served in [Served::Router, Served::Bare] {
        for signals in [
            Signals::SampledOut,
            Signals::Traces,
            Signals::TracesAndMetrics,
        ] {
            let mut rows = Rows {
                table: Table { served, signals },
                handler: service_fn(handle),
                modes: &mut modes,
            };
            // axum adds a cost to any layer in a router, so the baseline has a layer too.
            rows.push(BASELINE, Identity::new());
            rows.push(OURS, ours(pipeline, signals));
            rows.push("opentelemetry-instrumentation-tower", contrib(signals));
            // Its README has no example. The setup follows the docs of `HttpLayer::server`.
            let tower_otel = tower_otel::trace::HttpLayer::server(Level::INFO);
            if signals == Signals::TracesAndMetrics {
                let meter = pipeline.meters.meter("tower-otel");
                let metrics = tower_otel::metrics::HttpLayer::server(&meter);
                let both = ServiceBuilder::new().layer(tower_otel).layer(metrics);
                rows.push("tower-otel", both);
                // The peers below have no metrics.
                continue;
            }
            rows.push("tower-otel", tower_otel);
            // The setup follows "Middlewares to integrate axum" in its README. The other layer of that
            // example, `OtelInResponseLayer`, is optional and would only add time.
            if served == Served::Router {
                rows.push("axum-tracing-opentelemetry", OtelAxumLayer::default());
            }
            // This is the first example in its docs: a span with an event each for the request, for the
            // response and for the end of its body.
            rows.push(PARENTLESS, TraceLayer::new_for_http());
        }
    }
    modes
}

fn ours(pipeline: &Pipeline, signals: Signals) -> ImageTraceLayer {
    // The peers read the same format.
    let formats: Propagators = [Propagator::TraceContext].into_iter().collect();
    let builder = ImageTraceLayer::builder()
        .tracer_provider(pipeline.tracers.clone())
        .propagators(formats);
    let builder = match signals {
        Signals::TracesAndMetrics => builder.gauges(&Gauges::new(&pipeline.meters)),
        Signals::SampledOut | Signals::Traces => builder.metrics(false),
    };
    builder.build()
}

/// The builder without changes does what `Layer::new()` in its README does.
fn contrib(signals: Signals) -> contrib::Layer {
    contrib::LayerBuilder::builder()
        .with_metrics(signals == Signals::TracesAndMetrics)
        .build()
        .expect("a valid layer")
}

/// The modes of one table.
struct Rows<'a, H> {
    table: Table,
    handler: H,
    modes: &'a mut Vec<Mode>,
}

impl<H: Clone + Send + Sync + 'static> Rows<'_, H> {
    fn push<L, B>(&mut self, name: &'static str, layer: L)
    where
        L: Layer<H> + Layer<Route> + Clone + Send + Sync + 'static,
        <L as Layer<H>>::Service:
            Service<Request<Body>, Response = Response<B>, Error: Debug> + 'static,
        B: http_body::Body<Error: Debug>,
        <L as Layer<Route>>::Service: Service<Request<Body>, Response: IntoResponse, Error: Into<Infallible>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let Table { served, signals } = self.table;
        let handler = self.handler.clone();
        let start = move |request: &Request<()>| -> Box<dyn FnMut()> {
            let mut send = match served {
                Served::Router => {
                    let router = Router::new().route("/thumbnail/{source}", get(async || BODY));
                    sender(router.layer(layer.clone()), request)
                }
                Served::Bare => sender(layer.layer(handler.clone()), request),
            };
            Box::new(move || {
                sample(signals != Signals::SampledOut);
                send();
            })
        };
        self.modes.push(Mode {
            table: self.table,
            name,
            start: Box::new(start),
        });
    }
}
