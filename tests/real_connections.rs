//! The same over real sockets: a client that disconnects is a cancelled request, one that reads to
//! the end is not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response, routing::get};
use bytes::Bytes;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tower_image_trace::{RequestTrace, RequestsInProgress, RequestsInProgressLayer};

use crate::support::{ChannelBody, Recorder, body::data};

struct Server {
    recorder: Recorder,
    in_progress: RequestsInProgress,
    address: SocketAddr,
    /// Told when a handler hangs.
    hangs: Arc<Notify>,
}

async fn serve() -> Server {
    let recorder = Recorder::new();
    let (in_progress_layer, in_progress) = RequestsInProgressLayer::pair();
    let hangs = Arc::new(Notify::new());
    let told = Arc::clone(&hangs);
    let app = Router::new()
        .route("/full", get(async || "complete"))
        .route("/empty", get(async || http::StatusCode::NO_CONTENT))
        .route(
            "/stream",
            get(async || {
                let frames = (0..3).map(|_| {
                    Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b"frame")))
                });
                Response::new(Body::new(StreamBody::new(futures_util::stream::iter(
                    frames,
                ))))
            }),
        )
        .route(
            "/hang",
            get(async move |trace: RequestTrace| {
                let _stage = trace.download("http://cdn.example/slow.jpg");
                told.notify_one();
                std::future::pending::<()>().await
            }),
        )
        .route(
            "/endless",
            get(async || {
                let (frames, body) = ChannelBody::new();
                tokio::spawn(async move {
                    while frames.send(data("more and more")).is_ok() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
                Response::new(Body::new(body))
            }),
        )
        .layer(recorder.layer())
        .layer(in_progress_layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Server {
        recorder,
        in_progress,
        address,
        hangs,
    }
}

impl Server {
    async fn send(&self, method: &str, path: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: images.example\r\nconnection: close\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        connection
    }

    async fn wait_for_the_end(&self) {
        while self.in_progress.requests() > 0 || self.recorder.spans().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn responses_that_are_read_to_the_end_are_complete() {
    for (method, path) in [
        ("GET", "/full"),
        ("HEAD", "/full"),
        ("GET", "/empty"),
        ("GET", "/stream"),
    ] {
        let server = serve().await;
        let mut answer = String::new();
        server
            .send(method, path)
            .await
            .read_to_string(&mut answer)
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        server.wait_for_the_end().await;
        let root = server.recorder.root();
        root.assert_no_error();
        assert_eq!(root.get("image.request.cancelled"), None, "{method} {path}");
        assert_eq!(root.name(), format!("{method} {path}"));
        assert_eq!(
            root.get("server.address").as_deref(),
            Some("images.example")
        );
        server.recorder.assert_nothing_active();
    }
}

#[tokio::test]
async fn a_disconnect_while_the_handler_works_is_a_cancellation() {
    let server = serve().await;
    let connection = server.send("GET", "/hang").await;
    server.hangs.notified().await;
    assert_eq!(server.in_progress.requests(), 1);
    drop(connection);
    server.wait_for_the_end().await;
    let root = server.recorder.root();
    root.assert_no_error();
    assert_eq!(
        root.get("image.request.cancelled").as_deref(),
        Some("downloading_image")
    );
    let stage = server.recorder.span("downloading_image");
    assert_eq!(stage.get("image.stage.cancelled").as_deref(), Some("true"));
    server.recorder.assert_nothing_active();
}

#[tokio::test]
async fn a_disconnect_while_the_body_is_sent_is_a_cancellation() {
    let server = serve().await;
    let mut connection = server.send("GET", "/endless").await;
    let mut some = [0; 256];
    connection.read_exact(&mut some).await.unwrap();
    drop(connection);
    server.wait_for_the_end().await;
    let root = server.recorder.root();
    root.assert_no_error();
    assert_eq!(
        root.get("image.request.cancelled").as_deref(),
        Some("response_body")
    );
    assert_eq!(
        root.get("http.response.status_code").as_deref(),
        Some("200")
    );
    server.recorder.assert_nothing_active();
}
