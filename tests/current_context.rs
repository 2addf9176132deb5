//! The root span is the current one in the inner service's call, in its future, in the body's
//! polls and in all their drops; nowhere else.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use opentelemetry::{
    Context,
    trace::{SpanId, TraceContextExt, TraceId},
};
use tower::{Layer, Service, ServiceExt};
use tower_image_trace::{ImageTraceLayer, RequestTrace};

use crate::support::Recorder;

/// The current span, which is also that of the current handle.
fn current() -> SpanId {
    let span = Context::map_current(|context| context.span().span_context().span_id());
    // faults G5
    let handle = RequestTrace::current();
    let of_handle = handle.context().span().span_context().span_id();
    assert_eq!(of_handle, span);
    assert_eq!(
        handle.trace_id() == TraceId::INVALID,
        span == SpanId::INVALID
    );
    span
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(&'static str, SpanId)>>>);

impl Seen {
    fn here(&self, place: &'static str) {
        self.0.lock().unwrap().push((place, current()));
    }
}

/// Reports the current span when it is dropped.
struct OnDrop(Seen, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.here(self.1);
    }
}

struct Probe(Seen);

impl Service<Request<()>> for Probe {
    type Response = Response<ProbeBody>;
    type Error = Infallible;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.0.here("call");
        let seen = self.0.clone();
        let _dropped = OnDrop(seen.clone(), "future dropped");
        let answer = Box::pin(async move {
            seen.here("first poll");
            tokio::task::yield_now().await;
            seen.here("second poll");
            Ok(Response::new(ProbeBody {
                frames: 2,
                seen: seen.clone(),
                _dropped: OnDrop(seen, "body dropped"),
            }))
        });
        ProbeFuture { answer, _dropped }
    }
}

type Answer = Result<Response<ProbeBody>, Infallible>;

/// Unlike an async block it still holds something when it is ready.
struct ProbeFuture {
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    _dropped: OnDrop,
}

impl Future for ProbeFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Answer> {
        self.answer.as_mut().poll(cx)
    }
}

struct ProbeBody {
    frames: u8,
    seen: Seen,
    _dropped: OnDrop,
}

impl Body for ProbeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.seen.here("frame");
        self.frames = match self.frames.checked_sub(1) {
            Some(left) => left,
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

fn request() -> Request<()> {
    Request::get("/").body(()).unwrap()
}

#[tokio::test]
async fn in_every_place_of_a_completed_request() {
    let recorder = Recorder::new();
    let seen = Seen::default();
    let response = recorder
        .layer()
        .layer(Probe(seen.clone()))
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(current(), SpanId::INVALID, "not outside");
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    // What the body held is let go with its end, and not when the server drops it.
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    let root = recorder.root().id();
    let seen = seen.0.lock().unwrap();
    let places: Vec<_> = seen.iter().map(|(place, _)| *place).collect();
    let expected = [
        "call",
        "first poll",
        "second poll",
        "future dropped",
        "frame",
        "frame",
        "frame",
        "body dropped",
    ];
    assert_eq!(places, expected);
    for (place, span) in seen.iter() {
        assert_eq!(*span, root, "{place}");
    }
}

#[tokio::test]
async fn in_the_drop_of_a_cancelled_future_and_body() {
    let recorder = Recorder::new();
    let seen = Seen::default();
    let mut service = recorder.layer().layer(Probe(seen.clone()));
    let mut future = Box::pin(service.call(request()));
    assert!(futures_util::poll!(&mut future).is_pending());
    drop(future);
    let (place, span) = *seen.0.lock().unwrap().last().unwrap();
    assert_eq!((place, span), ("future dropped", recorder.root().id()));

    let recorder = Recorder::new();
    let seen = Seen::default();
    drop(
        recorder
            .layer()
            .layer(Probe(seen.clone()))
            .oneshot(request())
            .await
            .unwrap(),
    );
    let (place, span) = *seen.0.lock().unwrap().last().unwrap();
    assert_eq!((place, span), ("body dropped", recorder.root().id()));
}

#[tokio::test]
async fn spans_made_in_the_handler_are_children_of_the_root() {
    use opentelemetry::trace::{Tracer, TracerProvider};
    let recorder = Recorder::new();
    let tracer = recorder.tracers.tracer("service");
    let service = recorder.layer().layer(tower::service_fn(|_: Request<()>| {
        let tracer = tracer.clone();
        async move {
            tokio::task::yield_now().await;
            tracer.start("lookup");
            Ok::<_, Infallible>(Response::new(http_body_util::Empty::<Bytes>::new()))
        }
    }));
    service.oneshot(request()).await.unwrap();
    assert_eq!(recorder.span("lookup").parent(), recorder.root().id());
}

#[tokio::test]
async fn an_upstream_trace_is_continued() {
    let recorder = Recorder::new();
    let service = recorder.layer().layer(Probe(Seen::default()));
    let request = Request::get("/")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("tracestate", "vendor=1")
        .body(())
        .unwrap();
    service.oneshot(request).await.unwrap();
    let root = recorder.root();
    assert_eq!(
        root.trace_id().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(root.parent().to_string(), "00f067aa0ba902b7");
    assert!(root.0.parent_span_is_remote);
    assert_eq!(root.0.span_context.trace_state().header(), "vendor=1");
}

// faults G5
#[tokio::test]
async fn the_current_handle_is_there_without_spans_and_not_when_skipped() {
    let recorder = Recorder::new();
    let name = |name: &'static str| {
        tower::service_fn(move |_: Request<()>| {
            drop(RequestTrace::current().stage("call"));
            async move {
                tokio::task::yield_now().await;
                drop(RequestTrace::current().stage(name));
                Ok::<_, Infallible>(Response::new(http_body_util::Empty::<Bytes>::new()))
            }
        })
    };
    let measured = recorder.builder().traces(false).build();
    measured
        .layer(name("measured"))
        .oneshot(request())
        .await
        .unwrap();
    let skipped = recorder.builder().filter(|_| false).build();
    let caller = Request::get("/").header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    skipped
        .layer(name("skipped"))
        .oneshot(caller.body(()).unwrap())
        .await
        .unwrap();
    let disabled = ImageTraceLayer::disabled();
    disabled
        .layer(name("disabled"))
        .oneshot(request())
        .await
        .unwrap();
    let stages = recorder.series("request_span_duration_seconds");
    let mut names: Vec<_> = stages
        .iter()
        .map(|stage| &*stage.attributes["span"])
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["call", "measured"]);
}

// faults G5
#[tokio::test]
async fn the_outer_handle_is_current_again_after_the_inner_one() {
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(tower::service_fn(|_: Request<()>| async {
            let before = current();
            let inner = recorder.layer().layer(Probe(Seen::default()));
            let response = inner.oneshot(request()).await.unwrap();
            assert_eq!(current(), before);
            drop(response);
            assert_eq!(current(), before);
            Ok::<_, Infallible>(Response::new(http_body_util::Empty::<Bytes>::new()))
        }));
    service.oneshot(request()).await.unwrap();
    assert_eq!(current(), SpanId::INVALID);
}
