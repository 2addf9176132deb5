use super::*;

fn query(text: &str) -> String {
    Redaction::default().query(text).into_owned()
}

fn path(text: &str) -> String {
    Redaction::default().path(text).into_owned()
}

/// What a reader may get out of a text: itself, and whatever of it is percent-encoded or base64.
fn readable(text: &str) -> String {
    let decoded = percent::decoded(&percent::decoded(text)).into_owned();
    let mut readable = decoded.clone();
    for start in 0..decoded.len() {
        for skip_slashes in [true, false] {
            let letters = decoded.bytes().skip(start);
            let letters =
                letters.take_while(|letter| base64::has(char::from(*letter)) || *letter == b'/');
            let letters = letters.filter(|letter| !skip_slashes || *letter != b'/');
            let bytes = base64::decode(letters).unwrap_or_default();
            readable.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    readable
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
        ("SIG=kept&design=kept&sig", "SIG=kept&design=kept&sig"),
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
    assert_eq!(redaction.query("token=a&sig=b"), "token=REDACTED&sig=b");
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
        format!("/plain/{}@webp", percent::encoded(source)),
        format!("/plain/{percent}@webp"),
        format!("/plain/{}", percent::encoded(&percent)),
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
fn what_was_encoded_twice_stays_so() {
    assert_eq!(
        path("/plain/https%3A%2F%2Fu:p@cdn.example/100%2525.jpg"),
        "/plain/https://REDACTED:REDACTED@cdn.example/100%2525.jpg"
    );
}

#[test]
fn urls_in_messages_are_redacted() {
    let message = Redaction::default();
    let message = |text| message.message(text).into_owned();
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
        message("{\"url\":\"http://b/?sig=x\",\"tries\":3}"),
        "{\"url\":\"http://b/?sig=REDACTED\",\"tries\":3}"
    );
    assert_eq!(
        message("index 4 of 3: 50 % done"),
        "index 4 of 3: 50 % done"
    );
}

#[test]
fn what_is_nested_too_deep_is_redacted_unseen() {
    let three_deep = "http://a/?u=".repeat(3) + "http://b/";
    assert_eq!(path(&three_deep), three_deep);
    let nested = "http://a/?u=".repeat(1000) + "http://user:s3cret@b/";
    let redacted = path(&nested);
    assert!(!redacted.contains("s3cret"), "{redacted}");
    assert!(redacted.contains(REDACTED));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "é", "://", ":/", "%", "%3A", "%2F", "%e9", "?", "#", "@", "http", "aHR0cHM6Ly9h",
                "/", "=", "&", "sig=", "a", " ", "\u{0}", ".",
            ]),
            0..30,
        ),
    ) {
        let text = pieces.concat();
        for source_urls in [SourceUrls::Full, SourceUrls::Redacted, SourceUrls::OriginOnly] {
            let redaction = Redaction {
                source_urls,
                ..Redaction::default()
            };
            redaction.path(&text);
            redaction.query(&text);
            redaction.message(&text);
            redaction.source_url(&text);
        }
        origin(&text);
    }
}
