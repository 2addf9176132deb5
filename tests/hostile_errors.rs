//! Errors and texts of any kind reach the caller as they are, and the span within bounds.

use std::{convert::Infallible, error::Error, fmt, io};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use opentelemetry::{Array, KeyValue, Value};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_image_trace::{DownloadLayer, ErrorKind, RequestTrace, trace::HeaderAllowList};

use crate::support::{Recorder, body::Fed, download::builder};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Hostile {
    IsItsOwnSource,
    DisplayPanics,
    DisplayFails,
    SourcePanics,
    Huge,
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisplayPanics => panic!("in Display"),
            Self::DisplayFails => Err(fmt::Error),
            Self::Huge => (0..1 << 20).try_for_each(|_| f.write_str("ten bytes ")),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Error for Hostile {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::IsItsOwnSource => Some(self),
            Self::SourcePanics => panic!("in source"),
            _ => None,
        }
    }
}

const ALL: [(Hostile, &str); 5] = [
    (Hostile::IsItsOwnSource, "IsItsOwnSource"),
    (
        Hostile::DisplayPanics,
        "(the Display of this error panicked)",
    ),
    (Hostile::DisplayFails, "(the Display of this error failed)"),
    (Hostile::SourcePanics, "SourcePanics"),
    (Hostile::Huge, "ten bytes ten bytes "),
];

/// The messages of all spans, one exception each.
fn assert_messages(recorder: &Recorder, spans: usize, expected: &str) {
    assert_eq!(recorder.spans().len(), spans);
    for span in recorder.spans() {
        for message in span.exceptions() {
            assert!(message.starts_with(expected), "{message}");
            assert!(message.len() <= 4096, "{}", message.len());
            assert_eq!(message.len() > 4000, message.ends_with('…'));
        }
        assert!(!span.exceptions().is_empty(), "{span:#?}");
    }
}

// faults F1, F2, F3
#[tokio::test]
async fn an_error_of_the_service_comes_back_as_it_is() {
    for (error, expected) in ALL {
        let known = Recorder::new();
        let layer = known.builder().record_errors_as::<Hostile>().build();
        let fails =
            service_fn(
                move |_: Request<()>| async move { Err::<Response<Empty<Bytes>>, _>(error) },
            );
        let came = layer.layer(fails).oneshot(Request::new(())).await;
        assert_eq!(came.unwrap_err(), error);
        assert_messages(&known, 1, expected);

        let unknown = Recorder::new();
        let came = unknown.layer().layer(fails).oneshot(Request::new(())).await;
        assert_eq!(came.unwrap_err(), error);
        assert_messages(&unknown, 1, expected);

        let boxed = Recorder::new();
        let fails = service_fn(move |_: Request<()>| async move {
            Err::<Response<Empty<Bytes>>, BoxError>(Box::new(error))
        });
        let came = boxed.layer().layer(fails).oneshot(Request::new(())).await;
        assert_eq!(came.unwrap_err().downcast_ref(), Some(&error));
        assert_messages(&boxed, 1, expected);
    }
}

// faults F1, F2, F3
#[tokio::test]
async fn an_error_of_a_body_comes_back_as_it_is() {
    for (error, expected) in ALL {
        let recorder = Recorder::new();
        let service = recorder.layer().layer(service_fn(move |_: Request<()>| {
            let frames: [Fed; 1] = [Err(io::Error::other(error))];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            async { Ok::<_, Infallible>(Response::new(body)) }
        }));
        let response = service.oneshot(Request::new(())).await.unwrap();
        let came = response.into_body().collect().await.unwrap_err();
        assert_eq!(came.get_ref().unwrap().downcast_ref(), Some(&error));
        assert_messages(&recorder, 1, expected);
    }
}

// faults F1, F2, F3
#[tokio::test]
async fn an_error_of_stages_and_downloads_comes_back_as_it_is() {
    for (error, expected) in ALL {
        let recorder = Recorder::new();
        let attempts = builder(&recorder);
        let attempts = attempts.record_errors_as::<Hostile>().build();
        let service = recorder.layer().layer(service_fn(|request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let attempts: DownloadLayer = attempts.clone();
            async move {
                trace.error(ErrorKind::Security, &error);
                let fails = async { Err::<(), _>(error) };
                assert_eq!(trace.queue().run(fails).await, Err(error));
                let fails = move || Err::<(), _>(error);
                assert_eq!(trace.stream().run_blocking(fails).await, Err(error));
                let client = attempts.layer(service_fn(async |_: Request<()>| {
                    Err::<Response<Empty<Bytes>>, _>(error)
                }));
                let came = client.oneshot(Request::new(())).await;
                assert_eq!(came.unwrap_err(), error);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        }));
        service.oneshot(Request::new(())).await.unwrap();
        assert_messages(&recorder, 4, expected);
    }
}

