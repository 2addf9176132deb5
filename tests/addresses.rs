//! Who asked, and for what: as the connection says, and as trusted proxies say.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::trace::{ForwardedHeader, ImageTraceLayerBuilder, PeerAddr};

use crate::support::{Recorder, recorder::Span};

fn peer(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

async fn root(
    configure: impl FnOnce(ImageTraceLayerBuilder) -> ImageTraceLayerBuilder,
    request: http::request::Builder,
) -> (Recorder, Span) {
    let recorder = Recorder::new();
    let service = configure(recorder.builder())
        .build()
        .layer(service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }));
    service.oneshot(request.body(()).unwrap()).await.unwrap();
    let span = recorder.root();
    (recorder, span)
}

fn text(values: &[Option<String>]) -> Vec<&str> {
    values
        .iter()
        .map(|value| value.as_deref().unwrap_or("-"))
        .collect()
}

fn addresses(span: &Span) -> [Option<String>; 6] {
    [
        "client.address",
        "network.peer.address",
        "network.peer.port",
        "url.scheme",
        "server.address",
        "server.port",
    ]
    .map(|key| span.get(key))
}

#[tokio::test]
async fn the_peer_is_in_the_extensions() {
    let address = peer("[::ffff:192.0.2.7]:4000");
    let expected = ["192.0.2.7", "192.0.2.7", "4000", "http", "a.example", "-"];
    let request = || Request::get("/").header("host", "a.example");
    for request in [
        request().extension(address),
        request().extension(PeerAddr::from(address)),
        // What was made for this crate counts before what may be somebody else's.
        request()
            .extension(PeerAddr::from(address))
            .extension(peer("198.51.100.1:1")),
        request().extension(axum::extract::ConnectInfo(address)),
    ] {
        let (_, span) = root(|builder| builder, request).await;
        assert_eq!(text(&addresses(&span)), expected);
    }
    let find =
        |extensions: &http::Extensions| extensions.get::<(u8, SocketAddr)>().map(|own| own.1);
    let request = request().extension((1_u8, address));
    let (_, span) = root(|builder| builder.peer_address(find), request).await;
    assert_eq!(text(&addresses(&span)), expected);
}

#[tokio::test]
async fn what_proxies_say_counts_when_they_are_trusted() {
    let forwarded = |peer_address: &str| {
        Request::get("/")
            .extension(peer(peer_address))
            .header("host", "internal:8080")
            .header("x-forwarded-for", "6.6.6.6, 2001:db8::9")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "images.example")
            .header("x-forwarded-port", "443")
    };
    let proxies =
        |builder: ImageTraceLayerBuilder| builder.trusted_proxies("10.0.0.0/8".parse().unwrap());
    let internal = |peer| [peer, peer, "4000", "http", "internal", "8080"];

    let (recorder, span) = root(proxies, forwarded("10.0.0.1:4000")).await;
    assert_eq!(
        text(&addresses(&span)),
        [
            "2001:db8::9",
            "10.0.0.1",
            "4000",
            "https",
            "images.example",
            "443"
        ]
    );
    let duration = recorder.only_series("http.server.request.duration");
    assert_eq!(duration.attributes["url.scheme"], "https");
    let values: Vec<_> = duration.attributes.values().collect();
    for address in ["2001:db8::9", "10.0.0.1", "images.example", "6.6.6.6"] {
        assert!(!values.iter().any(|value| value.contains(address)));
    }

    let (_, span) = root(proxies, forwarded("192.0.2.7:4000")).await;
    assert_eq!(text(&addresses(&span)), internal("192.0.2.7"));
    let (_, span) = root(|builder| builder, forwarded("10.0.0.1:4000")).await;
    assert_eq!(text(&addresses(&span)), internal("10.0.0.1"));
}

// faults A5
#[tokio::test]
async fn a_header_that_the_proxies_do_not_own_is_ignored() {
    let request = || {
        Request::get("/")
            .extension(peer("10.0.0.1:4000"))
            .header("host", "a.example")
            .header("forwarded", "for=192.0.2.1;host=b.example, for=10.0.0.2")
            .header("x-forwarded-for", "6.6.6.6, 2001:db8::9, 10.0.0.2")
            .header("x-forwarded-host", "c.example")
    };
    for (owned, client, server) in [
        (None, "2001:db8::9", "c.example"),
        (
            Some(ForwardedHeader::XForwarded),
            "2001:db8::9",
            "c.example",
        ),
        (Some(ForwardedHeader::Forwarded), "192.0.2.1", "b.example"),
    ] {
        let proxies = |builder: ImageTraceLayerBuilder| {
            let builder = builder.trusted_proxies("10.0.0.0/8".parse().unwrap());
            match owned {
                Some(header) => builder.forwarded_header(header),
                None => builder,
            }
        };
        let (_, span) = root(proxies, request()).await;
        let found = addresses(&span);
        assert_eq!([text(&found)[0], text(&found)[4]], [client, server]);
    }
}

#[tokio::test]
async fn a_client_that_its_proxy_hides_has_no_address() {
    let request = Request::get("/")
        .extension(peer("10.0.0.1:4000"))
        .header("host", "a.example:8080")
        .header("forwarded", "for=6.6.6.6, for=_hidden;proto=https");
    let proxies = "10.0.0.0/8".parse().unwrap();
    let (_, span) = root(|builder| builder.trusted_proxies(proxies), request).await;
    assert_eq!(
        text(&addresses(&span)),
        ["-", "10.0.0.1", "4000", "https", "a.example", "8080"]
    );
}
