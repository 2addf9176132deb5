use proptest::prelude::*;

use super::*;

fn query(text: &str) -> String {
    Redaction::default().query(text).into_owned()
}

fn path(text: &str) -> String {
    Redaction::default().path(text).into_owned()
}

fn message(text: &str) -> String {
    Redaction::default().message(text).into_owned()
}

/// What a reader may get out of a text: itself, and whatever of it is in escapes or in base64.
fn readable(text: &str) -> String {
    let mut view = View::of(text);
    let mut readable = text.to_owned();
    while let Some(decoded) = view.decoded() {
        view = decoded;
        readable.push_str(&String::from_utf8_lossy(view.bytes()));
    }
    let decoded = view.bytes();
    for start in 0..decoded.len() {
        for slashes_are_letters in [true, false] {
            readable.push_str(&base64::Text::at(&decoded[start..], slashes_are_letters).text);
        }
    }
    readable
}

fn percent_encoded(text: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode = |byte: u8| match is_kept(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// As Go writes it, and others that mean it for a script in a page.
fn json_for_html(text: &str) -> String {
    let json = json(text).replace('&', "\\u0026").replace('=', "\\u003d");
    json.replace('<', "\\u003c").replace('/', "\\/")
}

fn html(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;");
    escaped.replace('\'', "&#39;")
}

/// As templates write it that escape everything.
fn html_of_templates(text: &str) -> String {
    html(text).replace('/', "&#x2F;").replace('=', "&#x3D;")
}

#[test]
fn signatures_are_replaced_and_their_keys_kept() {
    let cases = [
        ("", ""),
        ("w=300&h=200", "w=300&h=200"),
        ("sig=abc", "sig=REDACTED"),
        ("w=1&sig=abc%3D&h=2", "w=1&sig=REDACTED&h=2"),
        ("%73ig=abc", "%73ig=REDACTED"),
        (
            "X-Amz-Signature=a&X-Amz-Credential=b&X-Amz-Security-Token=c&X-Goog-Signature=d",
            "X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED&X-Goog-Signature=REDACTED",
        ),
        ("sig=a=b&sig=c", "sig=REDACTED&sig=REDACTED"),
        ("SIG=a&Sig=b", "SIG=REDACTED&Sig=REDACTED"),
        (
            "design=kept&sig&signature_version=4",
            "design=kept&sig&signature_version=4",
        ),
        (
            "tokens[]=1&campsig=2&token_type[a]=3&amp=4",
            "tokens[]=1&campsig=2&token_type[a]=3&amp=4",
        ),
        ("sig=a;w=1;h=2", "sig=REDACTED;w=1;h=2"),
        ("sig=a;b&w=1", "sig=REDACTED&w=1"),
        ("sig=a;;b;", "sig=REDACTED;"),
        ("sig=&token=&h=1", "sig=&token=&h=1"),
        ("&&a=%zz&", "&&a=%zz&"),
    ];
    for (given, expected) in cases {
        assert_eq!(query(given), expected, "{given}");
    }
}

#[test]
fn the_keys_are_settable() {
    let redaction = Redaction {
        sensitive_keys: Some(vec!["token".to_owned()]),
        ..Redaction::default()
    };
    assert_eq!(redaction.query("Token=a&sig=b"), "Token=REDACTED&sig=b");
}

#[test]
fn urls_lose_credentials_signatures_and_fragments() {
    let cases = [
        (
            "https://cdn.example/cat.jpg",
            "https://cdn.example/cat.jpg",
            Some("https://cdn.example"),
        ),
        (
            "https://user:pass@cdn.example:8443/cat.jpg?sig=x#frag",
            "https://REDACTED:REDACTED@cdn.example:8443/cat.jpg?sig=REDACTED",
            Some("https://cdn.example:8443"),
        ),
        (
            "http://a@b@[::1]:80?q=@",
            "http://REDACTED:REDACTED@[::1]:80?q=@",
            Some("http://[::1]:80"),
        ),
        (
            "s3://bucket/key@2x.png",
            "s3://bucket/key@2x.png",
            Some("s3://bucket"),
        ),
        ("local/cat.jpg?sig=x", "local/cat.jpg?sig=REDACTED", None),
        ("https:///nohost", "https:///nohost", None),
        ("?://", "?://", None),
        ("", "", None),
    ];
    for (given, expected, expected_origin) in cases {
        assert_eq!(url(given), expected, "{given}");
        assert_eq!(origin(given).as_deref(), expected_origin, "{given}");
    }
}

#[test]
fn a_source_is_recorded_as_far_as_asked_for() {
    let source = "https://user:pass@cdn.example/a.jpg?w=1&sig=x#f";
    for (source_urls, expected, in_path) in [
        (
            SourceUrls::Full,
            Some("https://REDACTED:REDACTED@cdn.example/a.jpg?w=1&sig=x#f"),
            "/plain/https://REDACTED:REDACTED@cdn.example/a.jpg@png",
        ),
        (
            SourceUrls::Redacted,
            Some("https://REDACTED:REDACTED@cdn.example/a.jpg?w=1&sig=REDACTED"),
            "/plain/https://REDACTED:REDACTED@cdn.example/a.jpg@png",
        ),
        (SourceUrls::OriginOnly, None, "/plain/https://cdn.example"),
    ] {
        let redaction = Redaction {
            source_urls,
            ..Redaction::default()
        };
        assert_eq!(redaction.source_url(source).as_deref(), expected);
        let path = redaction.path("/plain/https://user:pass@cdn.example/a.jpg@png");
        assert_eq!(path, in_path);
    }
}

#[test]
fn paths_without_secrets_stay_as_they_are() {
    for given in [
        "/",
        "",
        "/rs:fill:300:200/q:80/plain/https://cdn.example/cat.jpg@webp",
        "/plain/https%3A%2F%2Fcdn.example%2Fcat%3Fw%3D1",
        "/images/a%20b.jpg",
        "/sig/aHR0cHM6Ly9jZG4uZXhhbXBsZS9jYXQuanBn.webp",
        "/resize/aHR0/cDov/L",
        "/thumbs.v1.Thumbnailer/Resize",
        "/a:/b",
        "/%",
    ] {
        assert!(
            matches!(Redaction::default().path(given), Cow::Borrowed(_)),
            "{given}"
        );
        assert_eq!(path(given), given);
    }
}

#[test]
fn sources_in_paths_are_redacted_however_they_are_written() {
    let source = "https://user:s3cret@cdn.example/private/cat.jpg?w=300&sig=t0ken&h=200#t0ken";
    let encoded = base64::encode(source.as_bytes());
    let split = |width: usize| {
        let chunks: Vec<_> = encoded.as_bytes().chunks(width).collect();
        String::from_utf8(chunks.join(&b'/')).unwrap()
    };
    let percent: String = source.bytes().map(|byte| format!("%{byte:02x}")).collect();
    // With a `+` in the alphabet that is not URL-safe, and with a scheme of two letters.
    let plus = base64::encode(b"https://cdn.example/~~~?sig=t0ken").replace('-', "+");
    assert!(plus.contains('+'));
    let s3 = base64::encode(b"s3://key:s3cret@cdn.example/cat.jpg?sig=t0ken");
    for given in [
        format!("/sig/{plus}.webp"),
        format!("/sig/{s3}.webp"),
        format!("/rs:fill:300:200/plain/{source}"),
        format!("/plain/{}@webp", percent_encoded(source)),
        format!("/plain/{percent}@webp"),
        format!("/plain/{}", percent_encoded(&percent)),
        format!("/plain/{}", source.replacen("//", "/", 1)),
        format!("/sig/rs:fill/{encoded}.webp"),
        format!("/sig/rs:fill/{encoded}"),
        format!("/sig/{encoded}/300x200"),
        format!("/sig/{encoded}==.png"),
        format!("/{}.png", split(16)),
        format!("/{}", split(5)),
        format!("/wmu:{encoded}/plain/https://cdn.example/cat.jpg"),
        format!("/plain/https://cdn.example/{source}"),
        format!("/fetch?url={source}"),
        format!("/fetch?url={percent}"),
        format!("/fetch?url={encoded}"),
        format!("/fetch?{source}"),
        format!("/fetch?{encoded}=="),
    ] {
        let redacted = path(&given);
        let readable = readable(&redacted);
        assert!(!readable.contains("s3cret"), "{given} {redacted}");
        assert!(!readable.contains("t0ken"), "{given} {redacted}");
        assert!(readable.contains("cdn.example"), "{given} {redacted}");
    }
}

#[test]
fn the_rest_of_a_text_keeps_its_form() {
    for (given, expected) in [
        (
            "/plain/https%3A%2F%2Fu:p@cdn.example/100%2525.jpg",
            "/plain/https%3A%2F%2FREDACTED:REDACTED@cdn.example/100%2525.jpg",
        ),
        (
            "https://cdn.example/a%23b.jpg?u=https%3A%2F%2Fb%2F%23f&w=1&sig=S#f",
            "https://cdn.example/a%23b.jpg?u=https%3A%2F%2Fb%2F&w=1&sig=REDACTED",
        ),
        (
            r#"{"url":"https:\/\/u:p@b\/?w=1\u0026sig=S","tries":3}"#,
            r#"{"url":"https:\/\/REDACTED:REDACTED@b\/?w=1\u0026sig=REDACTED","tries":3}"#,
        ),
        (
            r#"{\"token\":\"S\",\"sig\" : \"S\",\"w\":\"kept\"}"#,
            r#"{\"token\":\"REDACTED\",\"sig\" : \"REDACTED\",\"w\":\"kept\"}"#,
        ),
        (
            "GET https://h/?w=1&#38;h=2 <Signature>S</Signature>kept <b>kept</b>",
            "GET https://h/?w=1&#38;h=2 <Signature>REDACTED</Signature>kept <b>kept</b>",
        ),
    ] {
        assert_eq!(message(given), expected);
    }
}

/// Faults A2, F16.
#[test]
fn every_default_key_is_redacted_in_any_case() {
    for key in SENSITIVE_KEYS {
        for key in [key.to_owned(), key.to_lowercase(), key.to_uppercase()] {
            assert_eq!(
                query(&format!("w=1&{key}=S")),
                format!("w=1&{key}=REDACTED")
            );
        }
    }
    let s3_v2 = "AWSAccessKeyId=AKIA&Expires=1141889120&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D";
    assert_eq!(
        query(s3_v2),
        "AWSAccessKeyId=REDACTED&Expires=1141889120&Signature=REDACTED"
    );
    let cloud_front = "Policy=eyJ&Signature=a~b-c_&Key-Pair-Id=K2";
    assert_eq!(
        query(cloud_front),
        "Policy=REDACTED&Signature=REDACTED&Key-Pair-Id=REDACTED"
    );
}

/// Faults F16.
#[test]
fn the_signature_of_an_imgproxy_path_is_redacted() {
    let whole = "AfrOrF3gWeDA6VOlDG4TzxMv39O7MXnF4CXpKUwGqRM";
    let source = base64::encode(b"https://cdn.example/cat.jpg");
    for signature in [
        whole,
        &whole[..11],
        &format!("{}==", &whole[..22]),
        "REDACTED",
    ] {
        for rest in [
            // With presets only, one of which is asked for.
            "thumbnail/plain/https://cdn.example/cat.jpg",
            "thumb-nail_2/enc/LwrB0hD8ej8k",
            &format!("thumbnail/{source}.png"),
            "thumb-nail:blurry/plain/https://cdn.example/cat.jpg",
            "rs:fill:300:400/plain/local:///cat.jpg",
            "plain/https://cdn.example/cat.jpg@png",
            "plain/cat.jpg",
            "enc/LwrB0hD8ej8k",
            &format!("{source}.png"),
            &format!("q:80/{source}.png"),
        ] {
            for before in ["/", "/info/", "https://img.example/"] {
                assert_eq!(
                    path(&format!("{before}{signature}/{rest}")),
                    format!("{before}REDACTED/{rest}")
                );
            }
            let encoded = percent_encoded(&format!("https://img.example/{signature}/{rest}"));
            assert!(!readable(&query(&format!("url={encoded}"))).contains(whole));
        }
    }
    for given in [
        "/resize/rs:fill:300:400/plain/cat.jpg",
        "/imageProxy/rs:fill:300:400/plain/cat.jpg",
        "/thumbnails/w:300/cat.jpg",
        "/insecure/rs:fill/plain/cat.jpg",
        "/AfrOrF3gWeDA6VOlDG4TzxMv39O7MXnF4CXpKUwGqRM/cat.jpg",
        "/AfrOrF3gWeDA6VOlDG4TzxMv39O7MXnF4CXpKUwGqRM/thumbnail/cat.jpg",
        "/AfrOrF3gWeDA6VOlDG4TzxMv39O7MXnF4CXpKUwGqRM/a.b/plain/cat.jpg",
        "/300x200/plain/cat.jpg",
        "/imageProxy/insecure/plain/cat.jpg",
    ] {
        assert_eq!(path(given), given);
    }
}

/// Faults F15.
#[test]
fn secrets_are_found_at_every_nesting() {
    for given in [
        "bot (+https://user:S3CRET@h/)",
        "GET https://h/?w=1&amp;sig=S3CRET failed",
        "GET https://h/?w=1&#38;sig=S3CRET failed",
        r"GET https://h/?w=1\u0026sig=S3CRET failed",
        r"GET https://h/?w=1\x26sig=S3CRET failed",
        r"https:\/\/user:S3CRET@h",
        r"https:\\/\\/user:S3CRET@h",
        r"https:\\user:S3CRET@h\",
        "https:user:S3CRET@h",
        "https:////user:S3CRET@h",
        "//user:S3CRET@h/",
        "(//S3CRET@h/)",
        "/plain//user:S3CRET@h/cat.jpg",
        "https://user:/S3CRET@h/",
        "https://user:a?S3CRET@h/",
        "https://user:a#S3CRET@h/",
        "https://user%3AS3CRET@h/",
        "https%3A//user:S3CRET%40h/",
        "?w=1;sig=S3CRET",
        "??sig=S3CRET",
        "?w=1?sig=S3CRET",
        "?%2573ig=S3CRET",
        "?%252573ig=S3CRET",
        "?a=1%26sig=S3CRET",
        "?%73ig=a%26S3CRET",
        "?params[sig]=S3CRET",
        "?params%5Bsig%5D=S3CRET",
        "?token[]=S3CRET",
        "?token%5B%5D=S3CRET",
        "?token[0]=S3CRET",
        "?token%5bvalue%5d=S3CRET",
        "?params[sig][0]=S3CRET",
        "?[sig]=S3CRET",
        "?sig%20=S3CRET",
        "?sig+=S3CRET",
        "?w=1&ampsig=S3CRET",
        "?w=1&AMPsig[]=S3CRET",
        "?password=a;S3CRET",
        "?password=a;b;S3CRET&w=1",
        "?password=a%3BS3CRET",
        "?password=a&#59;S3CRET",
        "sig=S3CRET",
        "(sig=S3CRET)",
        r#"keyId="a",signature="S3CRET""#,
        r#"{"access_token":"S3CRET","a":1}"#,
        r#"{"access_token" : "S3CRET"}"#,
        r#"{"Code" : "Success", "Token" : "S3CRET"}"#,
        "{'token'\t\r\n:\n'S3CRET'}",
        r#"{\"token\"\n: \"S3CRET\"}"#,
        r#"{"token": ["S3CRET"]}"#,
        r#"{\"token\":\"S3CRET\"}"#,
        r#"Credentials { user: "a", password: "S3CRET" }"#,
        r#"Url { scheme: "https", password: Some("S3CRET"), host: Some(Domain("h")) }"#,
        "password = S3CRET",
        "password\t =  S3CRET",
        "sig =S3CRET",
        "password = 'a S3CRET'",
        r#""token" = "S3CRET""#,
        "<Error><AWSAccessKeyId>S3CRET</AWSAccessKeyId></Error>",
        "<Error><Code>ExpiredToken</Code><Token-0>S3CRET</Token-0></Error>",
        "<CanonicalRequest>GET\n/a\n\nx-amz-security-token:S3CRET\n\nhost</CanonicalRequest>",
        "<CanonicalRequestBytes>47 45 S3CRET</CanonicalRequestBytes>",
        "<StringToSignBytes>47 45 S3CRET</StringToSignBytes>",
        "<ArgumentName>Authorization</ArgumentName><ArgumentValue>Basic S3CRET</ArgumentValue>",
        "<Signature xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">S3CRET</Signature>",
        "<s3:Signature\n>S3CRET</s3:Signature>",
        "<Signature><![CDATA[S3CRET]]></Signature>",
        "<Signature>a<!-- b --><![CDATA[S3CRET",
        "&lt;Signature&gt;&lt;![CDATA[S3CRET]]&gt;&lt;/Signature&gt;",
        "&lt;AWSAccessKeyId&gt;S3CRET&lt;/AWSAccessKeyId&gt;",
        "#access_token=S3CRET&state=a",
        "/cat.jpg#access_token=S3CRET",
        "a\\nX-Amz-Signature=S3CRET",
    ] {
        let url = |text: &str| url(text).into_owned();
        let redactions: [&dyn Fn(&str) -> String; 4] = [&message, &path, &query, &url];
        for redact in redactions {
            let redacted = redact(given);
            assert!(
                !readable(&redacted).contains("S3CRET"),
                "{given}: {redacted}"
            );
            assert_eq!(redact(&redacted), redacted, "{given}");
        }
    }
}

/// Faults F15: what browsers, S3 and services write around a URL.
#[test]
fn secrets_are_found_however_a_url_is_written() {
    let urls = [
        "https://user:S3CRET@h/cat.jpg?w=1&sig=S3CRET&h=2",
        "//user:S3CRET@h/cat.jpg",
        "/cat.jpg?w=1;sig=S3CRET",
        "??X-Goog-Signature=S3CRET",
    ];
    let in_base64 = |text: &str| base64::encode(text.as_bytes());
    let in_standard_base64 = |text: &str| {
        base64::encode(text.as_bytes())
            .replace('-', "+")
            .replace('_', "/")
    };
    type Form<'a> = (&'a str, &'a dyn Fn(&str) -> String);
    let forms: [Form<'_>; 9] = [
        ("plain", &str::to_owned),
        ("percent", &percent_encoded),
        ("JSON", &json),
        ("JSON for HTML", &json_for_html),
        ("HTML", &html),
        ("HTML of templates", &html_of_templates),
        ("base64", &in_base64),
        ("standard base64", &in_standard_base64),
        ("parentheses", &|text| format!("({text})")),
    ];
    for given in urls {
        for (first, inner) in &forms {
            for (second, outer) in &forms {
                for (third, outermost) in &forms {
                    // Only what begins with a scheme is looked for in base64.
                    let names = [first, second, third];
                    let base64 = names.iter().position(|name| name.ends_with("base64"));
                    let before = base64.map_or(&names[..0], |index| &names[..index]);
                    let is_scheme_first =
                        before.iter().all(|name| matches!(**name, "plain" | "HTML"));
                    let is_once = names.iter().filter(|name| name.ends_with("base64")).count() < 2;
                    if base64.is_some()
                        && !(is_scheme_first && is_once && given.starts_with("https"))
                    {
                        continue;
                    }
                    let text = outermost(&outer(&inner(given)));
                    let redacted = message(&format!("cannot fetch {text}: refused"));
                    assert!(
                        !readable(&redacted).contains("S3CRET"),
                        "{names:?} {text}: {redacted}"
                    );
                    assert_eq!(message(&redacted), redacted, "{names:?}");
                }
            }
        }
    }
}

#[test]
fn urls_in_messages_are_redacted() {
    assert_eq!(
        message("error sending request for url (https://u:p@cdn.example/a.jpg?sig=x): timed out"),
        "error sending request for url (https://REDACTED:REDACTED@cdn.example/a.jpg?sig=REDACTED timed out"
    );
    assert_eq!(
        message("no \"http://u:p@a/\"\nand <http://b/?sig=x>"),
        "no \"http://REDACTED:REDACTED@a/\"\nand <http://b/?sig=REDACTED>"
    );
    assert_eq!(
        message("no answer to /cat.jpg?w=1&sig=x"),
        "no answer to /cat.jpg?w=1&sig=REDACTED"
    );
    assert_eq!(
        message("token=a; Path=/; Secure"),
        "token=REDACTED; Path=/; Secure"
    );
    assert_eq!(
        message("{\"url\":\"http://b/?sig=x\",\"tries\":3}"),
        "{\"url\":\"http://b/?sig=REDACTED\",\"tries\":3}"
    );
    for kept in [
        "index 4 of 3: 50 % done",
        "\"GET /secret/cat.jpg\" : refused",
        "\"secret.png\": no such file",
        "the token: refused",
        "missing token= in the query",
        "if token == other",
        "no <Signature/> in <b>kept</b>",
        "no <Signature /> in <b>kept</b>",
        "name: \"kept\", host: Some(\"kept\")",
    ] {
        assert_eq!(message(kept), kept);
    }
}

#[test]
fn what_is_nested_too_deep_is_redacted_unread() {
    let three_deep = "http://a/?u=".repeat(3) + "http://b/";
    assert_eq!(path(&three_deep), three_deep);
    let nested = "http://a/?u=".repeat(1000) + "http://user:s3cret@b/";
    let redacted = path(&nested);
    assert!(!redacted.contains("s3cret"), "{redacted}");
    assert!(redacted.contains(REDACTED));

    let mut encoded = "https://user:s3cret@h/".to_owned();
    for _ in 0..20 {
        encoded = percent_encoded(&encoded);
    }
    assert_eq!(path(&encoded), REDACTED);

    let mut nested = "https://user:s3cret@h/".to_owned();
    for _ in 0..8 {
        nested = format!("http://a/{}", base64::encode(nested.as_bytes()));
    }
    let redacted = path(&nested);
    assert_ne!(redacted, nested);
    assert!(!readable(&redacted).contains("s3cret"));
}

/// Pieces of what is looked for, whole and broken.
const PIECES: &[&str] = &[
    "é",
    "://",
    ":/",
    ":",
    "%",
    "%3A",
    "%2F",
    "%e9",
    "%25",
    "?",
    "#",
    "@",
    "http",
    "https",
    "s3",
    "/",
    "//",
    "\\",
    "\\/",
    "\\u0026",
    "\\u003d",
    "\\\\",
    "&",
    "&amp;",
    "&#x2F;",
    "&#61;",
    "&lt;",
    ";",
    "=",
    "sig=",
    "token",
    "\"",
    "\":\"",
    "'",
    "<",
    ">",
    "<Signature>",
    "</Signature>",
    "<Token-0 a=",
    "<![CDATA[",
    "\" : \"",
    "' :",
    ": \"",
    "Some(",
    " = ",
    "password",
    "token[",
    "[sig]",
    "&amp",
    "aHR0cHM6Ly9h",
    "aHR0cHM6Ly91OnBAaC8",
    "aHR0cDovL3U6cEBoLz9zaWc9cw==",
    "plain/",
    "thumbnail/",
    "rs:fill/",
    "AfrOrF3gWeDA6VOlDG4TzxMv39O7MXnF4CXpKUwGqRM",
    "a",
    "-",
    "_",
    "+",
    " ",
    "\u{0}",
    "\n",
    ".",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "1",
];

fn text() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(PIECES);
    let pieces = proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat());
    prop_oneof![pieces, "\\PC{0,60}"]
}

