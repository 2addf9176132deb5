//! gRPC calls and their statuses, in the way that the target is named after.
//!
//! ```text
//! cd fuzz && mkdir -p corpus/grpc_web
//! cargo run --release --bin grpc_web -- -max_total_time=600 corpus/grpc_web seeds/grpc_web
//! ```
//!
//! `grpc_call`: the input is up to seven lines: the path, the content types of request and response, the
//! `grpc-status` of the head and of the trailers, an HTTP status, and the trailers of gRPC-Web.
//!
//! `grpc_web`: the first byte chooses between binary and text, the second says where the body is cut, and
//! the rest is the body. It is also the content of messages in front of trailers with a known status.

#![no_main]

mod layer;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use libfuzzer_sys::fuzz_target;
use opentelemetry_sdk::trace::SpanData;

use layer::{Recorded, body, text};

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fuzz_target!(|data: &[u8]| {
    match env!("CARGO_BIN_NAME") {
        "grpc_call" => grpc_call(data),
        _ => grpc_web(data),
    }
});

fn grpc_call(data: &[u8]) {
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').collect();
    let line = |index: usize| lines.get(index).copied().unwrap_or_default();
    let header = |index| {
        HeaderValue::from_bytes(line(index))
            .ok()
            .filter(|value| !value.is_empty())
    };
    let path = String::from_utf8_lossy(line(0));
    let Ok(uri) = format!("/{path}").parse::<http::Uri>() else {
        return;
    };
    let path = uri.path().to_owned();

    // What a client invents must not become a name; what was learned stays known.
    let layer = Recorded::new(|builder| builder);
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut request = Request::post(uri.clone()).body(()).expect("a request");
        request
            .headers_mut()
            .extend(header(1).map(|value| (http::header::CONTENT_TYPE, value)));
        let is_call = request.headers().contains_key(http::header::CONTENT_TYPE);
        let mut trailers = HeaderMap::new();
        trailers.extend(header(4).map(|value| (status(), value)));
        let frames = vec![
            Frame::data(web_frame(0x80, line(6)).into()),
            Frame::trailers(trailers),
        ];
        let mut response = Response::new(body(frames));
        let code = str::from_utf8(line(5))
            .ok()
            .and_then(|code| code.parse().ok());
        *response.status_mut() = code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or_default();
        let head = response.headers_mut();
        head.extend(header(2).map(|value| (http::header::CONTENT_TYPE, value)));
        head.extend(header(3).map(|value| (status(), value)));
        let status_code = response.status().as_u16();
        let span = layer.serve(request, response);

        let Some(method) = text(&span, "rpc.method") else {
            // A plain request.
            assert_eq!(text(&span, "rpc.response.status_code"), None);
            assert_eq!(span.name, "POST");
            return;
        };
        assert!(is_call);
        let code = code_of(&span).expect("a call that was answered has a status");
        let written = header(4).map(|value| number(value.as_bytes()));
        // Nothing follows these heads, whatever the service has made.
        let is_bodiless = matches!(status_code, 100..=199 | 204 | 304);
        if let Some(written) = written
            && line(6).is_empty()
            && !is_bodiless
        {
            assert_eq!(code, CODES[written], "the trailers decide");
        }
        match &*method {
            "_OTHER" => assert_eq!(span.name, "grpc"),
            known => {
                assert_eq!(span.name, known);
                assert_eq!(path, format!("/{known}"));
                let (service, method) = known.split_once('/').expect("two names");
                let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '%', ' ', '"']);
                assert!(is_name(service) && is_name(method), "{known}");
            }
        }
        names.push(span.name.into_owned());
    }
    assert_eq!(names[0], names[1]);
}

