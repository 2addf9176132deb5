//! The same request, served in every way there is.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::poll_fn,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use opentelemetry::{KeyValue, trace::Tracer};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider},
    trace::{Sampler, SdkTracerProvider, SpanData, SpanProcessor},
};
use tower::{Layer, Service, service_fn};
use tower_image_trace::{
    ImageTraceLayer, Propagator, Propagators, RequestTrace, trace::ImageTraceLayerBuilder,
};

use super::floor::Floor;

pub(crate) const STAGES: u32 = 3;
pub(crate) const POLLS: u32 = 10;

/// Makes a service, and a closure that sends the request through it and reads the response.
pub(crate) type Start = dyn Fn(&Request<()>) -> Box<dyn FnMut()> + Send + Sync;

pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// What it is above of.
    pub(crate) baseline: &'static str,
    /// What it is a multiple of.
    pub(crate) floor: Option<&'static str>,
    pub(crate) start: Box<Start>,
}

const BARE: &str = "baseline";
const UNCALLED: &str = "baseline, no traceparent";
const POLLED: &str = "baseline, further polls";
const ROUTER: &str = "baseline, axum router and layer";

pub(crate) fn modes() -> Vec<Mode> {
    let on = tracers(Sampler::AlwaysOn);
    let off = tracers(Sampler::AlwaysOff);
    let meters = meters();

    let disabled = ImageTraceLayer::disabled();
    let filtered = builder(&on).meter_provider(meters.clone());
    let filtered = filtered.filter(|_| false).build();
    let sampled_out = builder(&off).without_metrics().build();
    let traces = builder(&on).without_metrics().build();
    let both = builder(&on).meter_provider(meters.clone()).build();

    let floor_off = Floor::new(&off, None);
    let floor_traces = Floor::new(&on, None);
    let floor_both = Floor::new(&on, Some(&meters));
    let tracer = floor_both.tracer.clone();
    let handle_with_children = move |request| {
        children(&tracer);
        handle(request)
    };

    let mode = |name, baseline, floor, start| Mode {
        name,
        baseline,
        floor,
        start,
    };
    let floor = |name, start| mode(name, BARE, None, start);
    let over = |floor, name, start| mode(name, BARE, Some(floor), start);
    vec![
        mode(BARE, BARE, None, bare(handle)),
        floor("floor: sampled out", by_hand(&floor_off, handle)),
        floor("floor: traces", by_hand(&floor_traces, handle)),
        floor("floor: traces and metrics", by_hand(&floor_both, handle)),
        mode("disabled", BARE, None, layered(&disabled, handle)),
        mode("filtered out", BARE, None, layered(&filtered, handle)),
        mode(UNCALLED, UNCALLED, None, without_caller(bare(handle))),
        mode(
            "filtered out, no traceparent",
            UNCALLED,
            None,
            without_caller(layered(&filtered, handle)),
        ),
        over(
            "floor: sampled out",
            "sampled out",
            layered(&sampled_out, handle),
        ),
        over("floor: traces", "traces", layered(&traces, handle)),
        over(
            "floor: traces and metrics",
            "traces and metrics",
            layered(&both, handle),
        ),
        floor(
            "floor: three child spans",
            by_hand(&floor_both, handle_with_children),
        ),
        over(
            "floor: three child spans",
            "traces, metrics, three stages",
            layered(&both, handle_in_stages),
        ),
        mode(POLLED, POLLED, None, bare(handle_slowly)),
        mode(
            "floor: further polls",
            POLLED,
            None,
            by_hand(&floor_both, handle_slowly),
        ),
        mode(
            "traces and metrics, further polls",
            POLLED,
            Some("floor: further polls"),
            layered(&both, handle_slowly),
        ),
        // What any layer costs in a router is axum's own: it boxes its service, future and body.
        mode(ROUTER, ROUTER, None, routed(&disabled)),
        mode(
            "sampled out, axum router",
            ROUTER,
            Some("floor: sampled out"),
            routed(&sampled_out),
        ),
        mode(
            "traces, axum router",
            ROUTER,
            Some("floor: traces"),
            routed(&traces),
        ),
        mode(
            "traces and metrics, axum router",
            ROUTER,
            Some("floor: traces and metrics"),
            routed(&both),
        ),
    ]
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// A handler without anything around it.
fn bare<F>(handler: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static) -> Box<Start>
where
    F: Future<Output = Answer> + 'static,
{
    Box::new(move |request| sender(service_fn(handler.clone()), request))
}

fn by_hand<F>(
    floor: &Floor,
    handler: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> Box<Start>
where
    F: Future<Output = Answer> + 'static,
{
    let floor = floor.clone();
    Box::new(move |request| {
        let (floor, handler) = (floor.clone(), handler.clone());
        let serve = move |request| floor.clone().serve(request, handler.clone());
        sender(service_fn(serve), request)
    })
}

fn layered<F>(
    layer: &ImageTraceLayer,
    handler: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> Box<Start>
where
    F: Future<Output = Answer> + 'static,
{
    let layer = layer.clone();
    Box::new(move |request| sender(layer.layer(service_fn(handler.clone())), request))
}

/// The same for a request that no trace came with, as health checks are.
fn without_caller(start: Box<Start>) -> Box<Start> {
    Box::new(move |request| {
        let mut request = request.clone();
        request.headers_mut().remove("traceparent");
        request.headers_mut().remove("tracestate");
        start(&request)
    })
}

fn routed(layer: &ImageTraceLayer) -> Box<Start> {
    let layer = layer.clone();
    Box::new(move |request| {
        let router = Router::new().route("/thumbnail/{source}", get(async || BODY));
        sender(router.layer(layer.clone()), request)
    })
}

const BODY: &str = "a very small picture";

async fn handle(_: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        BODY.as_bytes(),
    ))))
}

