//! Stages are child spans with the right parent, wherever they run and whenever they end.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_sdk::trace::Sampler;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_image_trace::{ErrorKind, ImageTraceLayer, RequestTrace};

use crate::support::{ChannelBody, Recorder, body::data, download::client, registry::Registry};

fn ok() -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::default()))
}

/// Runs one request whose handler gets the handle.
async fn request<F, Fut>(layer: &ImageTraceLayer, handler: F)
where
    F: Fn(RequestTrace) -> Fut,
    Fut: Future<Output = ()>,
{
    let service = layer.layer(service_fn(|request: Request<()>| {
        let handled = handler(RequestTrace::from_extensions(request.extensions()));
        async {
            handled.await;
            ok()
        }
    }));
    service
        .oneshot(Request::get("/").body(()).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn each_kind_has_its_name_and_attributes() {
    let recorder = Recorder::new();
    request(&recorder.layer(), |trace| async move {
        drop(trace.queue());
        drop(trace.download("https://user:secret@cdn.example:8443/cat.jpg?w=1&sig=secret"));
        drop(trace.process("rs:fill:300:200"));
        let watermark = trace.stage("watermark");
        watermark.set_attribute(KeyValue::new("opacity", 0.5));
        watermark.end();
        drop(trace.stream());
    })
    .await;

    let root = recorder.root();
    for name in [
        "queue",
        "downloading_image",
        "processing_image",
        "watermark",
        "streaming_image",
    ] {
        let stage = recorder.span(name);
        assert_eq!(stage.parent(), root.id(), "{name}");
        assert_eq!(stage.trace_id(), root.trace_id());
        assert_eq!(stage.0.span_kind, SpanKind::Internal);
        stage.assert_no_error();
        assert_eq!(stage.get("image.stage.cancelled"), None);
        assert_eq!(
            recorder
                .only_series_of("request_span_duration_seconds", "span", name)
                .count,
            1
        );
    }
    let download = recorder.span("downloading_image");
    assert_eq!(
        download.get("image.source.url").as_deref(),
        Some("https://REDACTED:REDACTED@cdn.example:8443/cat.jpg?w=1&sig=REDACTED")
    );
    assert_eq!(
        download.get("image.source.origin").as_deref(),
        Some("https://cdn.example:8443")
    );
    assert_eq!(
        recorder
            .span("processing_image")
            .get("image.processing.options")
            .as_deref(),
        Some("rs:fill:300:200")
    );
    assert_eq!(
        recorder.span("watermark").get("opacity").as_deref(),
        Some("0.5")
    );
}

/// Whether or not somebody asks for its context on the way, which is what begins its span.
#[tokio::test]
async fn a_stage_lasts_from_its_making_to_its_drop() {
    const LONG: Duration = Duration::from_millis(5);
    let recorder = Recorder::new();
    request(&recorder.layer(), |trace| async move {
        let unseen = trace.stage("unseen");
        let seen = trace.stage("seen");
        std::thread::sleep(LONG);
        seen.set_attribute(KeyValue::new("early", true));
        let context = seen.context();
        assert_eq!(
            seen.context().span().span_context(),
            context.span().span_context()
        );
        seen.set_attribute(KeyValue::new("late", true));
        std::thread::sleep(LONG);
        drop((unseen, seen));
    })
    .await;

    let root = recorder.root();
    for name in ["unseen", "seen"] {
        let stage = recorder.span(name);
        let (start, end) = (stage.0.start_time, stage.0.end_time);
        assert!(end.duration_since(start).unwrap() >= 2 * LONG, "{name}");
        assert!(
            root.0.start_time <= start && end <= root.0.end_time,
            "{name}"
        );
    }
    let seen = recorder.span("seen");
    for key in ["early", "late"] {
        assert_eq!(seen.get(key).as_deref(), Some("true"), "{key}");
    }
}

#[tokio::test]
async fn errors_go_to_the_stage_the_root_and_the_count() {
    let recorder = Recorder::new();
    request(&recorder.layer(), |trace| async move {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        let download = trace.download("http://cdn.example/");
        let result = download.run(async { Err::<(), _>(refused()) }).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

        let boxed = trace
            .queue()
            .run(async { Err::<(), BoxError>("queue is full".into()) })
            .await;
        assert_eq!(boxed.unwrap_err().to_string(), "queue is full");

        let work = trace
            .process("fit")
            .run_blocking(|| Err::<(), _>(io::Error::other("no picture")));
        work.await.unwrap_err();

        let custom = trace.stage("watermark");
        custom.record_error(&io::Error::other("first"));
        custom.record_error(&io::Error::other("second"));
        drop(custom);

        trace.error(ErrorKind::Security, &io::Error::other("bad signature"));
    })
    .await;

    recorder
        .span("downloading_image")
        .assert_error("connection_refused", "refused");
    recorder
        .span("queue")
        .assert_error("_OTHER", "queue is full");
    recorder
        .span("processing_image")
        .assert_error("io", "no picture");
    let watermark = recorder.span("watermark");
    watermark.assert_error("io", "first");
    assert_eq!(watermark.exceptions(), ["first", "second"]);

    let root = recorder.root();
    assert_eq!(
        root.0.status,
        opentelemetry::trace::Status::Unset,
        "the response was a 200"
    );
    assert_eq!(
        root.exceptions(),
        [
            "refused",
            "queue is full",
            "no picture",
            "first",
            "second",
            "bad signature"
        ]
    );
    for (kind, count) in [
        ("download", 1),
        ("queue", 1),
        ("processing", 1),
        ("watermark", 2),
        ("security", 1),
    ] {
        assert_eq!(
            recorder.only_series_of("errors_total", "type", kind).count,
            count,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn the_stage_is_the_current_span_of_what_it_runs() {
    fn current() -> opentelemetry::trace::SpanId {
        Context::map_current(|context| context.span().span_context().span_id())
    }
    let recorder = Recorder::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    request(&recorder.layer(), |trace| {
        let seen = Arc::clone(&seen);
        async move {
            let see = |name| seen.lock().unwrap().push((name, current()));
            let run = async {
                tokio::task::yield_now().await;
                see("queue");
                Ok::<_, Infallible>(())
            };
            trace.queue().run(run).await.unwrap();
            let pool = trace
                .process("fit")
                .run_blocking(|| Ok::<_, Infallible>(current()))
                .await
                .unwrap();
            seen.lock().unwrap().push(("processing_image", pool));
            let download = trace.download("http://cdn.example/");
            download.attach(async { see("downloading_image") }).await;
            download.in_scope(|| see("downloading_image"));
            let trace = trace.clone();
            let thread = std::thread::spawn(move || trace.stage("thread").in_scope(current))
                .join()
                .unwrap();
            seen.lock().unwrap().push(("thread", thread));
        }
    })
    .await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    for (name, id) in seen.iter() {
        assert_eq!(recorder.span(name).id(), *id, "{name}");
    }
}

#[tokio::test]
async fn a_stage_that_outlives_its_request_is_still_a_child() {
    let recorder = Recorder::new();
    let kept = Arc::new(Mutex::new(None));
    request(&recorder.layer(), |trace| {
        let kept = Arc::clone(&kept);
        async move { *kept.lock().unwrap() = Some((trace.stage("late"), trace.clone())) }
    })
    .await;
    let root = recorder.root();
    let (late, trace) = kept.lock().unwrap().take().unwrap();
    // Neither delays nor changes the root span any more.
    trace.set_attribute(KeyValue::new("late", true));
    trace.set_route("/late");
    trace.error(ErrorKind::Timeout, &io::Error::other("late"));
    late.end();
    drop(trace.stage("even later"));
    for name in ["late", "even later"] {
        let stage = recorder.span(name);
        assert_eq!(
            (stage.trace_id(), stage.parent()),
            (root.trace_id(), root.id())
        );
        assert_eq!(stage.get("image.stage.cancelled"), None);
    }
    let root = recorder.root();
    assert_eq!((root.name(), root.get("late")), ("GET", None));
    assert!(root.exceptions().is_empty());
}

#[tokio::test]
async fn blocking_work_goes_on_after_the_client_has_gone_and_its_stage_says_so() {
    let recorder = Recorder::new();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let gate = Mutex::new(Some(gate));
    let service = recorder.layer().layer(service_fn(|request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        let (gate, started) = (gate.lock().unwrap().take().unwrap(), started.clone());
        async move {
            let work = move || {
                started.send(()).unwrap();
                gate.recv().unwrap();
                Ok::<_, Infallible>(())
            };
            trace.process("fit").run_blocking(work).await.unwrap();
            ok()
        }
    }));
    tokio::select! {
        _ = service.oneshot(Request::get("/").body(()).unwrap()) => unreachable!(),
        _ = has_started.recv() => {}
    }
    assert_eq!(
        recorder.root().get("image.request.cancelled").as_deref(),
        Some("processing_image")
    );
    assert_eq!(recorder.spans().len(), 1, "the work is still going on");
    go.send(()).unwrap();
    while recorder.spans().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        recorder
            .span("processing_image")
            .get("image.stage.cancelled")
            .as_deref(),
        Some("true")
    );
}

#[test]
fn work_that_no_thread_has_begun_is_taken_back() {
    let recorder = Recorder::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
    runtime.block_on(async {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let trace = Arc::new(Mutex::new(None));
        let ran = Arc::clone(&ran);
        request(&recorder.layer(), |handle| {
            *trace.lock().unwrap() = Some(handle);
            async {}
        })
        .await;
        let trace = trace.lock().unwrap().take().unwrap();
        drop(trace.process("fit").run_blocking(move || {
            ran.store(true, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, Infallible>(())
        }));
        let stage = recorder.span("processing_image");
        assert_eq!(stage.get("image.stage.cancelled").as_deref(), Some("true"));
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        // The pool's one thread has nothing left to do when it gets to this.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    assert!(!ran.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(recorder.spans().len(), 2);
}

#[tokio::test]
async fn work_that_is_done_while_a_thread_panics_has_not_failed() {
    struct CleanUp(RequestTrace);
    impl Drop for CleanUp {
        fn drop(&mut self) {
            let stage = self.0.stage("cleans up");
            stage.run_sync(|| Ok::<_, io::Error>(())).unwrap();
            self.0.stage("is ended").end();
            let failed = self.0.stage("fails");
            let fails = || Err::<(), _>(io::Error::other("no room"));
            failed.run_sync(fails).unwrap_err();
            drop(self.0.stage("is dropped"));
        }
    }
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(async |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let _clean_up = CleanUp(trace);
            if request.uri().path() == "/" {
                panic!("at once");
            }
            ok()
        }));
    let panics = service.oneshot(Request::get("/").body(()).unwrap());
    let panics = std::panic::AssertUnwindSafe(panics);
    futures_util::FutureExt::catch_unwind(panics)
        .await
        .unwrap_err();
    for name in ["cleans up", "is ended"] {
        recorder.span(name).assert_no_error();
    }
    recorder.span("fails").assert_error("io", "no room");
    recorder.span("is dropped").assert_error("panic", "panic");
    recorder.root().assert_error("panic", "at once");
}

#[tokio::test]
async fn attributes_of_the_root_are_replaced_by_later_ones() {
    let recorder = Recorder::new();
    request(&recorder.layer(), |trace| async move {
        trace.set_attribute(KeyValue::new("tenant", "a"));
        trace.set_attribute(KeyValue::new("cached", true));
        trace.set_attribute(KeyValue::new("tenant", "b"));
    })
    .await;
    let root = recorder.root();
    assert_eq!(root.get("tenant").as_deref(), Some("b"));
    assert_eq!(root.get("cached").as_deref(), Some("true"));
}

#[tokio::test]
async fn a_panic_on_the_blocking_pool_is_recorded_and_goes_on_in_the_handler() {
    use futures_util::FutureExt;
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(|request: Request<()>| async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            let work = || -> Result<(), Infallible> { panic!("bad pixel") };
            trace.process("fit").run_blocking(work).await.unwrap();
            ok()
        }));
    let request = Request::get("/").body(()).unwrap();
    let payload = std::panic::AssertUnwindSafe(service.oneshot(request))
        .catch_unwind()
        .await
        .unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"bad pixel"));
    recorder
        .span("processing_image")
        .assert_error("panic", "bad pixel");
    recorder.root().assert_error("panic", "bad pixel");
}

