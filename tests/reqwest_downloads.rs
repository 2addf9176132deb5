//! Sources that reqwest fetches are recorded like all others: an attempt a span, to the last byte.

use std::{
    future::{Ready, ready},
    io,
    sync::Arc,
    time::Duration,
};

use h2::Reason;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, ClientBuilder, Method, Request};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tower::{Layer, ServiceExt, retry, retry::RetryLayer};
use tower_image_trace::{
    DownloadLayer, RequestTrace, Telemetry,
    download::{Attempts, ReqwestClient, ReqwestError, ReqwestService},
};

use crate::support::{
    Recorder,
    certificates::Ca,
    download::{Answer, Origin, builder, response},
    recorder::Span,
};

/// The settings of a client that trusts nobody.
fn unproxied() -> ClientBuilder {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Client::builder().no_proxy().tls_backend_preconfigured(tls)
}

fn client(layer: &DownloadLayer) -> ReqwestClient {
    layer.reqwest(unproxied()).unwrap()
}

fn attempts(recorder: &Recorder) -> Vec<Span> {
    let mut spans = recorder.spans();
    spans.retain(|span| span.name() == "GET");
    spans.sort_by_key(|span| span.0.start_time);
    spans
}

#[tokio::test]
async fn a_download_is_an_attempt_under_its_stage_until_the_last_byte() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("200 OK", "a picture")).await;
    let client = client(&builder(&recorder).build());
    let url = origin.url("/cat.jpg?w=1&sig=planted");
    let service = recorder
        .layer()
        .layer(tower::service_fn(async |request: http::Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let fetch = async {
                let response = client.get(&url).await?;
                assert!(recorder.spans().is_empty(), "not before the body's end");
                assert_eq!(response.url().as_str(), url);
                Ok::<_, ReqwestError>(response.bytes().await?)
            };
            let source = trace.download(&url).run(fetch).await?;
            Ok::<_, ReqwestError>(http::Response::new(http_body_util::Full::new(source)))
        }));
    let request = http::Request::post("/").body(()).unwrap();
    drop(service.oneshot(request).await.unwrap());

    let port = origin.address.port().to_string();
    let span = recorder.span("GET");
    assert_eq!(span.parent(), recorder.span("downloading_image").id());
    span.assert_no_error();
    for (key, value) in [
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("url.full", &origin.url("/cat.jpg?w=1&sig=REDACTED")),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "9"),
        ("network.protocol.version", "1.1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", &port),
    ] {
        assert_eq!(span.get(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(
        recorder.only_series("http.client.request.duration").count,
        1
    );
    assert!(!format!("{:?}", recorder.spans()).contains("planted"));
}

fn redirect(status: &str, location: &str) -> Answer {
    Answer::Close(format!(
        "HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ))
}

#[tokio::test]
async fn each_redirect_is_an_attempt_with_a_context_of_its_own() {
    let recorder = Recorder::new();
    let elsewhere = Origin::start(|_| response("200 OK", "picture")).await;
    let target = elsewhere.url("/found");
    let origin = Origin::start(move |path| {
        let location = if path == "/a" {
            "b?sig=planted"
        } else {
            &target
        };
        redirect("302 Found", location)
    })
    .await;
    let layer = builder(&recorder).propagate_to([origin.url("").parse().unwrap()]);
    let client = client(&layer.build());
    let mut request = Request::new(Method::GET, origin.url("/a").parse().unwrap());
    let headers = request.headers_mut();
    headers.insert("authorization", "for the first".parse().unwrap());
    let response = client.execute(request).await.unwrap();
    assert_eq!(response.url().as_str(), elsewhere.url("/found"));
    assert_eq!(response.text().await.unwrap(), "picture");

    let spans = attempts(&recorder);
    let said: Vec<_> = spans
        .iter()
        .map(|span| {
            let get = |key| span.get(key).unwrap_or_default();
            let [url, status] = ["url.full", "http.response.status_code"].map(get);
            (url, status, get("http.request.resend_count"))
        })
        .collect();
    let row =
        |url: String, status: &str, resends: &str| (url, status.to_owned(), resends.to_owned());
    assert_eq!(
        said,
        [
            row(origin.url("/a"), "302", ""),
            row(origin.url("/b?sig=REDACTED"), "302", "1"),
            row(elsewhere.url("/found"), "200", "2"),
        ]
    );
    for (head, span) in origin.heads().iter().zip(&spans) {
        let expected = format!("traceparent: 00-{}-{}-01", span.trace_id(), span.id());
        assert!(head.contains(&expected), "{expected} in {head}");
        assert!(head.contains("authorization"), "{head}");
    }
    let head = &elsewhere.heads()[0];
    assert!(!head.contains("traceparent"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn credentials_among_the_default_headers_stay_with_their_origin() {
    let defaults = [
        ("authorization", "Bearer planted"),
        ("cookie", "a=planted"),
        ("cookie2", "planted"),
        ("x-tenant", "acme"),
        ("accept", "image/webp"),
        ("accept", "image/*"),
    ];
    let defaults = defaults.map(|(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, http::HeaderValue::from_static(value))
    });
    let elsewhere = Origin::start(|_| response("200 OK", "picture")).await;
    let target = elsewhere.url("/found");
    let origin = Origin::start(move |path| {
        let location = if path == "/a" { "/b" } else { &target };
        redirect("307 Elsewhere", location)
    })
    .await;
    let client = client(&DownloadLayer::disabled()).default_headers(HeaderMap::from_iter(defaults));
    assert!(!format!("{client:?}").contains("planted"));
    // As a client and as a service; what a request has by itself stays.
    client.get(origin.url("/a")).await.unwrap();
    let mut request = Request::new(Method::GET, origin.url("/a").parse().unwrap());
    let own = http::HeaderValue::from_static("Basic planted");
    request.headers_mut().insert("authorization", own);
    client.oneshot(request).await.unwrap();

    let heads = origin.heads();
    assert_eq!(heads.len(), 4);
    for (index, head) in heads.iter().enumerate() {
        let authorization = ["Bearer", "Basic"][index / 2];
        for line in [
            &*format!("authorization: {authorization} planted\r\n"),
            "cookie: a=planted\r\n",
            "cookie2: planted\r\n",
            "x-tenant: acme\r\n",
            "accept: image/webp\r\naccept: image/*\r\n",
        ] {
            assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
        }
        assert_eq!(head.matches("authorization").count(), 1, "{head}");
    }
    let heads = elsewhere.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert!(!head.contains("planted"), "{head}");
        assert!(head.contains("x-tenant: acme\r\n"), "{head}");
    }
}

#[tokio::test]
async fn reqwests_own_default_headers_are_for_all_origins() {
    let headers = |name| {
        let name = http::HeaderName::from_static(name);
        HeaderMap::from_iter([(name, http::HeaderValue::from_static("planted"))])
    };
    let layer = DownloadLayer::disabled();
    let error = layer
        .reqwest(unproxied().default_headers(headers("authorization")))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "reqwest's ClientBuilder has \"authorization\" among its default headers, which every origin that a \
         redirect leads to would get: set it with ReqwestClient::default_headers"
    );
    let origin = Origin::start(|_| response("200 OK", "picture")).await;
    let client = layer.reqwest(unproxied().default_headers(headers("x-tenant")));
    client.unwrap().get(origin.url("/")).await.unwrap();
    let head = &origin.heads()[0];
    assert!(head.contains("x-tenant: planted\r\n"), "{head}");
}

#[tokio::test]
async fn redirects_end_somewhere() {
    let origin = Origin::start(|_| {
        Answer::Close("HTTP/1.1 301 Moved\r\nlocation: /?sig=planted\r\n\r\n".to_owned())
    })
    .await;
    for (most, expected) in [(10, 11), (2, 3)] {
        let recorder = Recorder::new();
        let client = client(&builder(&recorder).build()).max_redirects(most);
        let error = client.get(origin.url("/")).await.unwrap_err();
        let text = format!(
            "more than {most} redirects, the last to {}",
            origin.url("/?sig=REDACTED")
        );
        assert_eq!([error.to_string(), format!("{error:?}")], [&*text, &text]);
        assert_eq!(attempts(&recorder).len(), expected);
    }
    let recorder = Recorder::new();
    let client = client(&builder(&recorder).build()).max_redirects(0);
    let response = client.get(origin.url("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);

    // Nothing listens there.
    let error = client
        .get("http://user:planted@127.0.0.1:9/?sig=planted")
        .await;
    let error = error.unwrap_err();
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(text.contains("127.0.0.1:9/?sig=REDACTED"), "{text}");
        assert!(!text.contains("planted"), "{text}");
    }

    // reqwest refuses what it cannot fetch, before and after a redirect.
    let origin = Origin::start(|_| {
        Answer::Close("HTTP/1.1 301 Moved\r\nlocation: ftp://cdn.example/\r\n\r\n".to_owned())
    })
    .await;
    let error = self::client(&DownloadLayer::disabled())
        .get(origin.url("/"))
        .await;
    let error = error.unwrap_err();
    assert!(matches!(error, ReqwestError::Request(error) if error.is_builder()));
}

/// Tries once more after a 5xx.
#[derive(Clone)]
struct Once(bool);

impl retry::Policy<Request, reqwest::Response, ReqwestError> for Once {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request,
        result: &mut Result<reqwest::Response, ReqwestError>,
    ) -> Option<Ready<()>> {
        let failed = matches!(result, Ok(response) if response.status().is_server_error());
        (failed && std::mem::take(&mut self.0)).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        request.try_clone()
    }
}

#[tokio::test]
async fn each_retry_is_an_attempt() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("503 Busy", "")).await;
    let client = client(&builder(&recorder).build());
    let request = http::Request::get(origin.url("/")).extension(Attempts::default());
    let request = Request::try_from(request.body("").unwrap()).unwrap();
    let retrying = RetryLayer::new(Once(true)).layer(client);
    let response = retrying.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(response);
    let spans = attempts(&recorder);
    let resends = spans
        .iter()
        .map(|span| span.get("http.request.resend_count"));
    assert_eq!(resends.collect::<Vec<_>>(), [None, Some("1".to_owned())]);
    for span in spans {
        span.assert_error("503", "");
    }
}

/// What an HTTP/2 server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Frame {
    Answer,
    Refuse,
    Reset,
    /// Ends the connection without having processed anything.
    GoAway,
}

/// An HTTP/2 server that does one after the other of these, and the last again and again.
async fn http2(frames: &'static [Frame]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let last = frames.last().into_iter().cycle();
    let mut frames = frames.iter().chain(last).peekable();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if frames.next_if(|next| **next == Frame::GoAway).is_some() {
                tokio::spawn(go_away(connection));
                continue;
            }
            let mut connection = h2::server::handshake(connection).await.unwrap();
            while let Some(Ok((_, mut stream))) = connection.accept().await {
                match frames.next().unwrap() {
                    Frame::Answer => {
                        let answer = stream.send_response(http::Response::new(()), true);
                        answer.unwrap();
                    }
                    Frame::Refuse => stream.send_reset(Reason::REFUSED_STREAM),
                    Frame::Reset => stream.send_reset(Reason::INTERNAL_ERROR),
                    Frame::GoAway => unreachable!("for connections only"),
                }
            }
        }
    });
    url
}