async fn handle_in_stages(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let trace = RequestTrace::from_extensions(request.extensions());
    for name in ["decode", "resize", "encode"] {
        let stage = trace.stage(name);
        stage.set_attribute(KeyValue::new("image.processing.options", "rs:fit"));
    }
    handle(request).await
}

fn children(tracer: &impl Tracer) {
    for name in ["decode", "resize", "encode"] {
        let attribute = KeyValue::new("image.processing.options", "rs:fit");
        let span = tracer.span_builder(name).with_attributes([attribute]);
        drop(span.start(tracer));
    }
}

async fn handle_slowly(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut polls = 0;
    poll_fn(|_| {
        polls += 1;
        if polls > POLLS {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    handle(request).await
}

fn sender<S, B>(mut service: S, request: &Request<()>) -> Box<dyn FnMut()>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug> + 'static,
    B: http_body::Body<Error: Debug>,
{
    let request = request.clone();
    Box::new(move || {
        let response = service.call(request.clone().map(|()| Body::empty()));
        let whole = async {
            let mut body = pin!(response.await.expect("a response").into_body());
            while let Some(frame) = body.frame().await {
                drop(black_box(frame.expect("a frame")));
            }
        };
        let mut whole = pin!(whole);
        let mut context = Context::from_waker(Waker::noop());
        while whole.as_mut().poll(&mut context).is_pending() {}
    })
}

pub(crate) fn request(tracestate: bool) -> Request<()> {
    let mut request = Request::get("/thumbnail/cat.jpg?w=300")
        .header("host", "images.example.com")
        .header("accept", "image/avif,image/webp,*/*;q=0.8")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        )
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
    if tracestate {
        request = request.header("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    }
    request.body(()).expect("a valid request")
}

fn builder(tracers: &SdkTracerProvider) -> ImageTraceLayerBuilder {
    // The format of the floor.
    let formats: Propagators = [Propagator::TraceContext].into_iter().collect();
    ImageTraceLayer::builder()
        .tracer_provider(tracers.clone())
        .propagators(formats)
}

fn tracers(sampler: Sampler) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_span_processor(Discard)
        .build()
}

fn meters() -> SdkMeterProvider {
    let reader = PeriodicReader::builder(InMemoryMetricExporter::default())
        .with_interval(Duration::from_secs(3600))
        .build();
    SdkMeterProvider::builder().with_reader(reader).build()
}

/// Where an exporter would take the spans.
#[derive(Debug)]
struct Discard;

impl SpanProcessor for Discard {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        drop(black_box(span));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