#[tokio::test]
async fn without_a_trace_everything_runs_and_nothing_is_recorded() {
    async fn everything(trace: RequestTrace) {
        assert_eq!(
            trace
                .queue()
                .run(async { Ok::<_, io::Error>(1) })
                .await
                .unwrap(),
            1
        );
        trace
            .download("not a url")
            .run(async { Err::<(), _>(io::Error::other("x")) })
            .await
            .unwrap_err();
        assert_eq!(
            trace
                .process("fit")
                .run_blocking(|| Ok::<_, io::Error>(2))
                .await
                .unwrap(),
            2
        );
        let stage = trace.stage("s");
        stage.set_attribute(KeyValue::new("a", 1));
        stage.record_error(&io::Error::other("x"));
        let mut headers = HeaderMap::new();
        stage.inject(&mut headers);
        assert!(headers.is_empty());
        assert_eq!(stage.attach(async { 3 }).await, 3);
        assert_eq!(stage.in_scope(|| 4), 4);
        trace.set_route("/x");
        trace.set_attribute(KeyValue::new("a", 1));
        trace.error(ErrorKind::Queue, &io::Error::other("x"));
        let _ = trace.context();
    }
    let nothing = RequestTrace::from_extensions(&http::Extensions::new());
    assert_eq!(nothing.trace_id(), TraceId::INVALID);
    everything(nothing).await;

    request(&ImageTraceLayer::disabled(), |trace| async move {
        assert_eq!(trace.trace_id(), TraceId::INVALID);
        everything(trace).await;
    })
    .await;

    let recorder = Recorder::with(|tracers| tracers.with_sampler(Sampler::AlwaysOff));
    request(&recorder.layer(), everything).await;
    assert!(recorder.spans().is_empty());
    assert_eq!(
        recorder.only_series("http.server.request.duration").count,
        1,
        "sampling does not touch metrics"
    );
}