/// Takes a request, and says that none was processed (RFC 9113 §6.8), which h2's server cannot do.
async fn go_away(mut connection: TcpStream) {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let frame = |kind: u8, payload: &[u8]| {
        let head = [0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 0];
        [&head, payload].concat()
    };
    connection.write_all(&frame(SETTINGS, &[])).await.unwrap();
    connection.read_exact(&mut [0; 24]).await.unwrap();
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        connection.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    // The last processed stream is 0, and so is the error.
    connection.write_all(&frame(GOAWAY, &[0; 8])).await.unwrap();
    // What is left unread would reset the connection.
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn what_an_http2_server_has_not_processed_is_another_attempt() {
    use Frame::*;
    for (frames, attempts, is_answered) in [
        (&[Answer][..], 1, true),
        (&[Refuse, Answer], 2, true),
        (&[Refuse, Refuse, Answer], 3, true),
        (&[Refuse], 3, false),
        (&[GoAway, Answer], 2, true),
        (&[Reset, Answer], 1, false),
    ] {
        let recorder = Recorder::new();
        let builder = builder(&recorder).propagate_external(true);
        let client = unproxied().http2_prior_knowledge();
        let client = builder.build().reqwest(client).unwrap().max_redirects(0);
        let answer = client.get(http2(frames).await).await;
        assert_eq!(answer.is_ok(), is_answered, "{answer:?}");
        drop(answer);
        let spans = self::attempts(&recorder);
        let resends: Vec<_> = spans
            .iter()
            .map(|span| span.get("http.request.resend_count"))
            .collect();
        let expected = [None, Some("1".to_owned()), Some("2".to_owned())];
        assert_eq!(resends, expected[..attempts]);
        let statuses = spans
            .iter()
            .map(|span| span.get("http.response.status_code"));
        assert_eq!(statuses.flatten().count(), usize::from(is_answered));
    }
}

#[tokio::test]
async fn no_policy_of_reqwests_own_hides_attempts() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("503 Busy", "")).await;
    let policy = reqwest::retry::for_host("127.0.0.1").no_budget();
    let policy = policy.classify_fn(|answer| answer.retryable());
    let layer = builder(&recorder).build();
    let client = layer.reqwest(unproxied().retry(policy)).unwrap();
    client.get(origin.url("/")).await.unwrap();
    assert_eq!(origin.heads().len(), 1);
    assert_eq!(attempts(&recorder).len(), 1);
}

