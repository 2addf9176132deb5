//! Arbitrary `Host`, `Forwarded` and `X-Forwarded-*` headers.
//!
//! ```text
//! cd fuzz && mkdir -p corpus/addresses
//! cargo run --release --bin addresses -- -max_total_time=600 corpus/addresses seeds/addresses
//! ```
//!
//! The input is one header line a text line: its first byte chooses the name, the rest is the value.
//! A trusted proxy passes the request on and adds its own hop, in a line of its own or to the last line.
//! Whatever the client has written, its address is the one that the proxy says, or none.

#![no_main]

mod layer;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use libfuzzer_sys::fuzz_target;
use opentelemetry::Value;
use tower_image_trace::trace::ForwardedHeader;

use layer::{PROXY, Recorded, body, text, value};

const NAMES: [&str; 6] = [
    "host",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
];

const CLIENT: &str = "192.0.2.43";

fuzz_target!(|data: &[u8]| {
    static LAYERS: LazyLock<[Recorded; 3]> = LazyLock::new(|| {
        let with = |owned: Option<ForwardedHeader>| {
            Recorded::new(|builder| {
                let builder = builder.trusted_proxies("10.0.0.0/8".parse().expect("a network"));
                match owned {
                    Some(header) => builder.forwarded_header(header),
                    None => builder,
                }
            })
        };
        [
            with(None),
            with(Some(ForwardedHeader::Forwarded)),
            with(Some(ForwardedHeader::XForwarded)),
        ]
    });
    let [either, standard, de_facto] = &*LAYERS;
    let sent = headers(data);

    for layer in [either, standard, de_facto] {
        check(layer, sent.clone());
    }
    let by_proxy = [
        (standard, "forwarded", format!("for={CLIENT}")),
        (de_facto, "x-forwarded-for", CLIENT.to_owned()),
    ];
    for (layer, name, hop) in by_proxy {
        let name = HeaderName::from_static(name);
        let own = |hop: &str| HeaderValue::from_str(hop).expect("a value");
        let mut headers = sent.clone();
        headers.append(name.clone(), own(&hop));
        assert_eq!(check(layer, headers.clone()).as_deref(), Some(CLIENT));
        let outer = hop.replace(CLIENT, PROXY);
        headers.append(name.clone(), own(&outer));
        assert_eq!(check(layer, headers).as_deref(), Some(CLIENT));

        // Added to a line that is not text or has an open quote, the hop is unreadable.
        let mut headers = sent.clone();
        let last = match headers.entry(name) {
            http::header::Entry::Occupied(mut lines) => {
                let last = lines.iter_mut().next_back();
                last.map(|line| {
                    *line =
                        HeaderValue::from_bytes(&[line.as_bytes(), b", ", hop.as_bytes()].concat())
                            .expect("still a value")
                })
            }
            http::header::Entry::Vacant(_) => None,
        };
        if last.is_some() {
            let client = check(layer, headers);
            assert!(client.is_none_or(|client| client == CLIENT));
        }
    }
});

/// What holds for all addresses. Returns the client's.
fn check(layer: &Recorded, headers: HeaderMap) -> Option<String> {
    let mut request = Request::new(());
    let written: Vec<_> = headers
        .values()
        .map(|line| line.as_bytes().to_vec())
        .collect();
    let written = String::from_utf8_lossy(&written.join(&b'\n')).into_owned();
    *request.headers_mut() = headers;
    let span = layer.serve(request, Response::new(body(Vec::new())));

    let client = text(&span, "client.address");
    if let Some(client) = &client {
        let address: IpAddr = client.parse().expect("an address");
        assert_eq!(address.to_canonical().to_string(), *client);
    }
    assert_eq!(text(&span, "network.peer.address").as_deref(), Some(PROXY));
    let scheme = text(&span, "url.scheme").expect("a scheme");
    assert!(matches!(&*scheme, "http" | "https"));
    if let Some(server) = text(&span, "server.address") {
        assert!(written.contains(&server));
        let is_of_name =
            |byte: u8| byte.is_ascii_graphic() && !b"/?#@[]:\"<>\\^`{|}".contains(&byte);
        let is_name = (1..256).contains(&server.len()) && server.bytes().all(is_of_name);
        assert!(is_name || server.parse::<Ipv6Addr>().is_ok(), "{server:?}");
    }
    match value(&span, "server.port") {
        None => {}
        Some(Value::I64(port)) => {
            assert!((0..=65_535).contains(port));
            let digits = |text: &str| text.trim_start_matches('0').to_owned();
            let mut numbers = written
                .split(|letter: char| !letter.is_ascii_digit())
                .map(digits);
            let port = digits(&port.to_string());
            assert!(numbers.any(|number| number == port), "{port}");
        }
        Some(other) => panic!("{other:?}"),
    }
    client
}

fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let [first, value @ ..] = line
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            let name = NAMES[usize::from(first.wrapping_sub(b'0')) % NAMES.len()];
            headers.append(HeaderName::from_static(name), value);
        }
    }
    headers
}
