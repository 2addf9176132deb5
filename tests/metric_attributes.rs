//! Measurements have attributes of the service's own where it gives them, and a bounded number of series.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts, response};
use http_body_util::{BodyExt, Full};
use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::Sampler;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    ImageTraceLayer, RequestTrace,
    request::{Cache, Picture},
    trace::Record,
};

use crate::support::{ChannelBody, Recorder, download::builder};

const REQUEST_METRICS: [&str; 4] = [
    "http.server.request.duration",
    "image.request.time_to_first_byte",
    "http.server.request.body.size",
    "http.server.response.body.size",
];

fn request() -> Request<()> {
    let request = Request::post("/cat.jpg")
        .header("x-tenant", "acme")
        .header("content-length", 3);
    request.body(()).unwrap()
}

/// Sends one request and reads its response.
async fn send(layer: &ImageTraceLayer, request: Request<()>, handler: impl Fn(RequestTrace)) {
    let service = layer.layer(service_fn(async |request: Request<()>| {
        handler(RequestTrace::from_extensions(request.extensions()));
        let response = Response::builder().header("x-cache", "HIT").extension(7_u8);
        Ok::<_, Infallible>(
            response
                .body(Full::new(Bytes::from_static(b"cat")))
                .unwrap(),
        )
    }));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-cache"], "HIT");
    assert_eq!(response.extensions().get(), Some(&7_u8));
    response.into_body().collect().await.unwrap();
}

/// The value of an attribute in the only series of a metric.
fn label(recorder: &Recorder, metric: &str, key: &str) -> Option<String> {
    recorder.only_series(metric).attributes.remove(key)
}

#[tokio::test]
async fn a_handler_gives_its_requests_measurements_attributes() {
    for sampler in [Sampler::AlwaysOn, Sampler::AlwaysOff] {
        let recorder = Recorder::with(|tracers| tracers.with_sampler(sampler.clone()));
        let layer = recorder.builder().time_to_first_byte(true).build();
        send(&layer, request(), |trace| {
            drop(trace.queue());
            trace.set_route("/{picture}");
            trace.metric_attribute(KeyValue::new("preset", "wrong"));
            trace.metric_attribute(KeyValue::new("preset", "avatar"));
            trace.metric_attribute(KeyValue::new("source", "http://u:secret@cdn.example/a"));
            trace.metric_attribute(KeyValue::new("http.route", "mine"));
            drop(trace.process("rs:fit:1:1"));
        })
        .await;
        for metric in REQUEST_METRICS {
            let get = |key| label(&recorder, metric, key);
            assert_eq!(get("preset").as_deref(), Some("avatar"), "{metric}");
            assert_eq!(get("http.route").as_deref(), Some("/{picture}"), "{metric}");
            let source = get("source").unwrap();
            assert!(
                source.contains("cdn.example") && !source.contains("secret"),
                "{source}"
            );
        }
        assert_eq!(
            label(&recorder, "http.server.active_requests", "preset"),
            None
        );
        for stage in recorder.series("request_span_duration_seconds") {
            assert_eq!(stage.attributes.get("preset"), None);
        }
    }
}

#[tokio::test]
async fn closures_see_the_heads_of_request_and_response() {
    let recorder = Recorder::new();
    let tenant = |parts: &Parts| {
        let tenant = parts.headers["x-tenant"].to_str().unwrap().to_owned();
        [
            KeyValue::new("tenant", tenant),
            KeyValue::new("both", "request"),
        ]
    };
    let cache = |request: &Parts, response: &response::Parts| {
        assert_eq!(request.headers["x-tenant"], "acme");
        assert_eq!(response.extensions.get(), Some(&7_u8));
        let cache = response.headers["x-cache"].to_str().unwrap().to_owned();
        vec![
            KeyValue::new("cache", cache),
            KeyValue::new("both", "response"),
        ]
    };
    let layer = recorder.builder().request_metric_attributes(tenant);
    let layer = layer
        .metric_attributes(cache)
        .time_to_first_byte(true)
        .build();
    send(&layer, request(), |trace| {
        trace.metric_attribute(KeyValue::new("both", "handler"));
    })
    .await;
    for metric in REQUEST_METRICS {
        for (key, expected) in [("tenant", "acme"), ("cache", "HIT"), ("both", "response")] {
            assert_eq!(
                label(&recorder, metric, key).as_deref(),
                Some(expected),
                "{metric}"
            );
        }
    }

    // Of one that is skipped or has no answer, or whose closures panic.
    let recorder = Recorder::new();
    let layer = recorder.builder().traces(false);
    let layer = layer.request_metric_attributes(|_| -> [KeyValue; 0] { panic!("no tenant") });
    let layer = layer.metric_attributes(|_, _| -> [KeyValue; 0] { panic!("no cache") });
    let layer = layer.filter(|parts| match parts.method.as_str() {
        "POST" => Record::All,
        _ => Record::Nothing,
    });
    let layer = layer.build();
    send(&layer, request(), |_| {}).await;
    send(&layer, Request::new(()), |_| {}).await;
    let fails = layer.layer(service_fn(|_| async {
        Err::<Response<String>, _>(io::Error::other("no"))
    }));
    fails.oneshot(request()).await.unwrap_err();
    let counts = recorder.series("http.server.request.duration");
    assert_eq!(counts.iter().map(|series| series.count).sum::<u64>(), 2);
}