/// One failed attempt of a client that `configure` changes.
async fn failed(url: &str, configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Recorder {
    let recorder = Recorder::new();
    let layer = builder(&recorder).build();
    let client = layer.reqwest(configure(unproxied())).unwrap();
    match client.get(url).await {
        Ok(response) => drop(response.bytes().await.unwrap_err()),
        Err(error) => drop(error),
    }
    recorder
}

#[track_caller]
fn assert_failed(recorder: &Recorder, error_type: &str, part: &str) {
    let span = recorder.span("GET");
    let exceptions = span.exceptions();
    let [message] = &*exceptions else {
        panic!("one exception: {span:#?}");
    };
    span.assert_error(error_type, message);
    assert!(message.contains(part), "{message}");
    assert!(!message.contains("planted"), "{message}");
    let series = recorder.only_series("http.client.request.duration");
    assert_eq!(series.attributes["error.type"], error_type);
}

// faults G4
#[tokio::test]
async fn what_went_wrong_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = format!("http://{}/?sig=planted", listener.local_addr().unwrap());
    drop(listener);
    assert_failed(&failed(&refused, |it| it).await, "connect", "?sig=REDACTED");

    // A label that is too long for DNS, so that no resolver needs to ask another.
    let unknown = format!("http://{}.invalid/", "a".repeat(64));
    assert_failed(&failed(&unknown, |it| it).await, "dns", "dns error");

    let hanging = Origin::start(|_| Answer::Hang(String::new())).await;
    let recorder = failed(&hanging.url("/"), |it| {
        it.timeout(Duration::from_millis(50))
    })
    .await;
    assert_failed(&recorder, "timeout", "operation timed out");
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let hanging = Origin::start(|_| Answer::Hang(half.to_owned())).await;
    let recorder = failed(&hanging.url("/"), |it| {
        it.read_timeout(Duration::from_millis(50))
    })
    .await;
    assert_failed(&recorder, "timeout", "operation timed out");

    let broken = Origin::start(|_| Answer::Close(half.to_owned())).await;
    let recorder = failed(&broken.url("/"), |it| it).await;
    assert_failed(&recorder, "body", "end of file before message length");
    let span = recorder.span("GET");
    assert_eq!(span.get("http.response.body.size").as_deref(), Some("4"));

    let closing = Origin::start(|_| Answer::Close(String::new())).await;
    assert_failed(
        &failed(&closing.url("/"), |it| it).await,
        "reqwest::Error",
        "",
    );
}

