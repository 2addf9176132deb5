//! A request that nobody waits for any more ends at that moment and says in which phase it was.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use opentelemetry_sdk::trace::SpanProcessor;
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_image_trace::{RequestTrace, RequestsInProgressLayer};

use crate::support::{ChannelBody, Recorder, body::data};

type Never = Result<Response<ChannelBody>, Infallible>;

fn request() -> Request<()> {
    Request::get("/").body(()).unwrap()
}

fn assert_cancelled(recorder: &Recorder, phase: &str) {
    let root = recorder.root();
    root.assert_no_error();
    assert_eq!(root.get("image.request.cancelled").as_deref(), Some(phase));
    let duration = recorder.only_series("http.server.request.duration");
    assert_eq!(duration.count, 1);
    assert_eq!(duration.attributes.get("error.type"), None);
    recorder.assert_nothing_active();
}

/// Polls a request until its handler says that it waits, then drops it.
async fn cancel_in<F, Fut>(handler: F) -> Recorder
where
    F: Fn(RequestTrace, oneshot::Sender<()>) -> Fut,
    Fut: Future<Output = Never>,
{
    let recorder = Recorder::new();
    let (waits, waiting) = oneshot::channel();
    let mut waits = Some(waits);
    let service = recorder
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            handler(trace, waits.take().unwrap())
        }));
    tokio::select! {
        _ = service.oneshot(request()) => unreachable!("the handler never ends"),
        result = waiting => result.unwrap(),
    }
    recorder
}

#[tokio::test]
async fn in_the_handler() {
    let recorder = cancel_in(|_, waits| async move {
        waits.send(()).unwrap();
        pending::<Never>().await
    })
    .await;
    assert_cancelled(&recorder, "handler");
    assert_eq!(recorder.root().get("http.response.status_code"), None);
}

#[tokio::test]
async fn in_each_stage_as_a_guard() {
    for (name, stage) in [
        (
            "queue",
            RequestTrace::queue as fn(&RequestTrace) -> tower_image_trace::Stage,
        ),
        ("downloading_image", |trace| {
            trace.download("https://cdn.example/cat.jpg")
        }),
        ("processing_image", |trace| trace.process("fit")),
        ("streaming_image", RequestTrace::stream),
        ("watermark", |trace| trace.stage("watermark")),
    ] {
        let recorder = cancel_in(|trace, waits| async move {
            drop(trace.stage("done before"));
            let _stage = stage(&trace);
            waits.send(()).unwrap();
            pending::<Never>().await
        })
        .await;
        assert_cancelled(&recorder, name);
        let root = recorder.root();
        let span = recorder.span(name);
        span.assert_no_error();
        assert_eq!(span.get("image.stage.cancelled").as_deref(), Some("true"));
        assert_eq!(span.parent(), root.id());
        assert!(
            span.0.end_time <= root.0.end_time,
            "the stage ends before its root"
        );
        assert_eq!(
            recorder.span("done before").get("image.stage.cancelled"),
            None
        );
        assert_eq!(
            recorder
                .only_series_of("request_span_duration_seconds", "span", name)
                .count,
            1
        );
    }
}

#[tokio::test]
async fn in_a_stage_as_a_future() {
    let recorder = cancel_in(|trace, waits| async move {
        let wait = async {
            waits.send(()).unwrap();
            pending::<Result<(), Infallible>>().await
        };
        trace.queue().run(wait).await.unwrap();
        unreachable!()
    })
    .await;
    assert_cancelled(&recorder, "queue");
    assert_eq!(
        recorder
            .span("queue")
            .get("image.stage.cancelled")
            .as_deref(),
        Some("true")
    );
}

#[tokio::test]
async fn in_the_innermost_of_nested_stages() {
    let recorder = cancel_in(|trace, waits| async move {
        let _outer = trace.process("fit");
        let _inner = trace.stage("watermark");
        waits.send(()).unwrap();
        pending::<Never>().await
    })
    .await;
    assert_cancelled(&recorder, "watermark");
}

#[tokio::test]
async fn before_the_first_poll() {
    let recorder = Recorder::new();
    let mut service = recorder
        .layer()
        .layer(service_fn(|_: Request<()>| pending::<Never>()));
    drop(service.call(request()));
    assert_cancelled(&recorder, "handler");
}

#[tokio::test]
async fn by_an_outer_timeout() {
    tokio::time::pause();
    let recorder = Recorder::new();
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .layer(recorder.layer())
        .service(service_fn(|_: Request<()>| pending::<Never>()));
    service.oneshot(request()).await.map(drop).unwrap_err();
    assert_cancelled(&recorder, "handler");
}

