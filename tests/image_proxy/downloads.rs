//! Downloads reach allowed origins only, and stop at their limits.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, StatusCode, Uri, header::LOCATION},
    response::Redirect,
    routing::get,
};
use bytes::Bytes;
use http_body::Frame;
use tokio::{net::TcpListener, sync::mpsc};

use super::{Limits, OnDrop, Service, origin, serve};

const LIMIT: usize = 300_000;

async fn service(origin: SocketAddr) -> Service {
    let limits = Limits {
        bytes: LIMIT,
        ..Limits::default()
    };
    Service::with(origin, limits).await
}

/// An origin that redirects every request.
async fn origin_that_redirects(location: impl Into<String>) -> SocketAddr {
    let location = location.into();
    serve(Router::new().fallback(async move || Redirect::temporary(&location))).await
}

/// Zeros that never end.
struct Endless(#[expect(dead_code, reason = "it is only dropped")] OnDrop);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 16 * 1024])))))
    }
}

/// A few bytes, and then either nothing for ever, or an error.
#[derive(Clone, Copy)]
struct Stalling {
    polls: usize,
    breaks_off: bool,
}

impl Stalling {
    async fn answer(breaks_off: bool) -> Body {
        Body::new(Self {
            polls: 0,
            breaks_off,
        })
    }
}

impl http_body::Body for Stalling {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.polls += 1;
        match self.polls {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\x89PNG"))))),
            // The server sends the first frame before it polls again.
            2 if self.breaks_off => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            _ if self.breaks_off => Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            _ => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed() {
    let service = Service::start().await;
    let answer = service.resize("w:9", "/moved.png").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

#[tokio::test]
async fn a_redirect_to_a_foreign_origin_is_refused_and_not_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let foreign = Router::new().fallback(async move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let foreign = serve(foreign).await;
    let not_allowed = format!("pictures from http://{foreign} are not allowed");
    let no_url = "only absolute http:// URLs are sources";
    for (location, reason) in [
        (
            format!("http://{foreign}/cat.png?sig=secret"),
            &*not_allowed,
        ),
        (format!("//{foreign}/cat.png"), &*not_allowed),
        ("https://127.0.0.1/cat.png".to_owned(), no_url),
        ("http://127.0.0.1:99999/cat.png".to_owned(), no_url),
        ("file:///etc/passwd".to_owned(), no_url),
    ] {
        let origin = origin_that_redirects(location).await;
        let answer = service(origin).await.resize("w:9", "/cat.png").await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        let sentence = format!("the source's redirect is not followed: {reason}\n");
        assert_eq!(answer.text(), sentence);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_sample_origin_redirects_abroad() {
    let answer = Service::start().await.resize("w:9", "/elsewhere.png").await;
    assert_eq!(
        answer.text(),
        "the source's redirect is not followed: pictures from http://example.com:80 are not allowed\n"
    );
}

#[tokio::test]
async fn relative_redirects_are_resolved() {
    // faults E5
    for location in [
        "/b/chelsea.png",
        "../b/chelsea.png",
        "../b/./chelsea.png#cat",
        "../../../b/chelsea.png",
        "?v=2",
        "/b/größe.png",
        "/b/a b.png",
    ] {
        let to = HeaderValue::from_bytes(location.as_bytes()).unwrap();
        let redirect = async move |uri: Uri| match uri.query() {
            Some(query) => (
                StatusCode::OK,
                [(LOCATION, HeaderValue::from_static("-"))],
                query.to_owned(),
            ),
            None => (StatusCode::FOUND, [(LOCATION, to)], String::new()),
        };
        let router = Router::new()
            .route("/a/cat.png", get(redirect))
            .route("/b/chelsea.png", get("text"))
            .route("/b/gr%C3%B6%C3%9Fe.png", get("text"))
            .route("/b/a%20b.png", get("text"));
        let answer = service(serve(router).await)
            .await
            .resize("w:9", "/a/cat.png")
            .await;
        // The text is found, and is no picture.
        assert_eq!(answer.status, 422, "{location}: {}", answer.text());
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let origin = origin_that_redirects("/cat.png").await;
    let answer = service(origin).await.resize("w:9", "/cat.png").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.text(), "the source redirects more than 3 times\n");
}

#[tokio::test]
async fn an_oversized_source_is_cut_off() {
    let too_large = format!("the source has more than the {LIMIT} bytes accepted\n");
    let (end, mut over) = mpsc::unbounded_channel();
    let router = Router::new()
        .route("/announced", get(vec![0_u8; LIMIT + 1]))
        .route(
            "/endless",
            get(async move || Body::new(Endless(OnDrop(end.clone())))),
        );
    let service = service(serve(router).await).await;
    for path in ["/announced", "/endless"] {
        let answer = service.resize("w:9", path).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert_eq!(answer.text(), too_large, "{path}");
    }
    // The origin's body is dropped too.
    over.recv().await.unwrap();
}

#[tokio::test]
async fn a_source_of_just_the_limit_is_accepted() {
    let router = Router::new().route("/", get(vec![0_u8; LIMIT]));
    let answer = service(serve(router).await).await.resize("w:9", "/").await;
    assert_eq!(
        answer.text(),
        "the source is not a JPEG, PNG or WebP picture\n"
    );
}

#[tokio::test]
async fn a_slow_source_times_out() {
    let stalling = serve(Router::new().route("/slow.png", get(|| Stalling::answer(false)))).await;
    // The first origin sends no head, and the second stops in the middle of the body.
    for origin in [origin::start().await.unwrap(), stalling] {
        let limits = Limits {
            time: Duration::from_millis(50),
            ..Limits::default()
        };
        let service = Service::with(origin, limits).await;
        let answer = service.resize("w:9", "/slow.png").await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(answer.text(), "the source did not arrive within 0.05 s\n");
        assert_eq!(service.idle_workers().await, 2);
    }
}

#[tokio::test]
async fn an_origin_that_fails_is_a_bad_gateway() {
    let router = Router::new()
        .route("/gone", get(StatusCode::GONE))
        .route("/forbidden", get(StatusCode::FORBIDDEN))
        .route("/failing", get(StatusCode::SERVICE_UNAVAILABLE))
        .route("/partial", get(StatusCode::PARTIAL_CONTENT))
        .route("/unmoved", get(StatusCode::NOT_MODIFIED))
        .route("/broken", get(|| Stalling::answer(true)));
    let service = service(serve(router).await).await;
    for (path, status, sentence) in [
        (
            "/gone",
            404,
            "the source does not exist: its origin answered 410 Gone\n",
        ),
        (
            "/forbidden",
            502,
            "the source's origin answered 403 Forbidden\n",
        ),
        (
            "/failing",
            502,
            "the source's origin answered 503 Service Unavailable\n",
        ),
        (
            "/partial",
            502,
            "the source's origin answered 206 Partial Content\n",
        ),
        (
            "/unmoved",
            502,
            "the source's origin answered 304 Not Modified\n",
        ),
        (
            "/broken",
            502,
            "the source's origin broke off the download\n",
        ),
    ] {
        let answer = service.resize("w:9", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.text(), sentence, "{path}");
    }
}

#[tokio::test]
async fn an_origin_that_is_down_is_a_bad_gateway() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let answer = service(nobody).await.resize("w:9", "/cat.png").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.text(), "the source's origin cannot be reached\n");
}