#[test]
fn outside_a_runtime_blocking_work_runs_in_place() {
    let here = std::thread::current().id();
    let work = RequestTrace::default()
        .process("fit")
        .run_blocking(move || Ok::<_, Infallible>(std::thread::current().id() == here));
    assert!(
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(work)
            .unwrap()
    );
}

#[tokio::test]
async fn injection_must_be_asked_for() {
    for propagate in [false, true] {
        let recorder = Recorder::new();
        let layer = recorder.builder().propagate_external(propagate).build();
        let injected = Arc::new(Mutex::new(HeaderMap::new()));
        request(&layer, |trace| {
            let injected = Arc::clone(&injected);
            async move {
                trace
                    .download("http://cdn.example/")
                    .inject(&mut injected.lock().unwrap())
            }
        })
        .await;
        let injected = injected.lock().unwrap();
        let traceparent = injected
            .get("traceparent")
            .map(|value| value.to_str().unwrap().to_owned());
        let download = recorder.span("downloading_image");
        let expected = format!("00-{}-{}-01", download.trace_id(), download.id());
        assert_eq!(traceparent, propagate.then_some(expected));
    }
}

/// The handle of a request that is over.
async fn handle(recorder: &Recorder) -> RequestTrace {
    let kept = Mutex::new(None);
    request(&recorder.layer(), |trace| {
        *kept.lock().unwrap() = Some(trace);
        async {}
    })
    .await;
    kept.into_inner().unwrap().unwrap()
}

