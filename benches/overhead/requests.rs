//! The request that all modes serve, the handlers' answer, and the code that sends the request.

use std::{
    convert::Infallible,
    fmt::Debug,
    hint::black_box,
    pin::pin,
    task::{Context, Waker},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::Service;

/// Makes a service, and returns a closure that sends the request through it and reads the response.
pub(crate) type Start = dyn Fn(&Request<()>) -> Box<dyn FnMut()> + Send + Sync;

pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

pub(crate) const BODY: &str = "a very small picture";

pub(crate) fn request(tracestate: bool) -> Request<()> {
    let mut request = Request::get("/thumbnail/cat.jpg")
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

pub(crate) async fn handle(_: Request<Body>) -> Answer {
    Ok(Response::new(Full::new(Bytes::from_static(
        BODY.as_bytes(),
    ))))
}

pub(crate) fn sender<S, B>(mut service: S, request: &Request<()>) -> Box<dyn FnMut()>
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
