//! The counts of requests and images come back to zero whatever happens to a request.

use std::{convert::Infallible, future::pending, panic::AssertUnwindSafe};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_image_trace::RequestsInProgressLayer;

use crate::support::body::assert_passes_through;

fn request() -> Request<()> {
    Request::get("/").body(()).unwrap()
}

#[tokio::test]
async fn a_request_counts_until_its_body_is_dropped() {
    let (layer, in_progress) = RequestsInProgressLayer::pair();
    let mut service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"x"))))
    }));
    assert_eq!(in_progress.requests(), 0);
    let future = service.ready().await.unwrap().call(request());
    assert_eq!(in_progress.requests(), 1);
    let mut response = future.await.unwrap();
    assert_eq!(in_progress.requests(), 1);
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(in_progress.requests(), 1);
    drop(response);
    assert_eq!(in_progress.requests(), 0);
}

#[tokio::test]
async fn errors_cancellations_and_panics_end_the_count() {
    let (layer, in_progress) = RequestsInProgressLayer::pair();

    let fails = layer.layer(service_fn(|_: Request<()>| async {
        Err::<Response<Full<Bytes>>, _>("broken")
    }));
    fails.oneshot(request()).await.unwrap_err();
    assert_eq!(in_progress.requests(), 0);

    let mut hangs = layer.layer(service_fn(|_: Request<()>| {
        pending::<Result<Response<Full<Bytes>>, Infallible>>()
    }));
    let mut future = hangs.call(request());
    assert_eq!(in_progress.requests(), 1);
    assert!((&mut future).now_or_never().is_none());
    assert_eq!(in_progress.requests(), 1);
    drop(future);
    assert_eq!(in_progress.requests(), 0);

    let panics = layer.layer(service_fn(|_: Request<()>| async {
        if true {
            panic!("in the handler");
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    AssertUnwindSafe(panics.oneshot(request()))
        .catch_unwind()
        .await
        .unwrap_err();
    assert_eq!(in_progress.requests(), 0);

    let mut panics_in_call = layer.layer(service_fn(|request: Request<()>| {
        if request.uri().path() == "/" {
            panic!("in call");
        }
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
    }));
    std::panic::catch_unwind(AssertUnwindSafe(|| panics_in_call.call(request())))
        .map(drop)
        .unwrap_err();
    assert_eq!(in_progress.requests(), 0);
}

#[tokio::test]
async fn images_count_until_their_guard_is_dropped_on_any_thread() {
    let (_, in_progress) = RequestsInProgressLayer::pair();
    let first = in_progress.image();
    let second = in_progress.clone().image();
    assert_eq!(in_progress.images(), 2);
    drop(first);
    assert_eq!(in_progress.images(), 1);
    tokio::task::spawn_blocking(move || drop(second))
        .await
        .unwrap();
    assert_eq!(in_progress.images(), 0);
}

#[tokio::test]
async fn a_request_is_in_progress_when_its_service_is_called() {
    let (layer, in_progress) = RequestsInProgressLayer::pair();
    let counts = in_progress.clone();
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let seen = counts.requests();
        async move { Ok::<_, Infallible>(Response::new(seen.to_string())) }
    }));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "1"
    );
}

#[tokio::test]
async fn readiness_and_bodies_are_those_of_the_service() {
    let (layer, in_progress) = RequestsInProgressLayer::pair();
    assert_passes_through(&layer).await;
    assert_eq!(in_progress.requests(), 0);
}