// faults A7
#[tokio::test]
async fn blocking_work_of_a_runtime_that_is_gone_is_pending_for_ever() {
    let recorder = Recorder::new();
    let trace = handle(&recorder).await;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.build().unwrap();
    let gone = runtime.handle().clone();
    runtime.shutdown_background();
    let mut work = {
        let _entered = gone.enter();
        let work = || Ok::<_, Infallible>(());
        trace.process("fit").run_blocking(work)
    };
    for _ in 0..3 {
        assert!(futures_util::poll!(&mut work).is_pending());
    }
    let stage = recorder.span("processing_image");
    assert_eq!(stage.get("image.stage.cancelled").as_deref(), Some("true"));
}

// faults A7
#[tokio::test]
async fn a_future_that_is_over_is_pending_for_ever() {
    let trace = handle(&Recorder::new()).await;
    let work = || Ok::<_, Infallible>(());
    let mut blocking = trace.process("fit").run_blocking(work);
    (&mut blocking).await.unwrap();
    assert!(futures_util::poll!(&mut blocking).is_pending());
    let work = || -> Result<(), Infallible> { panic!("bad pixel") };
    let mut panicked = trace.process("fit").run_blocking(work);
    let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(&mut panicked));
    caught.await.unwrap_err();
    assert!(futures_util::poll!(&mut panicked).is_pending());

    let mut run = Box::pin(trace.queue().run(async { Ok::<_, Infallible>(()) }));
    (&mut run).await.unwrap();
    assert!(futures_util::poll!(&mut run).is_pending());
    let stage = trace.stream();
    let mut attached = Box::pin(stage.attach(async {}));
    (&mut attached).await;
    assert!(futures_util::poll!(&mut attached).is_pending());
}

