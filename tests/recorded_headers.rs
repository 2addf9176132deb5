//! Headers are recorded by allow-list only.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry::{Array, Value};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Recorder, recorder::Span};

async fn root(content_type: &str) -> Span {
    let recorder = Recorder::new();
    let layer = recorder
        .builder()
        .request_headers("x-tag, referer, x-absent".parse().unwrap())
        .response_headers("etag".parse().unwrap())
        .build();
    let service = layer.layer(service_fn(|_| async {
        let response = Response::builder()
            .header("etag", "\"1\"")
            .header("x-private", "1");
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    }));
    let request = Request::post("/thumbs.v1.Thumbnailer/Resize")
        .header("content-type", content_type)
        .header("X-Tag", "a")
        .header("x-tag", "b")
        .header("referer", "https://u:p@images.example/?sig=x")
        .header("authorization", "Bearer secret")
        .header("x-private", "1");
    service.oneshot(request.body(()).unwrap()).await.unwrap();
    recorder.root()
}

fn lines(span: &Span, key: &str) -> Option<Vec<String>> {
    let attribute = span
        .0
        .attributes
        .iter()
        .find(|pair| pair.key.as_str() == key)?;
    match &attribute.value {
        Value::Array(Array::String(lines)) => Some(lines.iter().map(ToString::to_string).collect()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn headers_on_the_list_are_arrays_of_their_lines() {
    for (content_type, request, response) in [
        ("text/plain", "http.request.header", "http.response.header"),
        (
            "application/grpc",
            "rpc.request.metadata",
            "rpc.response.metadata",
        ),
    ] {
        let root = root(content_type).await;
        let recorded: Vec<_> = root
            .keys()
            .into_iter()
            .filter(|key| key.contains("header.") || key.contains("metadata."))
            .map(str::to_owned)
            .collect();
        let expected = [
            format!("{request}.referer"),
            format!("{request}.x-tag"),
            format!("{response}.etag"),
        ];
        assert_eq!(recorded, expected);
        assert_eq!(lines(&root, &expected[1]).unwrap(), ["a", "b"]);
        assert_eq!(lines(&root, &expected[2]).unwrap(), ["\"1\""]);
        assert_eq!(
            lines(&root, &expected[0]).unwrap(),
            ["https://REDACTED:REDACTED@images.example/?sig=REDACTED"]
        );
    }
}
