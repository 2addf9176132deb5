//! The floor: the least that a service written by hand does with the SDK. It extracts the parent,
//! records a span with eight attributes, and measures duration and active requests. Its span ends with
//! the response head. The layer's span ends with the body and has more attributes, and the layer also
//! gives the handler a handle.

use std::time::Instant;

use axum::body::Body;
use http::{Request, Response};
use opentelemetry::{
    Context, KeyValue,
    metrics::{Histogram, MeterProvider, UpDownCounter},
    propagation::TextMapPropagator,
    trace::{FutureExt, SpanKind, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

#[derive(Clone)]
pub(crate) struct Floor {
    pub(crate) tracer: SdkTracer,
    propagator: TraceContextPropagator,
    metrics: Option<(Histogram<f64>, UpDownCounter<i64>)>,
}

impl Floor {
    pub(crate) fn new(tracers: &SdkTracerProvider, meters: Option<&SdkMeterProvider>) -> Self {
        Self {
            tracer: tracers.tracer("floor"),
            propagator: TraceContextPropagator::new(),
            metrics: meters.map(|meters| {
                let meter = meters.meter("floor");
                (
                    meter.f64_histogram("http.server.request.duration").build(),
                    meter
                        .i64_up_down_counter("http.server.active_requests")
                        .build(),
                )
            }),
        }
    }

    pub(crate) async fn serve<F, B, E>(
        self,
        request: Request<Body>,
        inner: impl FnOnce(Request<Body>) -> F,
    ) -> Result<Response<B>, E>
    where
        F: Future<Output = Result<Response<B>, E>>,
    {
        let started = Instant::now();
        let parent = self.propagator.extract(&HeaderExtractor(request.headers()));
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let span = self
            .tracer
            .span_builder(format!("{} {}", request.method(), "/thumbnail/{source}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", request.method().to_string()),
                KeyValue::new("http.route", "/thumbnail/{source}"),
                KeyValue::new("url.scheme", "http"),
                KeyValue::new("url.path", request.uri().path().to_owned()),
                KeyValue::new("network.protocol.version", "1.1"),
                KeyValue::new("server.address", header("host").unwrap_or_default()),
                KeyValue::new(
                    "user_agent.original",
                    header("user-agent").unwrap_or_default(),
                ),
            ])
            .start_with_context(&self.tracer, &parent);
        let context: Context = parent.with_span(span);
        let active = [
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("url.scheme", "http"),
        ];
        if let Some((_, counter)) = &self.metrics {
            counter.add(1, &active);
        }
        let result = inner(request).with_context(context.clone()).await;
        let status = result
            .as_ref()
            .map_or(0, |response| response.status().as_u16());
        let status = KeyValue::new("http.response.status_code", i64::from(status));
        context.span().set_attribute(status.clone());
        context.span().end();
        if let Some((duration, counter)) = &self.metrics {
            counter.add(-1, &active);
            let [method, scheme] = active;
            duration.record(
                started.elapsed().as_secs_f64(),
                &[
                    method,
                    scheme,
                    status,
                    KeyValue::new("http.route", "/thumbnail/{source}"),
                    KeyValue::new("network.protocol.version", "1.1"),
                ],
            );
        }
        result
    }
}
