//! A request that is to be traced is sampled whatever the sampler says, unless it is not trusted.

use std::convert::Infallible;

use http::{Request, Response};
use tower::{ServiceExt, layer::Layer, service_fn};
use tower_image_trace::{Telemetry, Trust, trace::ImageTraceLayerBuilder};

use crate::support::otlp::{OtlpServer, PATIENCE};

/// The attributes of the root spans that arrive of a request with this header, by telemetry's own spans or by
/// those of the SDK.
async fn sampled(
    header: (&'static str, &'static str),
    by_sdk: bool,
    layer: impl FnOnce(ImageTraceLayerBuilder) -> ImageTraceLayerBuilder,
) -> Vec<std::collections::BTreeMap<String, String>> {
    let server = OtlpServer::start();
    let telemetry = Telemetry::builder()
        .endpoint(server.endpoint())
        .propagators("tracecontext,b3,jaeger".parse().expect("formats"))
        .sampler("parentbased_always_off".parse().expect("a sampler"));
    let telemetry = match by_sdk {
        true => telemetry.tracer_provider_with(|provider| provider),
        false => telemetry,
    };
    let telemetry = telemetry.build().expect("telemetry");
    let layer = layer(telemetry.trace_layer_builder()).build();
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let request = Request::builder().header(header.0, header.1);
    let response = service.oneshot(request.body(()).expect("a request")).await;
    drop(response.expect("an answer"));
    telemetry.force_flush(PATIENCE).await.expect("all is sent");
    let spans = server.spans();
    telemetry.shutdown(PATIENCE).await.expect("the end");
    spans.iter().map(|span| span.attributes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_debugs_gets_a_trace() {
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    for by_sdk in [false, true] {
        for (header, expected) in [
            (("x-request", "ordinary"), 0),
            (("jaeger-debug-id", "why is it slow"), 1),
            (("b3", "d"), 1),
            (
                (
                    "uber-trace-id",
                    "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:3",
                ),
                1,
            ),
            (("b3", "1"), 0),
        ] {
            let spans = sampled(header, by_sdk, |layer| layer).await;
            assert_eq!(spans.len(), expected, "{header:?} {by_sdk}");
            if header.0 == "jaeger-debug-id" {
                assert_eq!(spans[0]["jaeger-debug-id"], header.1);
            }
            let untrusted = sampled(header, by_sdk, |layer| layer.trust(|_| Trust::Ignore)).await;
            assert!(untrusted.is_empty(), "{header:?} {by_sdk}");
        }
        let asked: fn(&http::request::Parts) -> bool =
            |parts| parts.headers.contains_key("traceparent");
        let header = ("traceparent", UNSAMPLED);
        let spans = sampled(header, by_sdk, |layer| layer.sample_when(asked)).await;
        assert_eq!(spans.len(), 1, "{by_sdk}");
        let untrusted =
            |layer: ImageTraceLayerBuilder| layer.sample_when(asked).trust(|_| Trust::Link);
        assert!(sampled(header, by_sdk, untrusted).await.is_empty());
        let broken = |layer: ImageTraceLayerBuilder| layer.sample_when(|_| panic!("on purpose"));
        assert!(sampled(header, by_sdk, broken).await.is_empty());
    }
}