#[tokio::test]
async fn stages_and_downloads_have_them_when_the_layer_says_so() {
    for (stages, downloads) in [(false, false), (true, false), (false, true)] {
        let recorder = Recorder::new();
        let layer = recorder
            .builder()
            .label_stages(stages)
            .label_downloads(downloads)
            .build();
        let download = builder(&recorder).build();
        let service = layer.layer(service_fn(async |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            trace.metric_attribute(KeyValue::new("preset", "avatar"));
            trace.metric_attribute(KeyValue::new("span", "mine"));
            let answer =
                service_fn(async |_: Request<()>| Ok::<_, io::Error>(Response::new(String::new())));
            let fetched = download
                .layer(answer)
                .oneshot(Request::get("http://cdn.test/").body(()).unwrap());
            trace.download("http://cdn.test/").run(fetched).await?;
            trace
                .process("")
                .run_blocking(|| Ok::<_, io::Error>(()))
                .await?;
            Ok::<_, io::Error>(Response::new(String::new()))
        }));
        service.oneshot(request()).await.unwrap();
        let preset = |has: bool| has.then(|| "avatar".to_owned());
        for stage in recorder.series("request_span_duration_seconds") {
            assert_eq!(
                stage.attributes.get("preset"),
                preset(stages).as_ref(),
                "{stage:?}"
            );
            assert_ne!(stage.attributes["span"], "mine");
        }
        if cfg!(target_os = "linux") {
            assert_eq!(
                label(&recorder, "image.stage.cpu_time", "preset"),
                preset(stages)
            );
        }
        assert_eq!(
            label(&recorder, "http.client.request.duration", "preset"),
            preset(downloads)
        );
    }
}

#[tokio::test]
async fn calls_have_them_too() {
    let recorder = Recorder::new();
    let mut call = request();
    let grpc = "application/grpc".parse().unwrap();
    call.headers_mut().insert("content-type", grpc);
    send(&recorder.layer(), call, |trace| {
        trace.metric_attribute(KeyValue::new("preset", "avatar"));
    })
    .await;
    let preset = label(&recorder, "rpc.server.call.duration", "preset");
    assert_eq!(preset.as_deref(), Some("avatar"));
}

/// The outer layer measures the request, and the handler has the handle of the inner one.
#[tokio::test]
async fn a_layer_inside_another_passes_them_on() {
    let recorder = Recorder::new();
    let (outer, inner) = (recorder.layer(), recorder.layer());
    let service = outer.layer(inner.layer(service_fn(async |request: Request<()>| {
        let trace = RequestTrace::from_extensions(request.extensions());
        trace.metric_attribute(KeyValue::new("preset", "avatar"));
        Ok::<_, Infallible>(Response::new(String::from("cat")))
    })));
    let response = service.oneshot(request()).await.unwrap();
    response.into_body().collect().await.unwrap();
    let preset = label(&recorder, "http.server.request.duration", "preset");
    assert_eq!(preset.as_deref(), Some("avatar"));
}