// faults F4
#[tokio::test]
async fn a_key_stands_once_with_the_value_of_the_service() {
    for after_sampling in [false, true] {
        let recorder = Recorder::new();
        let layer = recorder.builder();
        let layer = layer.attributes_after_sampling(after_sampling).build();
        request(&layer, |trace| async move {
            for value in [0, 1] {
                trace.set_attribute(KeyValue::new("tenant", value));
                trace.set_attribute(KeyValue::new("http.response.status_code", value));
                trace.set_attribute(KeyValue::new("url.path", value));
                trace.set_attribute(KeyValue::new("user_agent.original", value));
            }
            let noted = trace.process("noted");
            let begun = trace.download("http://cdn.example/");
            let set = |value: i64| {
                for stage in [&noted, &begun] {
                    stage.set_attribute(KeyValue::new("tenant", value));
                    stage.set_attribute(KeyValue::new("error.type", value));
                    stage.set_attribute(KeyValue::new("image.source.url", value));
                    stage.set_attribute(KeyValue::new("image.processing.options", value));
                }
            };
            set(0);
            begun.in_scope(|| set(1));
            noted.record_error(&io::Error::other("x"));
            begun.record_error(&io::Error::other("x"));
        })
        .await;
        let root = recorder.root();
        let value = |key| root.get(key).unwrap();
        assert_eq!(value("tenant"), "1");
        assert_eq!(value("http.response.status_code"), "1");
        // What the sampler saw stays.
        assert_eq!(value("url.path"), if after_sampling { "1" } else { "/" });
        assert_eq!(value("user_agent.original"), "1", "the client sent none");
        for stage in ["processing_image", "downloading_image"] {
            let stage = recorder.span(stage);
            for key in [
                "tenant",
                "error.type",
                "image.source.url",
                "image.processing.options",
            ] {
                assert_eq!(stage.get(key).as_deref(), Some("1"), "{key}");
            }
        }
    }
}

// faults F5
#[tokio::test]
async fn a_stage_begun_in_another_is_its_child() {
    let recorder = Recorder::new();
    let other = Recorder::new();
    let foreign = handle(&other).await;
    request(&recorder.layer(), |trace| {
        let foreign = foreign.clone();
        async move {
            let begin = |trace: &RequestTrace, name| drop(trace.stage(name));
            let process = trace.process("fit");
            begin(&trace, "beside");
            process.in_scope(|| {
                begin(&trace, "in_scope");
                begin(&foreign, "foreign");
                trace.stage("middle").in_scope(|| begin(&trace, "inmost"));
            });
            process.attach(async { begin(&trace, "attach") }).await;
            begin(&trace, "after");
            let (run, blocking) = (trace.clone(), trace.clone());
            let work = async move {
                tokio::task::yield_now().await;
                begin(&run, "run");
                Ok::<_, Infallible>(())
            };
            process.run(work).await.unwrap();
            let work = move || {
                begin(&blocking, "run_blocking");
                begin(&RequestTrace::current(), "run_blocking, current");
                Ok::<_, Infallible>(())
            };
            trace.queue().run_blocking(work).await.unwrap();
        }
    })
    .await;
    let root = recorder.root();
    let process = recorder.span("processing_image");
    let queue = recorder.span("queue");
    let middle = recorder.span("middle");
    for (name, parent) in [
        ("processing_image", &root),
        ("beside", &root),
        ("after", &root),
        ("in_scope", &process),
        ("middle", &process),
        ("inmost", &middle),
        ("attach", &process),
        ("run", &process),
        ("run_blocking", &queue),
        ("run_blocking, current", &queue),
    ] {
        assert_eq!(recorder.span(name).parent(), parent.id(), "{name}");
    }
    assert_eq!(other.span("foreign").parent(), other.root().id());
}