/// A URL or a piece of a query, of JSON or of XML with a secret in it.
fn secret() -> impl Strategy<Value = String> {
    let key = || proptest::sample::select(&SENSITIVE_KEYS[..]);
    let user = "https?:///?[a-z]{1,8}:S3CRET@[a-z]{1,8}(:[0-9]{2,4})?(/[a-z.]{0,8})?";
    let index = "(\\[[a-z0-9]{0,2}\\]){0,2}\\+?";
    let pair = (
        key(),
        index,
        "[a-z]{1,4}=[a-z]{0,4}[&;]",
        "[a-z0-9%+/]{0,4}",
    )
        .prop_map(|(key, index, before, rest)| format!("?{before}{key}{index}=S3CRET{rest}&h=1"));
    let member = (key(), "[ \n]{0,2}:[ \n]{0,2}")
        .prop_map(|(key, colon)| format!("{{\"{key}\"{colon}\"S3CRET\"}}"));
    let element = (key(), "( a=\"b\")?>(<!\\[CDATA\\[)?")
        .prop_map(|(key, end_of_tag)| format!("<{key}{end_of_tag}S3CRET</{key}>"));
    prop_oneof![user.prop_map(|url| url), pair, member, element]
}

fn form() -> impl Strategy<Value = fn(&str) -> String> {
    fn same(text: &str) -> String {
        text.to_owned()
    }
    let forms: [fn(&str) -> String; 6] = [
        same,
        percent_encoded,
        json,
        json_for_html,
        html,
        html_of_templates,
    ];
    proptest::sample::select(forms.to_vec())
}

