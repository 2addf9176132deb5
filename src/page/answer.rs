//! Responses of the page.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde_json::Value;

use super::{
    body::TracePageBody,
    events::Stream,
    files::{File, gzip},
};

pub(super) type Answer = Response<TracePageBody>;

/// Nothing from anywhere else, nothing inline, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SAME_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Smaller answers are not compressed.
const WORTH_COMPRESSING: usize = 1024;

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let length = body.len();
    let mut answer = Response::new(TracePageBody::whole(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    secure(&mut answer);
    answer
}

fn secure(answer: &mut Answer) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (SAME_ORIGIN, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
}

/// One sentence.
pub(super) fn refusal(status: StatusCode, sentence: &str) -> Answer {
    let text = format!("{sentence}\n").into();
    answer(status, "text/plain; charset=utf-8", text)
}

pub(super) fn wrong_method() -> Answer {
    let mut answer = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "only GET and HEAD are answered",
    );
    let allowed = HeaderValue::from_static("GET, HEAD");
    answer.headers_mut().insert(ALLOW, allowed);
    answer
}

/// The same address with a slash at its end, to which the links of the page are relative.
pub(super) fn redirect(to: &str) -> Answer {
    let Ok(to) = HeaderValue::try_from(to) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such page");
    };
    let mut answer = refusal(StatusCode::PERMANENT_REDIRECT, "the page is one slash away");
    answer.headers_mut().insert(LOCATION, to);
    answer
}

pub(super) fn error(status: StatusCode, sentence: &str) -> Answer {
    let mut answer = json(&serde_json::json!({ "error": sentence }), false);
    *answer.status_mut() = status;
    answer
}

pub(super) fn json(value: &Value, takes_gzip: bool) -> Answer {
    json_text(value.to_string().into(), takes_gzip)
}

pub(super) fn json_text(text: Bytes, takes_gzip: bool) -> Answer {
    let is_compressed = takes_gzip && text.len() > WORTH_COMPRESSING;
    let text = if is_compressed { gzip(&text) } else { text };
    let mut answer = answer(StatusCode::OK, "application/json", text);
    encoded(&mut answer, is_compressed);
    answer
}

/// JSON to be saved under that name.
pub(super) fn download(text: Bytes, name: &str, takes_gzip: bool) -> Answer {
    let mut answer = json_text(text, takes_gzip);
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    answer
}

/// `known`: the tags that the browser has (`If-None-Match`).
pub(super) fn file(file: &File, known: Option<&str>, takes_gzip: bool) -> Answer {
    let etag = file.etag();
    // RFC 9110 §13.1.2: `*` is any tag.
    let is_known = |tag: &str| tag == etag || tag == "*";
    let is_known = known.is_some_and(|known| known.split(',').any(|tag| is_known(tag.trim())));
    let mut answer = if is_known {
        let mut answer = Response::new(TracePageBody::whole(Bytes::new()));
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        secure(&mut answer);
        answer
    } else {
        let content = match takes_gzip {
            true => file.compressed(),
            false => Bytes::from_static(file.content),
        };
        answer(StatusCode::OK, file.content_type, content)
    };
    encoded(&mut answer, takes_gzip && !is_known);
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    answer
}

pub(super) fn events(stream: Stream) -> Answer {
    let mut answer = Response::new(TracePageBody::events(stream));
    let events = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(CONTENT_TYPE, events);
    secure(&mut answer);
    answer
}

fn encoded(answer: &mut Answer, is_compressed: bool) {
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
}
