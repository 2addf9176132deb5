//! OTLP over HTTP with protobuf.

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    answer::{Accepted, Answer, Failure},
    client::{Client, Encoded},
    secrets::Secrets,
};

pub(super) async fn send(
    client: &Client,
    uri: &Uri,
    request: &Encoded,
) -> Result<Accepted, Failure> {
    let mut headers = HeaderMap::from_iter([
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        ),
        (ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    if request.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let answer = client.post(uri, headers, request.body.clone()).await?;
    if answer.status.is_success() {
        accepted(&answer, client.secrets())
    } else {
        Err(answer.failure(client.secrets()))
    }
}

/// What a successful answer over HTTP says. A login page or any other body that is no export
/// response means that no collector has answered.
fn accepted(answer: &Answer, secrets: &Secrets) -> Result<Accepted, Failure> {
    let body = answer.decoded_body();
    let body: &[u8] = &body;
    let content_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let accepted = match content_type.to_ascii_lowercase().as_str() {
        _ if answer.is_cut => None,
        _ if body.is_empty() => Some(Accepted::default()),
        "application/x-protobuf" | "application/octet-stream" | "" => Accepted::read(body),
        "application/json" => json(body),
        _ => None,
    };
    accepted.ok_or_else(|| {
        let kind = match content_type {
            "" => "unknown content".to_owned(),
            kind => secrets.one_line(kind),
        };
        let excerpt = secrets.excerpt(body);
        Failure::no_otlp(format!(
            "{} with {kind} instead of an OTLP answer: {excerpt:?} (is the endpoint a collector?)",
            answer.status
        ))
    })
}

/// The export response as JSON, which some collectors send whatever the request was. The number may be
/// a string (ProtoJSON).
fn json(body: &[u8]) -> Option<Accepted> {
    let text = str::from_utf8(body).ok()?.trim();
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    let after = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let names = ["Spans\"", "DataPoints\"", "LogRecords\""];
    let rejected = names.iter().find_map(|kind| {
        let digits = after(&format!("\"rejected{kind}"))?;
        let digits = digits.trim_start_matches('"');
        let end = digits.find(|letter: char| !letter.is_ascii_digit());
        digits[..end.unwrap_or(digits.len())].parse().ok()
    });
    let message = after("\"errorMessage\"").and_then(|rest| rest.strip_prefix('"'));
    Some(Accepted {
        rejected: rejected.unwrap_or(0),
        message: message.map(unescaped).unwrap_or_default(),
    })
}

/// The string of JSON that ends at the first quote of `text` that is not escaped (RFC 8259 §7).
fn unescaped(text: &str) -> String {
    let mut units = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
        let letter = match letter {
            '\\' => match letters.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let is_hex = |text: &&str| text.bytes().all(|b| b.is_ascii_hexdigit());
                    let digits = letters.as_str().get(..4).filter(is_hex);
                    match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
                        Some(unit) => {
                            units.push(unit);
                            letters = letters.as_str()[4..].chars();
                            continue;
                        }
                        None => char::REPLACEMENT_CHARACTER,
                    }
                }
                Some(letter) => letter,
                None => break,
            },
            letter => letter,
        };
        units.extend_from_slice(letter.encode_utf16(&mut [0; 2]));
    }
    // A character beyond the first 65,536 may be escaped as two surrogates.
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, StatusCode, header::RETRY_AFTER};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn headers() -> impl Strategy<Value = HeaderMap> {
        let names = [
            CONTENT_TYPE,
            CONTENT_ENCODING,
            RETRY_AFTER,
            http::header::LOCATION,
        ];
        let name = prop::sample::select(names.to_vec());
        let value = prop_oneof![
            Just("application/json".to_owned()),
            Just("application/x-protobuf".to_owned()),
            Just("gzip".to_owned()),
            "[ -~]{0,2000}",
        ];
        let pair = (name, value).prop_map(|(name, value): (HeaderName, String)| {
            (name, HeaderValue::from_str(&value).expect("visible"))
        });
        vec(pair, 0..4).prop_map(HeaderMap::from_iter)
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..300),
            r#"\{"(partialSuccess|rejectedSpans|errorMessage)" ?: ?"?[0-9]{0,30}"?.{0,20}\}"#
                .prop_map(String::into_bytes),
        ]
    }

    // faults C2, C8
    #[test]
    fn the_message_of_json_is_decoded() {
        for (json, expected) in [
            (r#""no \"a.b\": too long"}"#, "no \"a.b\": too long"),
            (r#""a\\", "b": """#, "a\\"),
            (r#""\/\b\f\n\r\t""#, "/\u{8}\u{c}\n\r\t"),
            (r#""\u00e9\uD83D\uDE00é😀""#, "é😀é😀"),
            (r#""\ud83d!""#, "\u{fffd}!"),
            (r#""\u00""#, "\u{fffd}00"),
            (r#""\u+0e9""#, "\u{fffd}+0e9"),
            ("7", ""),
        ] {
            let body = format!(r#"{{"partialSuccess":{{"errorMessage": {json}}}}}"#);
            assert_eq!(
                super::json(body.as_bytes()).unwrap().message,
                expected,
                "{json}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_a_success_or_one_bounded_line(
            status in 200_u16..600,
            headers in headers(),
            body in body(),
        ) {
            let answer = Answer {
                status: StatusCode::from_u16(status).expect("in range"),
                headers,
                body: body.into(),
                is_cut: false,
                #[cfg(feature = "otlp-grpc")]
                trailers: None,
            };
            let secrets = Secrets::default();
            let refused = accepted(&answer, &secrets).err();
            for failure in refused.into_iter().chain([answer.failure(&secrets)]) {
                prop_assert!(failure.message.chars().count() < 700, "{}", failure.message);
                prop_assert!(!failure.message.contains(char::is_control));
            }
        }
    }
}