#[tokio::test]
async fn a_stage_says_what_it_found_in_caches() {
    let recorder = Recorder::new();
    send(&recorder.layer(), request(), |trace| {
        let stage = trace.download("http://cdn.test/");
        stage.source_cache(Cache::Hit);
        stage.result_cache(Cache::Miss);
        stage.metric_attribute(KeyValue::new("store", "disk"));
        drop(stage);
        drop(trace.queue());
    })
    .await;
    let of = |span| recorder.only_series_of("request_span_duration_seconds", "span", span);
    let download = of("downloading_image").attributes;
    assert_eq!(download["image.source.cache"], "hit");
    assert_eq!(download["image.result.cache"], "miss");
    assert_eq!(download["store"], "disk");
    assert_eq!(of("queue").attributes.len(), 1);
    let span = recorder.span("downloading_image");
    assert_eq!(span.get("image.source.cache").as_deref(), Some("hit"));
    assert_eq!(span.get("image.result.cache").as_deref(), Some("miss"));
    assert_eq!(span.get("store"), None);
}

#[tokio::test]
async fn a_stage_says_which_pictures_came_in_and_went_out() {
    for sampler in [Sampler::AlwaysOn, Sampler::AlwaysOff] {
        let is_sampled = matches!(sampler, Sampler::AlwaysOn);
        let recorder = Recorder::with(|tracers| tracers.with_sampler(sampler));
        let service = recorder
            .layer()
            .layer(service_fn(async |request: Request<()>| {
                let trace = RequestTrace::from_extensions(request.extensions());
                let work = trace.process("").run_blocking_with(|stage| {
                    stage.source_picture(&Picture {
                        format: "jpeg",
                        width: 60_000,
                        height: 50_000,
                        size: 9,
                    });
                    stage.result_picture(&Picture {
                        format: "webp",
                        width: 3,
                        height: 2,
                        size: 1,
                    });
                    Ok::<_, io::Error>(())
                });
                work.await?;
                Ok::<_, io::Error>(Response::new(String::new()))
            }));
        service.oneshot(request()).await.unwrap();
        for (metric, key, format, sum) in [
            ("image.source.pixels", "image.source.format", "jpeg", 3e9),
            ("image.source.size", "image.source.format", "jpeg", 9.0),
            ("image.result.pixels", "image.result.format", "webp", 6.0),
            ("image.result.size", "image.result.format", "webp", 1.0),
        ] {
            let series = recorder.only_series_of(metric, key, format);
            assert_eq!((series.count, series.sum), (1, sum), "{metric}");
        }
        if is_sampled {
            let span = recorder.span("processing_image");
            for (key, value) in [
                ("image.source.format", "jpeg"),
                ("image.source.width", "60000"),
                ("image.source.height", "50000"),
                ("image.source.size", "9"),
                ("image.result.format", "webp"),
                ("image.result.width", "3"),
                ("image.result.height", "2"),
                ("image.result.size", "1"),
            ] {
                assert_eq!(span.get(key).as_deref(), Some(value), "{key}");
            }
        }
    }
}