fn grpc_web(data: &[u8]) {
    let [kind, cut, content @ ..] = data else {
        return;
    };
    let is_text = kind & 1 == 1;
    let step = usize::from(*cut).max(1);
    let layer = Recorded::new(|builder| builder);

    // The whole body at once, read by another hand.
    let span = serve(&layer, is_text, &[content]);
    let code = code_of(&span).expect("a status");
    let decoded = match is_text {
        true => decode(content),
        false => Some(content.to_vec()),
    };
    if let Some(written) = decoded.as_deref().and_then(reference) {
        assert_eq!(code, CODES[written]);
        let pieces: Vec<_> = content.chunks(step).collect();
        let span = serve(&layer, is_text, &pieces);
        assert_eq!(code_of(&span).as_deref(), Some(CODES[written]), "in pieces");
    }

    // Any messages, then the trailers.
    let expected = usize::from(kind >> 1) % CODES.len();
    let trailers = format!("grpc-message: m\r\ngrpc-status:{expected}\r\n");
    let mut whole: Vec<u8> = content
        .chunks(step)
        .flat_map(|message| web_frame(message[0] & 1, message))
        .collect();
    whole.extend(web_frame(0x80, trailers.as_bytes()));
    if is_text {
        whole = BASE64_STANDARD.encode(whole).into_bytes();
    }
    let pieces: Vec<_> = whole.chunks(step).collect();
    let span = serve(&layer, is_text, &pieces);
    assert_eq!(code_of(&span).as_deref(), Some(CODES[expected]));
}

fn serve(layer: &Recorded, is_text: bool, pieces: &[&[u8]]) -> SpanData {
    let content_type = match is_text {
        true => "application/grpc-web-text+proto",
        false => "application/grpc-web+proto",
    };
    let request = Request::post("/p.S/M")
        .header("content-type", content_type)
        .body(());
    let frames = pieces
        .iter()
        .map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    let response = Response::builder()
        .header("content-type", content_type)
        .body(body(frames.collect()));
    layer.serve(request.expect("a request"), response.expect("a response"))
}

fn status() -> http::HeaderName {
    http::HeaderName::from_static("grpc-status")
}

fn code_of(span: &SpanData) -> Option<String> {
    let code = text(span, "rpc.response.status_code");
    assert!(
        code.iter().all(|code| CODES.contains(&code.as_str())),
        "{code:?}"
    );
    code
}

/// PROTOCOL-HTTP2: `Status → "grpc-status" 1*DIGIT`; what is none of the codes is UNKNOWN.
fn number(written: &[u8]) -> usize {
    let digits = written.iter().skip_while(|digit| **digit == b'0').copied();
    let digits: Vec<u8> = digits.collect();
    let is_number = !written.is_empty() && written.iter().all(u8::is_ascii_digit);
    match &digits[..] {
        [] if is_number => 0,
        [one] if is_number => usize::from(one - b'0'),
        [b'1', one @ b'0'..=b'6'] if is_number => 10 + usize::from(one - b'0'),
        _ => 2,
    }
}

fn web_frame(flag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a short content");
    [&[flag][..], &length.to_be_bytes(), content].concat()
}

/// The status of a body that is frames from its first byte to its last one. `None` also for bodies with
/// several frames of trailers, which no server writes.
fn reference(mut bytes: &[u8]) -> Option<usize> {
    while let [flag, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (content, rest) = rest.split_at_checked(length)?;
        match flag {
            0 | 1 => bytes = rest,
            0x80 if rest.is_empty() => {
                let text = content.split(|byte| *byte == b'\n');
                let mut statuses = text.filter_map(|line| {
                    let colon = line.iter().position(|byte| *byte == b':')?;
                    let is_status = line[..colon].eq_ignore_ascii_case(b"grpc-status");
                    is_status.then(|| number(line[colon + 1..].trim_ascii()))
                });
                return statuses.next();
            }
            _ => return None,
        }
    }
    None
}

/// Groups of four letters, padded or not.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let groups = text
        .chunks(4)
        .map(|group| BASE64_STANDARD.decode(group).ok());
    Some(groups.collect::<Option<Vec<_>>>()?.concat())
}
