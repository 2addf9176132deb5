//! Errors of the service and of its response body, and panics, are on the span and in the metrics.

use std::{
    convert::Infallible,
    error::Error,
    future::Ready,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_image_trace::RequestTrace;

use crate::support::{ChannelBody, Recorder, body::data};

#[derive(Debug, thiserror::Error)]
#[error("no thumbnail")]
struct NoThumbnail(#[source] io::Error);

fn no_thumbnail() -> NoThumbnail {
    NoThumbnail(io::Error::other("disk full"))
}

fn request() -> Request<()> {
    Request::get("/").body(()).unwrap()
}

fn assert_failed(recorder: &Recorder, error_type: &str, message: &str) {
    let root = recorder.root();
    root.assert_error(error_type, message);
    assert_eq!(root.exceptions(), [message]);
    assert_eq!(root.get("image.request.cancelled"), None);
    let duration = recorder.only_series("http.server.request.duration");
    assert_eq!(duration.count, 1);
    assert_eq!(duration.attributes["error.type"], error_type);
    recorder.assert_nothing_active();
}

#[tokio::test]
async fn an_error_of_the_service_is_recorded_with_its_sources_and_the_route() {
    let recorder = Recorder::new();
    let layer = recorder.builder().record_errors_as::<NoThumbnail>().build();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        RequestTrace::from_extensions(request.extensions()).set_route("/{source}");
        Err::<Response<Empty<Bytes>>, _>(no_thumbnail())
    }));
    service.oneshot(request()).await.unwrap_err();
    assert_failed(
        &recorder,
        std::any::type_name::<NoThumbnail>(),
        "no thumbnail: disk full",
    );
    assert_eq!(recorder.root().name(), "GET /{source}");
    let duration = recorder.only_series("http.server.request.duration");
    assert_eq!(duration.attributes["http.route"], "/{source}");
}

#[tokio::test]
async fn errors_that_are_boxed_io_or_only_text_are_recorded_too() {
    async fn fail<E: std::fmt::Display + Clone + 'static>(make: impl Fn() -> E) -> (Recorder, E) {
        let recorder = Recorder::new();
        let error = recorder
            .layer()
            .layer(service_fn(|_: Request<()>| {
                let error = make();
                async { Err::<Response<Empty<Bytes>>, _>(error) }
            }))
            .oneshot(request())
            .await
            .unwrap_err();
        (recorder, error)
    }
    let (recorder, error) = fail(|| "out of tea".to_owned()).await;
    assert_eq!(error, "out of tea");
    assert_failed(&recorder, "alloc::string::String", "out of tea");

    let recorder = Recorder::new();
    let boxed = recorder.layer().layer(service_fn(|_: Request<()>| async {
        Err::<Response<Empty<Bytes>>, BoxError>(no_thumbnail().into())
    }));
    let error = boxed.oneshot(request()).await.unwrap_err();
    assert!(
        error.downcast_ref::<NoThumbnail>().is_some(),
        "passed on untouched"
    );
    assert_failed(&recorder, "_OTHER", "no thumbnail: disk full");

    let recorder = Recorder::new();
    let io = recorder.layer().layer(service_fn(|_: Request<()>| async {
        Err::<Response<Empty<Bytes>>, _>(io::Error::new(io::ErrorKind::TimedOut, "too slow"))
    }));
    io.oneshot(request()).await.unwrap_err();
    assert_failed(&recorder, "timeout", "too slow");
}

#[tokio::test]
async fn a_body_that_fails_midway_is_recorded() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    let mut body = Some(body);
    let service = recorder.layer().layer(service_fn(move |_| {
        let response = Response::new(body.take().unwrap());
        async { Ok::<_, Infallible>(response) }
    }));
    let response = service.oneshot(request()).await.unwrap();
    frames.send(data("half")).unwrap();
    frames
        .send(Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "origin went away",
        )))
        .unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.to_string(), "origin went away");
    assert_failed(&recorder, "connection_reset", "origin went away");
    let root = recorder.root();
    assert_eq!(
        root.get("http.response.status_code").as_deref(),
        Some("200")
    );
    assert_eq!(root.get("http.response.body.size").as_deref(), Some("4"));
}

fn message(payload: &(dyn std::any::Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("another payload")
}

#[tokio::test]
async fn a_panic_in_the_handler_is_recorded_and_goes_on() {
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(|_: Request<()>| async {
        tokio::task::yield_now().await;
        if true {
            panic!("index out of bounds");
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let payload = AssertUnwindSafe(service.oneshot(request()))
        .catch_unwind()
        .await
        .unwrap_err();
    assert_eq!(message(&*payload), "index out of bounds");
    assert_failed(&recorder, "panic", "index out of bounds");
}

#[tokio::test]
async fn a_panic_that_an_outer_layer_catches_is_recorded() {
    let recorder = Recorder::new();
    let service = ServiceBuilder::new()
        .layer(CatchPanicLayer::new())
        .layer(recorder.layer())
        .service(service_fn(|request: Request<()>| async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            let _stage = trace.process("fit");
            if true {
                panic!("bad pixel");
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 500);
    let root = recorder.root();
    root.assert_error("panic", "bad pixel");
    recorder
        .span("processing_image")
        .assert_error("panic", "panic");
}

#[tokio::test]
async fn a_panic_in_call_is_recorded() {
    struct PanicsInCall;
    impl Service<Request<()>> for PanicsInCall {
        type Response = Response<Empty<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            panic!("in call")
        }
    }
    let recorder = Recorder::new();
    let mut service = recorder.layer().layer(PanicsInCall);
    let payload = catch_unwind(AssertUnwindSafe(|| service.call(request()))).unwrap_err();
    assert_eq!(message(&*payload), "in call");
    assert_failed(&recorder, "panic", "in call");
}

#[tokio::test]
async fn a_panic_in_the_body_is_recorded() {
    struct PanicsInBody;
    impl Body for PanicsInBody {
        type Data = Bytes;
        type Error = Box<dyn Error + Send + Sync>;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            panic!("in the body")
        }
    }
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(PanicsInBody))
    }));
    let response = service.oneshot(request()).await.unwrap();
    let payload = AssertUnwindSafe(response.into_body().collect())
        .catch_unwind()
        .await
        .unwrap_err();
    assert_eq!(message(&*payload), "in the body");
    assert_failed(&recorder, "panic", "in the body");
}