proptest! {
    #[test]
    fn no_text_panics_and_nothing_changes_twice(text in text()) {
        for source_urls in [SourceUrls::Full, SourceUrls::Redacted, SourceUrls::OriginOnly] {
            let redaction = Redaction {
                source_urls,
                ..Redaction::default()
            };
            if is_plain(&text) {
                prop_assert_eq!(redaction.scan(&text, Kind::Text, 0), &*text);
            }
            let once = redaction.message(&text).into_owned();
            prop_assert_eq!(redaction.message(&once), &*once, "{}", text);
            let once = redaction.query(&text).into_owned();
            prop_assert_eq!(redaction.query(&once), &*once, "{}", text);
            if let Some(once) = redaction.source_url(&text) {
                prop_assert_eq!(redaction.source_url(&once), Some(Cow::Borrowed(&*once)), "{}", text);
            }
        }
        origin(&text);
    }

    #[test]
    fn a_planted_secret_never_survives(
        before in "[a-z0-9 (,.]{0,12}",
        secret in secret(),
        forms in proptest::collection::vec(form(), 0..3),
        after in "[a-z0-9 ),.]{0,12}",
    ) {
        let text = forms.iter().fold(secret, |text, form| form(&text));
        let text = format!("{before} {text} {after}");
        for source_urls in [SourceUrls::Redacted, SourceUrls::OriginOnly] {
            let redaction = Redaction {
                source_urls,
                ..Redaction::default()
            };
            for redacted in [redaction.message(&text), redaction.query(&text)] {
                prop_assert!(!readable(&redacted).contains("S3CRET"), "{}: {}", text, redacted);
            }
        }
    }
}