// faults G4
#[tokio::test]
async fn tls_is_told_apart() {
    let identity = Ca::new("nobody's").server("localhost");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config(None)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let untrusted = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let _ = acceptor.accept(connection).await;
        }
    });
    let recorder = failed(&untrusted, |it| it).await;
    assert_failed(&recorder, "tls", "UnknownIssuer");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            // The client's greeting has to be taken, or else the connection is reset.
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await;
        }
    });
    assert_failed(&failed(&plain, |it| it).await, "tls", "");
}

#[tokio::test]
async fn an_error_of_the_stage_is_told_apart_too() {
    let recorder = Recorder::new();
    let client = client(&DownloadLayer::disabled());
    let service = recorder
        .layer()
        .layer(tower::service_fn(async |request: http::Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let url = format!("http://{}.invalid/", "a".repeat(64));
            let failed = trace.download(&url).run(client.get(&url)).await;
            drop(failed.unwrap_err());
            Ok::<_, io::Error>(http::Response::new(String::new()))
        }));
    let request = http::Request::new(());
    drop(service.oneshot(request).await.unwrap());
    let stage = recorder.span("downloading_image");
    let exceptions = stage.exceptions();
    stage.assert_error("dns", &exceptions[0]);
}

#[tokio::test]
async fn a_client_that_is_there_already_is_a_service() {
    let recorder = Recorder::new();
    let origin = Origin::start(|_| response("200 OK", "picture")).await;
    let service = builder(&recorder)
        .build()
        .layer(ReqwestService::new(unproxied().build().unwrap()));
    let request = http::Request::get(origin.url("/")).body("").unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert_eq!(body.unwrap().to_bytes(), "picture");
    recorder.span("GET").assert_no_error();

    // reqwest takes absolute addresses only.
    let request = http::Request::get("/cat.jpg").body("").unwrap();
    let error = service.oneshot(request).await.unwrap_err();
    assert!(error.is_builder(), "{error}");
    assert_eq!(attempts(&recorder).len(), 2);
}

#[tokio::test]
async fn telemetry_that_is_off_leaves_the_client_as_it_is() {
    let telemetry = Telemetry::builder().build().unwrap();
    let origin = Origin::start(|_| response("200 OK", "picture")).await;
    let client = telemetry.download_layer().reqwest(unproxied()).unwrap();
    let response = client.get(origin.url("/")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "picture");
}
