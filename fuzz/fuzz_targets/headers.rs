//! Lists of header names and of networks, and the headers that are recorded.
//!
//! ```text
//! cd fuzz && mkdir -p corpus/headers
//! cargo run --release --bin headers -- -max_total_time=600 corpus/headers seeds/headers
//! ```
//!
//! The input is lines: a list of names, a list of networks, and values of the recorded headers. Lists are
//! refused exactly when one of their members is, and no planted secret is recorded.

#![no_main]

#[allow(dead_code)]
mod layer;

use std::{net::IpAddr, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use libfuzzer_sys::fuzz_target;
use opentelemetry::{Array, Value};
use tower_image_trace::trace::{HeaderAllowList, Networks};

use layer::{Recorded, body, value};

const SECRET: &str = "S3CRET";
const PLANTED: &str = "https://user:S3CRET@h/a.jpg?sig=S3CRET";
const LONGEST: usize = 512;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').collect();
    let line = |index: usize| lines.get(index).copied().unwrap_or_default();
    names(&String::from_utf8_lossy(line(0)));
    networks(&String::from_utf8_lossy(line(1)));
    recorded(&lines[lines.len().min(2)..]);
});

fn members(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

fn names(list: &str) {
    let credentials = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
    ];
    let is_allowed = |name: &str| {
        HeaderName::from_bytes(name.as_bytes())
            .is_ok_and(|name| !credentials.contains(&name.as_str()))
    };
    let parsed = list.parse::<HeaderAllowList>();
    assert_eq!(parsed.is_ok(), members(list).all(is_allowed), "{list:?}");
    assert_eq!(parsed, HeaderAllowList::new(members(list)));
}

fn networks(list: &str) {
    let address_of = |member: &str| {
        let (address, length) = match member.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (member, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_length = |length: &str| {
            let digits = length.trim_start_matches('0');
            !length.is_empty()
                && length.bytes().all(|byte| byte.is_ascii_digit())
                && (digits.is_empty() || digits.parse::<u8>().is_ok_and(|length| length <= most))
        };
        length.is_none_or(is_length).then_some(address)
    };
    let addresses: Option<Vec<_>> = members(list).map(address_of).collect();
    match (list.parse::<Networks>(), addresses) {
        (Ok(networks), Some(addresses)) => {
            assert!(
                addresses.iter().all(|address| networks.contains(*address)),
                "{list:?}"
            );
        }
        (Err(error), None) => assert!(!error.to_string().is_empty()),
        (parsed, addresses) => panic!("{list:?}: {parsed:?} {addresses:?}"),
    }
}

fn recorded(lines: &[&[u8]]) {
    static LAYER: LazyLock<Recorded> = LazyLock::new(|| {
        let list: HeaderAllowList = "x-sent, x-other".parse().expect("a list");
        Recorded::new(|builder| {
            builder
                .request_headers(list.clone())
                .response_headers(list)
                .longest_attribute(LONGEST)
        })
    });
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-sent", value);
        }
    }
    let is_clean = lines
        .iter()
        .all(|line| !String::from_utf8_lossy(line).contains(SECRET));
    let planted = lines
        .first()
        .map(|line| [line, PLANTED.as_bytes()].join(&b' '));
    let planted = planted.and_then(|value| HeaderValue::from_bytes(&value).ok());
    headers.extend(planted.map(|value| (HeaderName::from_static("x-other"), value)));

    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    let mut response = Response::new(body(Vec::new()));
    *response.headers_mut() = headers.clone();
    let span = LAYER.serve(request, response);
    for kind in ["request", "response"] {
        for name in ["x-sent", "x-other"] {
            let sent = headers.get_all(name).iter().count();
            match value(&span, &format!("http.{kind}.header.{name}")) {
                None => assert_eq!(sent, 0),
                Some(Value::Array(Array::String(texts))) => {
                    let length: usize = texts.iter().map(|text| text.as_str().len()).sum();
                    assert!(length <= LONGEST + "…".len(), "{length}");
                    let last = texts.last().map(|text| text.as_str());
                    assert!(texts.len() == sent || last == Some("…"), "{texts:?}");
                    let has_secret = texts.iter().any(|text| text.as_str().contains(SECRET));
                    assert!(!is_clean || !has_secret, "{texts:?}");
                }
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}