/// Both are in one trace, but the one is not part of the other.
// faults F5
#[tokio::test]
async fn a_stage_of_one_request_is_no_child_of_another_request() {
    let recorder = Recorder::new();
    let outer = recorder.layer().layer(service_fn(|request: Request<()>| {
        let outer = RequestTrace::from_extensions(request.extensions());
        let inner = recorder.layer().layer(service_fn(move |_: Request<()>| {
            drop(outer.stage("of the outer"));
            drop(RequestTrace::current().stage("of the inner"));
            async { ok() }
        }));
        inner.oneshot(Request::put("/").body(()).unwrap())
    }));
    let request = Request::get("/").body(()).unwrap();
    outer.oneshot(request).await.unwrap();
    let parent = |name| recorder.span(name).parent();
    assert_eq!(parent("of the outer"), recorder.span("GET").id());
    assert_eq!(parent("of the inner"), recorder.span("PUT").id());
    assert_eq!(
        recorder.span("GET").trace_id(),
        recorder.span("PUT").trace_id()
    );
}

// faults G16
#[tokio::test]
async fn an_error_of_a_stage_is_named_after_its_cause() {
    #[derive(Debug, thiserror::Error)]
    #[error("no source")]
    struct Service(#[source] BoxError);
    let recorder = Recorder::new();
    request(&recorder.layer(), |trace| async move {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let refused = Service(Box::new(Service(refused.into())));
        let download = trace.download("http://cdn.example/");
        let _ = download.run(async { Err::<(), _>(refused) }).await;

        let nowhere = client().get("http://127.0.0.1:0/".parse().unwrap());
        let nowhere = async { nowhere.await.map_err(|error| Service(error.into())) };
        let _ = trace.stage("client").run(nowhere).await;
        let slow = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>());
        let slow = async { slow.await.map_err(|error| Service(error.into())) };
        let _ = trace.stage("slow").run(slow).await;
    })
    .await;
    let stage = recorder.span("downloading_image");
    stage.assert_error("connection_refused", "no source: connection refused");
    let error_type = |name| recorder.span(name).get("error.type");
    assert_eq!(error_type("client").as_deref(), Some("connect"));
    assert_eq!(error_type("slow").as_deref(), Some("timeout"));
}

// faults F5
#[tokio::test]
async fn a_stage_is_a_child_of_the_service_s_own_span_but_not_of_foreign_ones() {
    let recorder = Recorder::new();
    let tracer = recorder.tracers.tracer("service");
    request(&recorder.layer(), |trace| {
        let tracer = tracer.clone();
        async move {
            let own = tracer.start("own");
            let own = Context::current().with_span(own).attach();
            drop(trace.stage("in its own"));
            drop(own);
            let other = tracer.start_with_context("other", &Context::new());
            let other = Context::current().with_span(other).attach();
            drop(trace.stage("in another trace"));
            drop(other);
            let far = SpanContext::new(
                trace.trace_id(),
                SpanId::from(7),
                TraceFlags::SAMPLED,
                true,
                TraceState::NONE,
            );
            let far = Context::current().with_remote_span_context(far).attach();
            drop(trace.stage("in a remote one"));
            drop(far);
        }
    })
    .await;
    let parent = |name| recorder.span(name).parent();
    assert_eq!(parent("in its own"), recorder.span("own").id());
    let root = recorder.root();
    assert_eq!(parent("in another trace"), root.id());
    assert_eq!(
        recorder.span("in another trace").trace_id(),
        root.trace_id()
    );
    assert_eq!(parent("in a remote one"), root.id());
}

// faults G10
#[test]
fn work_on_a_thread_of_a_foreign_pool_is_a_stage() {
    let recorder = Recorder::new();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.build().unwrap();
    runtime.block_on(request(&recorder.layer(), |trace| async move {
        let [good, bad, broken] = ["good", "bad", "broken"].map(|name| trace.stage(name));
        let worker = std::thread::spawn(move || {
            let done = good.run_sync(|| {
                drop(RequestTrace::current().stage("inner"));
                Ok::<_, io::Error>(7)
            });
            let failed = bad.run_sync(|| Err::<(), _>(io::Error::other("no picture")));
            (done.unwrap(), failed.unwrap_err().to_string())
        });
        assert_eq!(worker.join().unwrap(), (7, "no picture".to_owned()));
        let panics = || broken.run_sync(|| -> io::Result<()> { panic!("in a pool") });
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
    }));

    let good = recorder.span("good");
    good.assert_no_error();
    assert_eq!(good.get("image.stage.cancelled"), None);
    assert_eq!(recorder.span("inner").parent(), good.id());
    recorder.span("bad").assert_error("io", "no picture");
    recorder.span("broken").assert_error("panic", "in a pool");
}

