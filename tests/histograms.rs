//! Durations are in seconds and sizes in bytes, in the buckets that dashboards are made for.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{RequestTrace, metrics::Gauges, pool::BufferPool};

use crate::support::{Recorder, download::builder};

/// What everything here takes at least.
const A_WHILE: Duration = Duration::from_millis(20);

/// Seconds: semconv http-metrics and rpc-metrics.
const DURATIONS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Bytes, from an icon to a large photograph.
const SIZES: [f64; 10] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// An HTTP request with a stage and bodies, a gRPC call, a download and a buffer.
async fn measure_everything(recorder: &Recorder) {
    let layer = recorder.builder().imgproxy_metrics(true).build();
    for content_type in ["image/png", "application/grpc"] {
        let service = layer.layer(service_fn(|request: Request<()>| async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            let content_type = request.headers()["content-type"].clone();
            let stage = trace.queue();
            tokio::time::sleep(A_WHILE).await;
            stage.end();
            let response = Response::builder().header("content-type", content_type);
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from("picture"))).unwrap())
        }));
        let request = Request::post("/")
            .header("content-type", content_type)
            .header("content-length", 5);
        service.oneshot(request.body(()).unwrap()).await.unwrap();
    }
    let download = builder(recorder).build().layer(service_fn(|_| async {
        tokio::time::sleep(A_WHILE).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    }));
    let request = Request::get("http://cdn.example/").body(()).unwrap();
    download.oneshot(request).await.unwrap();
    let pool = BufferPool::new("download", 1);
    Gauges::new(&recorder.meters).buffers(&pool);
    pool.get(1_000).push(1);
}

#[tokio::test]
async fn durations_are_in_seconds_and_sizes_in_bytes() {
    let recorder = Recorder::new();
    measure_everything(&recorder).await;
    for name in [
        "http.server.request.duration",
        "http.client.request.duration",
        "rpc.server.call.duration",
        "request_duration_seconds",
        "request_span_duration_seconds",
    ] {
        assert_eq!(
            recorder.buckets(name),
            ("s".to_owned(), DURATIONS.to_vec()),
            "{name}"
        );
        let series = recorder.only_series(name);
        let mean = series.sum / series.count as f64;
        // In milliseconds it would be twenty, in any machine's time.
        assert!(
            mean >= A_WHILE.as_secs_f64() && mean < 15.0,
            "{name}: {mean}"
        );
    }
    for name in [
        "http.server.request.body.size",
        "http.server.response.body.size",
        "buffer_size_bytes",
    ] {
        assert_eq!(
            recorder.buckets(name),
            ("By".to_owned(), SIZES.to_vec()),
            "{name}"
        );
    }
}