/// Of strings and arrays of strings, in an attribute or an event.
fn assert_bounded(recorder: &Recorder, longest_message: usize, longest_attribute: usize) {
    for span in recorder.spans() {
        let attributes = span.0.attributes.iter();
        for attribute in attributes {
            let length = match &attribute.value {
                Value::String(text) => text.as_str().len(),
                Value::Array(Array::String(texts)) => {
                    texts.iter().map(|text| text.as_str().len()).sum()
                }
                _ => 0,
            };
            // The mark of an array comes on top.
            let bound = longest_attribute + '…'.len_utf8();
            assert!(length <= bound, "{}: {length}", attribute.key);
        }
        for message in span.exceptions() {
            assert!(message.len() <= longest_message, "{}", message.len());
        }
        assert!(span.name().len() <= "POST ".len() + longest_attribute);
    }
}

// faults F3
#[tokio::test]
async fn no_text_is_longer_than_its_bound() {
    let long = |letter: &str| letter.repeat(60_000 / letter.len());
    for (message, attribute) in [(4096, 16384), (100, 50)] {
        for call in [false, true] {
            let recorder = Recorder::new();
            let names = || HeaderAllowList::new(["x-long", "x-many"]).unwrap();
            let layer = recorder.builder().request_headers(names());
            let mut layer = layer.response_headers(names());
            if message != 4096 {
                layer = layer.longest_message(message).longest_attribute(attribute);
            }
            let service = layer.build().layer(service_fn(|request: Request<()>| {
                let trace = RequestTrace::from_extensions(request.extensions());
                let client = builder(&recorder)
                    .build()
                    .layer(service_fn(async |_: Request<()>| {
                        Err::<Response<Empty<Bytes>>, _>(io::Error::other("x".repeat(100_000)))
                    }));
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.headers_mut() = request.headers().clone();
                response.headers_mut().remove("content-type");
                async move {
                    trace.set_route(&long("/r"));
                    let texts = Value::Array(Array::String(vec![long("é").into(); 3]));
                    trace.set_attribute(KeyValue::new("text", long("é")));
                    trace.set_attribute(KeyValue::new("texts", texts.clone()));
                    trace.process(long("w:1/")).end();
                    let stage = trace.download(&format!("http://{}/{}", long("h"), long("p")));
                    stage.set_attribute(KeyValue::new("text", long("é")));
                    stage.set_attribute(KeyValue::new("texts", texts));
                    stage.record_error(&io::Error::other(long("é")));
                    trace.error(ErrorKind::Timeout, &io::Error::other(long("e")));
                    let url = format!("http://cdn.example/{}", long("p"));
                    let attempt = client.oneshot(Request::get(url).body(()).unwrap());
                    attempt.await.unwrap_err();
                    Ok::<_, Infallible>(response)
                }
            }));
            let mut request = Request::builder()
                .uri(format!("/{}?{}", "p".repeat(30_000), "q".repeat(30_000)))
                .header("host", format!("{}:1", long("h")))
                .header("user-agent", long("u"))
                .header("x-long", long("x"));
            for _ in 0..1000 {
                request = request.header("x-many", "0123456789".repeat(10));
            }
            if call {
                request = request
                    .method("POST")
                    .header("content-type", "application/grpc");
            }
            service.oneshot(request.body(()).unwrap()).await.unwrap();
            assert_eq!(recorder.spans().len(), 4);
            assert_bounded(&recorder, message, attribute);
        }
    }
}

// faults F3
#[tokio::test]
async fn the_name_of_a_method_that_was_never_answered_is_bounded() {
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(|_: Request<()>| {
        let worked = RequestTrace::current().queue();
        async move {
            let _worked = worked;
            std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>().await
        }
    }));
    let call = Request::post(format!("/images.Thumbnails/{}", "M".repeat(60_000)));
    let call = call.header("content-type", "application/grpc").body(());
    let mut call = Box::pin(service.oneshot(call.unwrap()));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    assert!(recorder.root().name().starts_with("images.Thumbnails/M"));
    assert_bounded(&recorder, 4096, 16384);
}

// faults F3
#[tokio::test]
async fn a_stage_keeps_no_more_errors_than_a_span_does() {
    let recorder = Recorder::new();
    let service = recorder.layer().layer(service_fn(|_: Request<()>| async {
        let stage = RequestTrace::current().queue();
        let error = io::Error::other("x".repeat(4000));
        let fails = || (0..1000).for_each(|_| stage.record_error(&error));
        let held = allocation_counter::measure(fails).bytes_max;
        // Both the stage and the root have 128 events.
        assert!(held < 2 * 200 * 4096, "{held}");
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(recorder.span("queue").exceptions().len(), 128);
    assert_eq!(recorder.root().exceptions().len(), 128);
}
