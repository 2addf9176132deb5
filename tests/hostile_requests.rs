//! No client can add series to a metric, whatever it sends.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, service_fn};

use crate::support::Recorder;

const METRICS: [&str; 7] = [
    "http.server.request.duration",
    "http.server.active_requests",
    "http.server.request.body.size",
    "http.server.response.body.size",
    "requests_total",
    "status_codes_total",
    "request_duration_seconds",
];

/// Every value that a client can choose is different in each request.
fn request(number: usize) -> Request<()> {
    let method = match number % 4 {
        0 => Method::GET,
        1 => Method::POST,
        _ => format!("M{number}").parse().unwrap(),
    };
    let authority = format!("h{number}.example:{}", number % 60_000);
    let uri = match number % 3 {
        0 => format!("/p{number}?q{number}=v"),
        1 => format!("http://{authority}/p{number}"),
        _ => format!("s{number}://{authority}/"),
    };
    Request::builder()
        .method(method)
        .uri(uri)
        .version(match number % 2 {
            0 => Version::HTTP_11,
            _ => Version::HTTP_2,
        })
        .header(header::HOST, authority)
        .header(header::USER_AGENT, format!("agent/{number}"))
        .header(header::CONTENT_LENGTH, number)
        .header("traceparent", format!("00-{number:032x}-{number:016x}-01"))
        .header("baggage", format!("k{number}=v{number}"))
        .header("x-forwarded-for", format!("10.0.0.1, client{number}"))
        .body(())
        .unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_hostile_requests_add_no_series() {
    let recorder = Recorder::with(|tracers| {
        tracers.with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOff)
    });
    let layer = recorder.builder().imgproxy_metrics(true).build();
    let mut service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::from_static(b"no")));
        if !request.uri().path().starts_with("/p") {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Ok::<_, Infallible>(response)
    }));
    let mut send = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let response = service.call(request(number)).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    };
    let series = || METRICS.map(|metric| recorder.series(metric).len());

    send(0..100).await;
    let first = series();
    assert!(
        first.iter().all(|count| (1..=12).contains(count)),
        "{first:?}"
    );
    send(100..100_000).await;
    assert_eq!(series(), first);
    assert_eq!(recorder.only_series("requests_total").count, 100_000);
}
