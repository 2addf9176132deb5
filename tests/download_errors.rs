//! What kept a source from being fetched is said in a word that metrics can carry.

use std::{convert::Infallible, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_image_trace::DownloadLayer;

use crate::support::{
    Recorder,
    certificates::Ca,
    download::{Answer, Origin, builder, client, get, request},
};

/// One failed attempt, and the description that its span must have as well as `error_type`.
#[track_caller]
fn assert_failed(recorder: &Recorder, error_type: &str) -> String {
    let span = recorder.span("GET");
    let exceptions = span.exceptions();
    let [message] = &*exceptions else {
        panic!("one exception: {span:#?}");
    };
    span.assert_error(error_type, message);
    assert_eq!(span.get("image.stage.cancelled"), None);
    let series = recorder.only_series("http.client.request.duration");
    assert_eq!(series.attributes["error.type"], error_type);
    assert_eq!(series.count, 1);
    message.clone()
}

#[tokio::test]
async fn a_refused_connection() {
    let recorder = Recorder::new();
    // Taken and given back: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    get(&builder(&recorder).build(), &url).await.unwrap_err();
    let message = assert_failed(&recorder, "connect");
    assert!(message.contains("tcp connect error"), "{message}");
    assert!(message.contains("refused"), "{message}");
}

#[tokio::test]
async fn a_host_that_no_resolver_knows() {
    let recorder = Recorder::new();
    // A label that is too long for DNS, so that no resolver needs to ask another.
    let url = format!("http://{}.invalid/", "a".repeat(64));
    get(&builder(&recorder).build(), &url).await.unwrap_err();
    let message = assert_failed(&recorder, "dns");
    assert!(message.contains("dns error"), "{message}");
}

/// Downloads from `port` with a client that trusts nobody.
async fn get_over_tls(layer: &DownloadLayer, port: u16) {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let request = request(&format!("https://localhost:{port}/"));
    layer.layer(client).oneshot(request).await.unwrap_err();
}

#[tokio::test]
async fn tls_with_who_does_not_speak_it() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let recorder = Recorder::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                // The client's greeting has to be taken, or else the connection is reset.
                let mut greeting = [0; 4096];
                let _ = tokio::io::AsyncReadExt::read(&mut connection, &mut greeting).await;
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        });
        get_over_tls(&builder(&recorder).build(), port).await;
        assert_failed(&recorder, "tls");
    }
}

#[tokio::test]
async fn tls_with_who_is_not_trusted() {
    let recorder = Recorder::new();
    let identity = Ca::new("nobody's").server("localhost");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config(None)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let _ = acceptor.accept(connection).await;
        }
    });
    get_over_tls(&builder(&recorder).build(), port).await;
    let message = assert_failed(&recorder, "tls");
    assert!(message.contains("UnknownIssuer"), "{message}");
}

#[tokio::test]
async fn an_answer_that_takes_too_long() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| Answer::Hang(String::new())).await;
    let service = ServiceBuilder::new()
        .layer(builder(&recorder).build())
        .timeout(Duration::from_millis(20))
        .service(client());
    service
        .oneshot(request(&origin.url("/")))
        .await
        .unwrap_err();
    assert_eq!(assert_failed(&recorder, "timeout"), "request timed out");
}

#[tokio::test]
async fn a_connection_that_answers_no_ping() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        // An empty SETTINGS frame, and no more.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        connection.write_all(&settings).await.unwrap();
        std::future::pending::<()>().await;
    });
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(true)
        .http2_keep_alive_interval(Duration::from_millis(10))
        .http2_keep_alive_timeout(Duration::from_millis(10))
        .build_http();
    let recorder = Recorder::new();
    let service = builder(&recorder).build().layer(client);
    service.oneshot(request(&url)).await.unwrap_err();
    assert_failed(&recorder, "timeout");
}

