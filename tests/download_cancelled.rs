//! An attempt that nobody waits for any more ends at that moment, and is no error.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{
    ChannelBody, Recorder,
    body::data,
    download::{Answer, Origin, builder, client, get, request},
};

#[track_caller]
fn assert_cancelled(recorder: &Recorder) {
    let span = recorder.span("GET");
    span.assert_no_error();
    assert_eq!(span.get("image.stage.cancelled").as_deref(), Some("true"));
    let series = recorder.only_series("http.client.request.duration");
    assert_eq!(series.count, 1);
    assert_eq!(series.attributes.get("error.type"), None);
}

#[tokio::test]
async fn by_a_timeout_around_it() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| Answer::Hang(String::new())).await;
    let service = ServiceBuilder::new()
        .timeout(Duration::from_millis(20))
        .layer(builder(&recorder).build())
        .service(client());
    service
        .oneshot(request(&origin.url("/")))
        .await
        .unwrap_err();
    assert_cancelled(&recorder);
    let span = recorder.span("GET");
    assert_eq!(span.get("http.response.status_code"), None);
}

#[tokio::test]
async fn in_the_middle_of_its_body() {
    let recorder = Recorder::new();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let origin = Origin::start(move |_| Answer::Hang(half.to_owned())).await;
    let response = get(&builder(&recorder).build(), &origin.url("/")).await;
    let mut body = response.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_cancelled(&recorder);
    let span = recorder.span("GET");
    assert_eq!(span.get("http.response.body.size").as_deref(), Some("4"));
}

#[tokio::test]
async fn before_its_first_poll() {
    let recorder = Recorder::new();
    let layer = builder(&recorder).build();
    let mut client = layer.layer(client());
    drop(tower::Service::call(
        &mut client,
        request("http://127.0.0.1:1/"),
    ));
    assert_cancelled(&recorder);
}

/// Who has as many bytes as were announced needs not ask for more.
#[tokio::test]
async fn not_when_all_that_was_announced_was_read() {
    for by_header in [true, false] {
        let recorder = Recorder::new();
        let service = builder(&recorder)
            .build()
            .layer(service_fn(async |_: Request<()>| {
                let (frames, body) = ChannelBody::new();
                frames.send(data("12345678")).unwrap();
                Ok::<_, Infallible>(if by_header {
                    let response = Response::builder().header("content-length", 8);
                    response.body(body).unwrap()
                } else {
                    Response::new(body.with_exact_size(8))
                })
            }));
        let request = Request::get("http://cdn.example/").body(()).unwrap();
        let mut body = service.oneshot(request).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        let span = recorder.span("GET");
        span.assert_no_error();
        assert_eq!(span.get("image.stage.cancelled"), None, "{by_header}");
    }
}

/// Nothing follows trailers.
#[tokio::test]
async fn not_when_the_trailers_were_read() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    frames.send(data("picture")).unwrap();
    frames.send(Ok(Frame::trailers(HeaderMap::new()))).unwrap();
    let mut response = Some(Response::new(body));
    let service = builder(&recorder).build().layer(service_fn(|_| {
        let response = response.take().unwrap();
        async { Ok::<_, Infallible>(response) }
    }));
    let request = Request::get("http://cdn.example/").body(()).unwrap();
    let mut body = service.oneshot(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(recorder.span("GET").get("image.stage.cancelled"), None);
}

#[tokio::test]
async fn once_even_when_its_body_is_polled_after_the_end() {
    let recorder = Recorder::new();
    let service = builder(&recorder)
        .build()
        .layer(service_fn(async |_: Request<()>| {
            let frames = futures_util::stream::iter([data("picture")]);
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        }));
    let request = Request::get("http://cdn.example/").body(()).unwrap();
    let mut body = service.oneshot(request).await.unwrap().into_body();
    let picture = body.frame().await.unwrap().unwrap();
    assert_eq!(picture.into_data().unwrap(), Bytes::from_static(b"picture"));
    assert!(recorder.spans().is_empty());
    assert!(body.frame().await.is_none());
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(recorder.span("GET").get("image.stage.cancelled"), None);
}
