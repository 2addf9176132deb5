//! URLs are resolved and percent-encoded as RFC 3986 says.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    http::{StatusCode, Uri},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Limits, Service, serve, url};

/// RFC 3986 §5.4.
const BASE: &str = "http://a/b/c/d;p?q";

#[test]
fn references_are_resolved_as_in_the_examples_of_the_rfc() {
    // faults E5
    for (reference, expected) in [
        // §5.4.1, normal examples.
        ("g:h", "g:h"),
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q#s"),
        ("g#s", "http://a/b/c/g#s"),
        ("g?y#s", "http://a/b/c/g?y#s"),
        (";x", "http://a/b/c/;x"),
        ("g;x", "http://a/b/c/g;x"),
        ("g;x?y#s", "http://a/b/c/g;x?y#s"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../", "http://a/"),
        ("../../g", "http://a/g"),
        // §5.4.2, abnormal examples.
        ("../../../g", "http://a/g"),
        ("../../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        (".g", "http://a/b/c/.g"),
        ("g..", "http://a/b/c/g.."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/./x", "http://a/b/c/g?y/./x"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("g#s/./x", "http://a/b/c/g#s/./x"),
        ("g#s/../x", "http://a/b/c/g#s/../x"),
        ("http:g", "http:g"),
    ] {
        assert_eq!(url::resolve(BASE, reference), expected, "{reference}");
    }
    // Not among the RFC's: a base without a path, and a colon that ends no scheme.
    assert_eq!(url::resolve("http://a", "g"), "http://a/g");
    assert_eq!(url::resolve("http://a?q", "?y"), "http://a?y");
    assert_eq!(url::resolve(BASE, "./1:2"), "http://a/b/c/1:2");
    assert_eq!(url::resolve(BASE, "g?x=y:z"), "http://a/b/c/g?x=y:z");
    assert_eq!(url::resolve(BASE, "http://x/../y/./z"), "http://x/y/z");
    assert_eq!(url::resolve(BASE, "/a//../b"), "http://a/a/b");
}

/// An origin that has a picture everywhere, and remembers where it was asked for.
async fn origin(asked: Arc<Mutex<Vec<String>>>) -> Service {
    let router = Router::new().fallback(async move |uri: Uri| {
        asked.lock().unwrap().push(uri.to_string());
        include_bytes!("pictures/icc_swapped.png").as_slice()
    });
    Service::with(serve(router).await, Limits::default()).await
}

#[tokio::test]
async fn the_path_of_a_source_is_percent_encoded() {
    // faults E4
    let asked = Arc::default();
    let service = origin(Arc::clone(&asked)).await;
    for (path, expected) in [
        ("/größe.png".as_bytes(), "/gr%C3%B6%C3%9Fe.png"),
        (b"/a b.png", "/a%20b.png"),
        ("/猫/🐈.png".as_bytes(), "/%E7%8C%AB/%F0%9F%90%88.png"),
        (b"/gr\xf6\xdfe.png", "/gr%F6%DFe.png"),
        (b"/a\tb\r\nc\x7f\0.png", "/a%09b%0D%0Ac%7F%00.png"),
        (
            b"/\"<>\\^`{|}[].png",
            "/%22%3C%3E%5C%5E%60%7B%7C%7D%5B%5D.png",
        ),
        (b"/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@"),
        (b"/100%.png", "/100%25.png"),
        (b"/%zz%4", "/%25zz%254"),
        // Encoded already.
        (b"/a%20b%c3%bc%2F.png", "/a%20b%c3%bc%2F.png"),
        (
            "/a?name=größe und [1]&b=c/d?".as_bytes(),
            "/a?name=gr%C3%B6%C3%9Fe%20und%20%5B1%5D&b=c/d?",
        ),
        // The fragment is for the client.
        ("/a.png#ü b".as_bytes(), "/a.png"),
        ("?ü".as_bytes(), "/?%C3%BC"),
    ] {
        let mut url = format!("http://{}", service.origin).into_bytes();
        url.extend_from_slice(path);
        let base64 = URL_SAFE_NO_PAD.encode(&url);
        let plain: String = url.iter().map(|byte| format!("%{byte:02x}")).collect();
        for source in [base64, format!("plain/{plain}")] {
            let answer = service.get(&format!("/resize/w:9/{source}")).await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{expected}: {}",
                answer.text()
            );
            assert_eq!(
                asked.lock().unwrap().drain(..).collect::<Vec<_>>(),
                [expected]
            );
        }
    }
}