#[tokio::test]
async fn a_connection_that_is_closed_before_the_answer() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| Answer::Close(String::new())).await;
    get(&builder(&recorder).build(), &origin.url("/"))
        .await
        .unwrap_err();
    assert_failed(&recorder, "hyper_util::client::legacy::Error");
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let recorder = Recorder::new();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let origin = Origin::start(move |_| Answer::Close(half.to_owned())).await;
    let response = get(&builder(&recorder).build(), &origin.url("/")).await;
    let body = response.unwrap().into_body();
    body.collect().await.unwrap_err();
    let message = assert_failed(&recorder, "body");
    // With the cause, which hyper's own text leaves out.
    assert!(
        message.contains("end of file before message length"),
        "{message}"
    );
    let span = recorder.span("GET");
    assert_eq!(span.get("http.response.body.size").as_deref(), Some("4"));
    assert_eq!(
        span.get("http.response.status_code").as_deref(),
        Some("200")
    );
}

#[tokio::test]
async fn errors_of_any_type() {
    #[derive(Debug, thiserror::Error)]
    #[error("no tunnel")]
    struct Tunnel(#[source] std::io::Error);
    let tunnel = || Tunnel(std::io::ErrorKind::ConnectionRefused.into());

    let recorder = Recorder::new();
    let layer = builder(&recorder).record_errors_as::<Tunnel>().build();
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Err::<Response<Empty<Bytes>>, _>(tunnel())
    }));
    let request = || Request::get("http://cdn.example/").body(()).unwrap();
    service.oneshot(request()).await.unwrap_err();
    assert_eq!(
        assert_failed(&recorder, "connect"),
        "no tunnel: connection refused"
    );

    let recorder = Recorder::new();
    let service = builder(&recorder)
        .build()
        .layer(service_fn(async |_: Request<()>| {
            Err::<Response<Empty<Bytes>>, BoxError>(Box::new(tunnel()))
        }));
    service.oneshot(request()).await.unwrap_err();
    assert_failed(&recorder, "connect");

    let recorder = Recorder::new();
    let service = builder(&recorder)
        .build()
        .layer(service_fn(async |_: Request<()>| {
            Err::<Response<Empty<Bytes>>, _>("no error at all")
        }));
    service.oneshot(request()).await.unwrap_err();
    assert_eq!(assert_failed(&recorder, "&str"), "no error at all");
}

#[tokio::test]
async fn an_error_may_name_the_url_but_not_its_secrets() {
    let recorder = Recorder::new();
    let service = builder(&recorder)
        .build()
        .layer(service_fn(async |_: Request<()>| {
            let error = "no answer from https://user:planted@cdn.example/a.jpg?sig=planted";
            Err::<Response<Empty<Bytes>>, _>(io::Error::other(error))
        }));
    let request = Request::get("http://cdn.example/").body(()).unwrap();
    service.oneshot(request).await.unwrap_err();
    assert_eq!(
        assert_failed(&recorder, "io"),
        "no answer from https://REDACTED:REDACTED@cdn.example/a.jpg?sig=REDACTED"
    );
    let span = recorder.span("GET");
    assert!(!format!("{span:?}").contains("planted"), "{span:#?}");
}

#[tokio::test]
async fn a_client_that_panics() {
    async fn panics(polled: bool) -> Recorder {
        let recorder = Recorder::new();
        let service = builder(&recorder)
            .build()
            .layer(service_fn(move |_: Request<()>| {
                assert!(polled, "in call");
                async { panic!("in a poll") as Result<Response<Empty<Bytes>>, Infallible> }
            }));
        let request = Request::get("http://cdn.example/").body(()).unwrap();
        let attempt = AssertUnwindSafe(service.oneshot(request)).catch_unwind();
        attempt.await.unwrap_err();
        recorder
    }
    assert_eq!(assert_failed(&panics(false).await, "panic"), "in call");
    assert_eq!(assert_failed(&panics(true).await, "panic"), "in a poll");
}