#[tokio::test]
async fn in_the_response_body() {
    let recorder = Recorder::new();
    let (frames, body) = ChannelBody::new();
    let mut body = Some(body);
    let service = recorder.layer().layer(service_fn(move |_: Request<()>| {
        let response = Response::new(body.take().unwrap());
        async { Ok::<_, Infallible>(response) }
    }));
    let mut response = service.oneshot(request()).await.unwrap();
    frames.send(data("half")).unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    assert_cancelled(&recorder, "response_body");
    let root = recorder.root();
    assert_eq!(
        root.get("http.response.status_code").as_deref(),
        Some("200")
    );
    assert_eq!(root.get("http.response.body.size").as_deref(), Some("4"));
}

/// Counts the ends of root spans and their outcomes without keeping the spans.
#[derive(Clone, Debug, Default)]
struct Ends(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    roots: AtomicU64,
    cancelled: AtomicU64,
    completed: AtomicU64,
}

impl SpanProcessor for Ends {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}
    fn on_end(&self, span: opentelemetry_sdk::trace::SpanData) {
        if span.span_kind != opentelemetry::trace::SpanKind::Server {
            return;
        }
        assert_eq!(
            span.status,
            opentelemetry::trace::Status::Unset,
            "{span:#?}"
        );
        let has = |key: &str| span.attributes.iter().any(|pair| pair.key.as_str() == key);
        self.0.roots.fetch_add(1, Ordering::Relaxed);
        if has("image.request.cancelled") {
            self.0.cancelled.fetch_add(1, Ordering::Relaxed);
        } else {
            assert!(has("http.response.status_code"), "{span:#?}");
            self.0.completed.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}

/// 10,000 requests, each given up at a random moment: before it is polled, in the handler, in any
/// stage, on the blocking pool, in the body. Whatever the moment was, everything adds up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_at_random_moments() {
    const REQUESTS: u64 = 10_000;
    // The steps that one request takes when nobody interrupts it.
    const STEPS: u64 = 14;

    let ends = Ends::default();
    let recorder = Recorder::with(|tracers| tracers.with_span_processor(ends.clone()));
    let (in_progress_layer, in_progress) = RequestsInProgressLayer::pair();
    let images = in_progress.clone();
    let service = ServiceBuilder::new()
        .layer(in_progress_layer)
        .layer(recorder.layer())
        .service(service_fn(move |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let images = images.clone();
            async move {
                tokio::task::yield_now().await;
                trace
                    .queue()
                    .run(async {
                        tokio::task::yield_now().await;
                        Ok::<_, Infallible>(())
                    })
                    .await?;
                let _image = images.image();
                let download = trace.download("https://cdn.example/cat.jpg");
                tokio::task::yield_now().await;
                drop(download);
                trace
                    .process("fit")
                    .run_blocking(|| Ok::<_, Infallible>(()))
                    .await?;
                let stream = trace.stream();
                let (frames, body) = ChannelBody::new();
                tokio::spawn(async move {
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                        if frames.send(data("frame")).is_err() {
                            break;
                        }
                    }
                    drop(stream);
                });
                Ok::<_, Infallible>(Response::new(body))
            }
        }));

    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..REQUESTS {
        let service = service.clone();
        // A fixed sequence that looks random: every run cancels at the same steps.
        let mut steps = (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % (STEPS + 3);
        tasks.spawn(async move {
            let mut service = service;
            let whole = service.ready().await.unwrap().call(request());
            let mut whole = Box::pin(async move {
                let response = whole.await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            });
            while steps > 0 {
                match futures_util::poll!(&mut whole) {
                    std::task::Poll::Ready(bytes) => return bytes,
                    std::task::Poll::Pending => steps -= 1,
                }
                tokio::task::yield_now().await;
            }
            Bytes::new()
        });
        if tasks.len() == 64 {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(
        count(&ends.0.roots),
        REQUESTS,
        "every root span ended exactly once"
    );
    assert_eq!(
        count(&ends.0.cancelled) + count(&ends.0.completed),
        REQUESTS
    );
    assert!(count(&ends.0.cancelled) > REQUESTS / 10, "{ends:?}");
    assert!(count(&ends.0.completed) > REQUESTS / 100, "{ends:?}");
    let durations = recorder.series("http.server.request.duration");
    assert_eq!(
        durations.iter().map(|series| series.count).sum::<u64>(),
        REQUESTS
    );
    recorder.assert_nothing_active();
    assert_eq!((in_progress.requests(), in_progress.images()), (0, 0));
}

// faults A6
#[tokio::test]
async fn a_stage_that_begins_afterwards_is_not_cancelled() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let recorder = cancel_in(move |trace, waits| {
        sender.send((trace.clone(), trace.stage("before"))).unwrap();
        async move {
            waits.send(()).unwrap();
            pending::<Never>().await
        }
    })
    .await;
    let (trace, before) = receiver.recv().unwrap();
    let after = trace.stage("after").run(async { Ok::<_, Infallible>(()) });
    after.await.unwrap();
    drop(before);
    assert_cancelled(&recorder, "before");
    let cancelled = |name| recorder.span(name).get("image.stage.cancelled");
    assert_eq!(cancelled("before").as_deref(), Some("true"));
    assert_eq!(cancelled("after"), None);
}