/// A client that reads slowly.
#[tokio::test]
async fn the_time_to_the_first_byte_is_the_services() {
    const READS: Duration = Duration::from_millis(100);
    let recorder = Recorder::new();
    let layer = recorder.builder().time_to_first_byte(true).build();
    let (frames, body) = ChannelBody::new();
    let body = Mutex::new(Some(body));
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(body.lock().unwrap().take().unwrap()))
    }));
    let response = service.oneshot(request()).await.unwrap();
    tokio::time::sleep(READS).await;
    drop(frames);
    response.into_body().collect().await.unwrap();
    let duration = recorder.only_series("http.server.request.duration");
    let first_byte = recorder.only_series("image.request.time_to_first_byte");
    assert_eq!(first_byte.attributes, duration.attributes);
    assert!(
        first_byte.sum + READS.as_secs_f64() <= duration.sum,
        "{first_byte:?} {duration:?}"
    );

    // Without an answer there is none, and unless it is asked for, it is not measured.
    let recorder = Recorder::new();
    let layer = recorder.builder().time_to_first_byte(true).build();
    let fails = layer.layer(service_fn(|_| async {
        Err::<Response<String>, _>(io::Error::other("no"))
    }));
    fails.oneshot(request()).await.unwrap_err();
    send(&recorder.layer(), request(), |_| {}).await;
    assert_eq!(recorder.series("image.request.time_to_first_byte"), []);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn blocking_work_says_how_much_cpu_time_it_took() {
    use rustix::time::{ClockId, clock_gettime};
    const WORK: Duration = Duration::from_millis(20);
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(async |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
            let works = trace.stage("works").run_blocking(move || {
                let end = clock() + WORK;
                while clock() < end {}
                Ok::<_, io::Error>(())
            });
            works.await?;
            let sleeps = trace.stage("sleeps").run_blocking(|| {
                std::thread::sleep(WORK);
                Err::<(), _>(io::Error::other("tired"))
            });
            sleeps.await.unwrap_err();
            let panics = trace
                .stage("panics")
                .run_blocking(|| -> io::Result<()> { panic!("at once") });
            tokio::spawn(panics).await.unwrap_err();
            Ok::<_, io::Error>(Response::new(String::new()))
        }));
    service.oneshot(request()).await.unwrap();
    let of = |span| {
        recorder
            .only_series_of("image.stage.cpu_time", "span", span)
            .sum
    };
    assert!(of("works") >= WORK.as_secs_f64());
    assert!(
        of("sleeps")
            < recorder
                .only_series_of("request_span_duration_seconds", "span", "sleeps")
                .sum
    );
    assert_eq!(recorder.series("image.stage.cpu_time").len(), 2);
    let attribute = recorder.span("works").get("image.stage.cpu_time").unwrap();
    assert_eq!(attribute.parse::<f64>().unwrap(), of("works"));
    assert_eq!(recorder.span("sleeps").exceptions(), ["tired"]);
    assert_eq!(recorder.span("panics").exceptions(), ["at once"]);
}

#[tokio::test]
async fn what_comes_after_the_limit_is_one_series_and_said_once() {
    use tower_image_trace::{Telemetry, telemetry::TelemetryEvent};

    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .prometheus(true)
        .series_limit(10)
        .on_event(move |event| {
            if let TelemetryEvent::SeriesLimit { metric, limit } = event {
                heard
                    .lock()
                    .unwrap()
                    .push((metric.clone(), *limit, event.to_string()));
            }
        })
        .build()
        .unwrap();
    let layer = telemetry.trace_layer();
    for number in 0..1_000 {
        send(&layer, request(), |trace| {
            trace.metric_attribute(KeyValue::new("tenant", format!("t{number}")));
        })
        .await;
    }
    for _ in 0..3 {
        let page = telemetry
            .prometheus()
            .oneshot(Request::new(()))
            .await
            .unwrap();
        let page = page.into_body().collect().await.unwrap().to_bytes();
        let page = std::str::from_utf8(&page).unwrap();
        let counts: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("http_server_request_duration_seconds_count{"))
            .collect();
        assert_eq!(counts.len(), 11, "{counts:#?}");
        let overflow: Vec<_> = counts
            .iter()
            .filter(|line| line.contains(r#"{otel_metric_overflow="true","#))
            .collect();
        assert!(
            overflow.len() == 1 && overflow[0].ends_with(" 990"),
            "{overflow:?}"
        );
    }
    let mut said = said.lock().unwrap().clone();
    said.sort();
    let metrics: Vec<_> = said
        .iter()
        .map(|(metric, limit, _)| (metric.as_str(), *limit))
        .collect();
    assert_eq!(
        metrics,
        [
            ("http.server.request.body.size", 10),
            ("http.server.request.duration", 10),
            ("http.server.response.body.size", 10),
        ]
    );
    assert!(
        said[0].2.contains("has reached the limit of 10 series"),
        "{}",
        said[0].2
    );
}

/// Nothing here has a trace to label.
#[tokio::test]
async fn without_metrics_they_go_nowhere() {
    RequestTrace::default().metric_attribute(KeyValue::new("preset", "avatar"));
    let recorder = Recorder::new();
    let layer = recorder.builder().metrics(false);
    let asked = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&asked);
    let layer = layer.request_metric_attributes(move |_| {
        told.store(true, Ordering::Relaxed);
        []
    });
    send(&layer.build(), request(), |trace| {
        trace.metric_attribute(KeyValue::new("preset", "avatar"));
        let stage = trace.queue();
        stage.metric_attribute(KeyValue::new("preset", "avatar"));
        stage.source_picture(&Picture::default());
    })
    .await;
    assert_eq!(recorder.metric_names(), [] as [&str; 0]);
    assert!(!asked.load(Ordering::Relaxed));
}
