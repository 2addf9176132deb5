//! The modes of the benchmark: the same request, served in every way that is compared.

use std::{
    convert::Infallible,
    future::poll_fn,
    hint::black_box,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    task::Poll,
    thread,
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry::{KeyValue, global, trace::Tracer};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider},
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanProcessor},
};
use tower::{Layer, service_fn};
use tower_image_trace::{
    ImageTraceLayer, Propagator, Propagators, RequestTrace, Telemetry, metrics::Gauges, telemetry,
    trace::ImageTraceLayerBuilder,
};

use super::{
    floor::Floor,
    requests::{Answer, BODY, Start, handle, sender},
};

pub(crate) const STAGES: u32 = 3;
pub(crate) const POLLS: u32 = 10;

pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// The mode whose time is subtracted.
    pub(crate) baseline: &'static str,
    /// The mode that the time is divided by.
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
    let gauges = Gauges::new(&meters);

    let disabled = ImageTraceLayer::disabled();
    let filtered = builder(&on).meter_provider(meters.clone());
    let filtered = filtered.filter(|_| false).build();
    let sampled_out = builder(&off).metrics(false);
    let sampled_out = sampled_out.attributes_after_sampling(true).build();
    let looked_at = builder(&off).metrics(false).build();
    let traces = builder(&on).metrics(false).build();
    let metrics = ImageTraceLayer::builder().traces(false);
    let metrics = metrics.gauges(&gauges).build();
    let both = builder(&on).gauges(&gauges).build();
    let bound = builder(&on).gauges(&gauges).bound_instruments(true).build();
    // As after the first interval.
    meters.force_flush().expect("metrics are collected");
    global::set_tracer_provider(on.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());
    let globals = ImageTraceLayer::builder().metrics(false).build();
    let collector = collector();
    let whole_off = telemetry(collector, telemetry::Sampler::AlwaysOff, false);
    let whole_traces = telemetry(collector, telemetry::Sampler::AlwaysOn, false);
    let whole_both = telemetry(collector, telemetry::Sampler::AlwaysOn, true);
    let head = telemetry::Sampler::ParentBasedTraceIdRatio(0.01);
    let whole_head = telemetry(collector, head, false);
    let keep = telemetry::Keep::ratio(0.01).errors().cancelled();
    let keep = keep.slower_than(Duration::from_secs(3600));
    let whole_kept = whole(collector, telemetry::Sampler::ParentBasedAlwaysOn, false);
    let whole_kept = started(whole_kept.keep(keep));
    #[cfg(feature = "page")]
    let shown = started(whole(collector, telemetry::Sampler::AlwaysOn, false).trace_page(true));

    let floor_off = Floor::new(&off, None);
    let floor_traces = Floor::new(&on, None);
    let floor_both = Floor::new(&on, Some(&meters));
    let tracer = floor_both.tracer.clone();
    let handle_with_children = move |request| {
        let tracer = tracer.clone();
        async move {
            children(&tracer);
            handle(request).await
        }
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
        over(
            "floor: sampled out",
            "sampled out, after a look at attributes",
            layered(&looked_at, handle),
        ),
        over("floor: traces", "traces", layered(&traces, handle)),
        over(
            "floor: traces",
            "on the globals, traces",
            layered(&globals, handle),
        ),
        over(
            "floor: sampled out",
            "telemetry, sampled out",
            layered(&whole_off, handle),
        ),
        over(
            "floor: traces",
            "telemetry, traces",
            layered(&whole_traces, handle),
        ),
        mode(
            "telemetry, traces, no traceparent",
            UNCALLED,
            None,
            without_caller(layered(&whole_traces, handle)),
        ),
        // Each request is a trace of its own, of which the page takes one in a while.
        #[cfg(feature = "page")]
        mode(
            "telemetry, traces, page, no traceparent",
            UNCALLED,
            None,
            without_caller(layered(&shown, handle)),
        ),
        over(
            "floor: traces and metrics",
            "telemetry, traces and metrics",
            layered(&whole_both, handle),
        ),
        over(
            "floor: three child spans",
            "telemetry, three stages",
            layered(&whole_both, handle_in_stages),
        ),
        // Nobody has sampled these.
        mode(
            "telemetry, every request",
            UNCALLED,
            None,
            without_caller(layered(&whole_traces, handle_in_stages)),
        ),
        mode(
            "telemetry, 1 in 100",
            UNCALLED,
            None,
            without_caller(layered(&whole_head, handle_in_stages)),
        ),
        mode(
            "telemetry, 1 in 100 and what failed",
            UNCALLED,
            None,
            without_caller(layered(&whole_kept, handle_in_stages)),
        ),
        mode("metrics", BARE, None, layered(&metrics, handle)),
        over(
            "floor: traces and metrics",
            "traces and metrics",
            layered(&both, handle),
        ),
        over(
            "floor: traces and metrics",
            "traces and metrics, bound",
            layered(&bound, handle),
        ),
        over(
            "floor: traces and metrics",
            "traces and metrics, a label",
            layered(&both, handle_with_a_label),
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
        over(
            "floor: three child spans",
            "traces, metrics, three stages, bound",
            layered(&bound, handle_in_stages),
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
        // axum boxes the service, future and body of any layer in a router. The baseline has a layer
        // that does nothing, so that this is not counted.
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

/// A handler without a layer.
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

/// The same mode for a request without a trace context, such as a health check.
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

async fn handle_with_a_label(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let trace = RequestTrace::from_extensions(request.extensions());
    trace.metric_attribute(KeyValue::new("thumbs.preset", "avatar"));
    handle(request).await
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

fn builder(tracers: &SdkTracerProvider) -> ImageTraceLayerBuilder {
    // The floor reads the same format.
    let formats: Propagators = [Propagator::TraceContext].into_iter().collect();
    ImageTraceLayer::builder()
        .tracer_provider(tracers.clone())
        .propagators(formats)
}

/// The layer of a whole telemetry: spans are encoded, and sent to a collector in this process.
fn telemetry(collector: SocketAddr, sampler: telemetry::Sampler, metrics: bool) -> ImageTraceLayer {
    started(whole(collector, sampler, metrics))
}

fn whole(
    collector: SocketAddr,
    sampler: telemetry::Sampler,
    metrics: bool,
) -> telemetry::TelemetryBuilder {
    Telemetry::builder()
        .endpoint(format!("http://{collector}"))
        .protocol(telemetry::Protocol::Http)
        .propagators([Propagator::TraceContext].into_iter().collect())
        .trace_id_generator(telemetry::TraceIdGenerator::Random)
        .sampler(sampler)
        .metrics(metrics)
}

fn started(telemetry: telemetry::TelemetryBuilder) -> ImageTraceLayer {
    let telemetry = telemetry.build().expect("telemetry");
    let layer = telemetry.trace_layer();
    // As after the first interval.
    let flushed = telemetry.force_flush_blocking(Duration::from_secs(10));
    flushed.expect("metrics are collected");
    // It lives as long as the process.
    Box::leak(Box::new(telemetry));
    layer
}

/// Takes whatever comes over HTTP.
fn collector() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || take(connection));
        }
    });
    address
}

fn take(connection: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut connection = connection;
    let mut line = String::new();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
            connection.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
            )?;
        }
    }
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

/// Drops spans where an exporter would take them.
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