// faults G9
#[tokio::test]
async fn a_future_that_cannot_fail_is_a_stage() {
    let recorder = Recorder::new();
    request(&recorder.layer(), |trace| async move {
        assert_eq!(trace.stage("ready").run_infallible(async { 7 }).await, 7);
        drop(trace.stage("dropped").run_infallible(async {}));
    })
    .await;

    recorder.span("ready").assert_no_error();
    assert_eq!(recorder.span("ready").get("image.stage.cancelled"), None);
    let dropped = recorder.span("dropped").get("image.stage.cancelled");
    assert_eq!(dropped.as_deref(), Some("true"));
}

// faults G15
#[tokio::test]
async fn a_request_that_waits_for_another_is_linked_to_it() {
    let recorder = Recorder::new();
    let leader = Arc::new(Mutex::new(RequestTrace::default()));
    let layer = recorder.layer();
    request(&layer, |trace| {
        *leader.lock().unwrap() = trace;
        async {}
    })
    .await;
    let root = recorder.root();
    request(&layer, |trace| {
        let leader = leader.lock().unwrap().clone();
        async move {
            trace.link(&RequestTrace::default());
            trace.link(&leader);
            let waiting = trace.wait_for(&leader).run(async { Ok::<_, io::Error>(7) });
            assert_eq!(waiting.await.unwrap(), 7);
        }
    })
    .await;

    let waiting = recorder.span("waiting_for_image");
    let follower = recorder.spans();
    let follower = follower.iter().find(|span| span.id() == waiting.parent());
    for linked in [&waiting, follower.unwrap()] {
        let links = &linked.0.links.links;
        assert_eq!(links.len(), 1, "{linked:#?}");
        assert_eq!(links[0].span_context.span_id(), root.id());
        assert_eq!(links[0].span_context.trace_id(), root.trace_id());
        assert_ne!(linked.trace_id(), root.trace_id());
    }
    Registry::read().check_span("waiting_for_image", waiting.keys());
    let series = "request_span_duration_seconds";
    let series = recorder.only_series_of(series, "span", "waiting_for_image");
    assert_eq!(series.count, 1);
}

// faults G18
#[tokio::test]
async fn a_body_that_is_sent_is_a_stage() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Read,
        ReadToItsSize,
        Dropped,
        Failed,
        Unread,
    }
    use End::*;
    for end in [Read, ReadToItsSize, Dropped, Failed, Unread] {
        let recorder = Recorder::new();
        let (frames, body) = ChannelBody::new();
        let body = Mutex::new(Some(body.with_exact_size(7)));
        let service = recorder.layer().layer(service_fn(|request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let body = trace.stream().body(body.lock().unwrap().take().unwrap());
            async { Ok::<_, Infallible>(Response::new(body)) }
        }));
        let request = match end {
            Unread => Request::head("/"),
            _ => Request::get("/"),
        };
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(7));
        assert!(
            !recorder
                .spans()
                .iter()
                .any(|span| span.name() == "streaming_image")
        );
        match end {
            Read | ReadToItsSize => {
                frames.send(data("picture")).unwrap();
                body.frame().await.unwrap().unwrap();
            }
            Failed => {
                frames
                    .send(Err(io::Error::other("the disk is gone")))
                    .unwrap();
                body.frame().await.unwrap().unwrap_err();
            }
            Dropped | Unread => {}
        }
        if end == Read {
            drop(frames);
            assert!(body.frame().await.is_none());
        }
        drop(body);

        let (stage, root) = (recorder.span("streaming_image"), recorder.root());
        assert_eq!(stage.parent(), root.id());
        let cancelled = (end == Dropped).then_some("true");
        assert_eq!(
            stage.get("image.stage.cancelled").as_deref(),
            cancelled,
            "{end:?}"
        );
        let phase = root.get("image.request.cancelled");
        let expected = (end == Dropped).then_some("streaming_image");
        assert_eq!(phase.as_deref(), expected, "{end:?}");
        if end == Failed {
            stage.assert_error("io", "the disk is gone");
            root.assert_error("io", "the disk is gone");
        } else {
            stage.assert_no_error();
        }
    }
}
