//! The live page: what runs, samples that survive any flood, and who may look.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use opentelemetry::{KeyValue, trace::TraceContextExt};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_image_trace::{
    ErrorKind, RequestTrace, Stage, Telemetry, TelemetryError,
    telemetry::{Sampler, Settings, TelemetryBuilder, TracePageSettings},
    trace::PeerAddr,
};

use crate::support::otlp::{OtlpServer, PATIENCE};

fn builder() -> TelemetryBuilder {
    Telemetry::builder().vars([("", ""); 0]).trace_page(true)
}

/// A request of a browser on this machine.
fn get(path: &str) -> Request<Empty<Bytes>> {
    let peer: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    Request::get(path)
        .header("host", "localhost:9411")
        .extension(PeerAddr::from(peer))
        .body(Empty::new())
        .unwrap()
}

async fn ask(
    telemetry: &Telemetry,
    request: Request<Empty<Bytes>>,
) -> (StatusCode, HeaderMap, Bytes) {
    let response = telemetry.trace_page().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, body)
}

async fn json(telemetry: &Telemetry, path: &str) -> Value {
    let (status, headers, body) = ask(telemetry, get(path)).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(&body).unwrap()
}

/// One request, and what its handler does.
async fn serve<F: Future<Output = Result<StatusCode, io::Error>>>(
    telemetry: &Telemetry,
    path: &str,
    handler: impl Fn(RequestTrace) -> F,
) {
    let handler = &handler;
    let service = service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        let status = handler(trace).await?;
        let mut response = Response::new(String::from("cat"));
        *response.status_mut() = status;
        Ok::<_, io::Error>(response)
    });
    let service = telemetry.trace_layer().layer(service);
    let request = Request::get(path).body(()).unwrap();
    if let Ok(response) = service.oneshot(request).await {
        response.into_body().collect().await.unwrap();
    }
}

async fn picture(trace: RequestTrace) -> Result<StatusCode, io::Error> {
    trace.set_route("/resize/{options}/{source}");
    trace.process("rs:fit:1:1").end();
    Ok(StatusCode::OK)
}

#[tokio::test]
async fn a_request_that_hangs_is_shown_with_its_stage_and_ends_when_it_does() {
    let telemetry = builder().build().unwrap();
    let (finish, finished) = oneshot::channel::<()>();
    let (started, starts) = oneshot::channel();
    let signals = Mutex::new(Some((started, finished)));
    // A task that goes on after the request may keep its handle.
    let kept = Mutex::new(RequestTrace::default());
    let handler = |trace: RequestTrace| {
        *kept.lock().unwrap() = trace.clone();
        let (started, finished) = signals.lock().unwrap().take().unwrap();
        async move {
            trace.set_route("/resize/{options}/{source}");
            trace.queue().end();
            let stage = trace.download("https://cdn.example/cat.jpg?sig=5ecre7");
            let _ = started.send(());
            let _ = finished.await;
            stage.end();
            Ok(StatusCode::OK)
        }
    };
    let look = async {
        starts.await.unwrap();
        let state = json(&telemetry, "/api/state").await;
        assert_eq!(state["running_total"], 1);
        let running = &state["running"][0];
        assert_eq!(running["name"], "GET /resize/{options}/{source}");
        assert_eq!(running["span_id"].as_str().unwrap().len(), 16);
        assert_eq!(running["path"], "/plain/https://cdn.example/cat.jpg");
        assert_eq!(running["stages"][0]["name"], "downloading_image");
        assert!(running["stages"][0]["age_ms"].as_f64().unwrap() >= 0.0);
        assert!(running["age_ms"].as_f64() >= running["stages"][0]["age_ms"].as_f64());
        assert_eq!(running["done"][0]["name"], "queue");
        assert_eq!(running["done"].as_array().unwrap().len(), 1);
        let name = "GET%20%2Fresize%2F%7Boptions%7D%2F%7Bsource%7D";
        let zpage = json(&telemetry, &format!("/tracez/api/running/{name}")).await;
        assert_eq!(zpage[0]["traceid"], running["trace_id"]);
        assert_eq!(zpage[0]["spanid"], running["span_id"]);
        let id = running["trace_id"].as_str().unwrap().to_owned();
        let (status, _, body) = ask(&telemetry, get(&format!("/api/traces/{id}"))).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(String::from_utf8_lossy(&body).contains("still running"));
        finish.send(()).unwrap();
        id
    };
    let request = serve(&telemetry, "/plain/https://cdn.example/cat.jpg", handler);
    let ((), id) = tokio::join!(request, look);
    let state = json(&telemetry, "/api/state").await;
    assert_eq!(state["running_total"], 0);
    assert_eq!(state["routes"][0]["count"], 1);
    assert_eq!(
        state["routes"][0]["samples"][0].as_array().unwrap().len(),
        9
    );
    let trace = json(&telemetry, &format!("/api/traces/{id}")).await;
    let names = trace["spans"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "GET /resize/{options}/{source}",
            "queue",
            "downloading_image"
        ]
    );
    assert_eq!(trace["spans"][2]["parent_id"], trace["spans"][0]["span_id"]);
    assert_eq!(trace["spans"][2]["depth"], 1);
    assert_eq!(trace["running"], false);
    assert_eq!(trace["exported"], false, "there is no collector");
}

#[tokio::test]
async fn a_flood_washes_out_neither_the_failed_nor_the_slow_one() {
    const FLOOD: usize = 200_000;
    let telemetry = builder().build().unwrap();
    let layer = telemetry.trace_layer();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        let path = request.uri().path().to_owned();
        trace.set_route("/{picture}");
        trace.queue().end();
        match path.as_str() {
            "/failed" => return Err(io::Error::other("the disk is full")),
            "/slow" => tokio::time::sleep(Duration::from_millis(150)).await,
            _ => {}
        }
        Ok(Response::new(String::new()))
    }));
    let send = async |path: &str| {
        let request = Request::get(path).body(()).unwrap();
        let _ = service.clone().oneshot(request).await;
    };
    for number in 0..FLOOD {
        send("/cat").await;
        match number {
            100 => send("/failed").await,
            200 => send("/slow").await,
            _ => {}
        }
    }
    let failed = json(&telemetry, "/api/traces?outcome=failed").await;
    assert_eq!(failed["matched"], 1);
    assert_eq!(failed["traces"][0]["path"], "/failed");
    assert_eq!(failed["traces"][0]["message"], "the disk is full");
    let slow = json(&telemetry, "/api/traces?q=SLOW").await;
    assert_eq!(slow["matched"], 1);
    assert_eq!(slow["traces"][0]["band"], 5);
    let state = json(&telemetry, "/api/state").await;
    assert_eq!(state["routes"][0]["count"], FLOOD + 2);
    assert_eq!(state["routes"][0]["failed"], 1);
    let stage = &state["routes"][0]["stages"][0];
    assert_eq!(
        (stage["name"].as_str(), stage["count"].as_u64()),
        (Some("queue"), Some(FLOOD as u64 + 2))
    );
    assert!(
        state["memory"]["used_bytes"].as_u64().unwrap() <= 8 << 20,
        "{}",
        state["memory"]
    );
    let quantiles = ["p50_ms", "p95_ms", "p99_ms"].map(|name| state["routes"][0][name].as_f64());
    assert!(
        quantiles.iter().all(Option::is_some) && quantiles.is_sorted(),
        "{quantiles:?}"
    );
}

#[tokio::test]
async fn memory_stays_in_its_bounds_whatever_comes() {
    const LIMIT: u64 = 512 << 10;
    let telemetry = builder()
        .trace_page_max_bytes(LIMIT as usize)
        .build()
        .unwrap();
    serve(&telemetry, "/failed", async |_| {
        Err(io::Error::other("early"))
    })
    .await;
    let mut late: Vec<Stage> = Vec::new();
    for number in 0..2_000 {
        let late = &mut late;
        let stages = Mutex::new(Vec::new());
        let route = format!("/{}/{{x}}", number % 500);
        serve(
            &telemetry,
            &format!("/{number}/{}", "x".repeat(number)),
            async |trace| {
                trace.set_route(&route);
                for _ in 0..number % 9 {
                    trace.process("x".repeat(100)).end();
                }
                stages.lock().unwrap().push(trace.stage("late"));
                Ok(StatusCode::OK)
            },
        )
        .await;
        late.extend(stages.into_inner().unwrap());
        let state = json(&telemetry, "/api/state").await;
        let used = state["memory"]["used_bytes"].as_u64().unwrap();
        assert!(used <= LIMIT, "{used} after {number}");
    }
    drop(late);
    let state = json(&telemetry, "/api/state").await;
    assert!(state["memory"]["used_bytes"].as_u64().unwrap() <= LIMIT);
    let routes = state["routes"].as_array().unwrap();
    assert!((20..=200).contains(&routes.len()), "{}", routes.len());
    assert!(routes.iter().any(|route| route["name"] == "(other)"));
    let failed = json(&telemetry, "/api/traces?outcome=failed").await;
    assert_eq!(failed["matched"], 1, "the failed one is still there");
}

#[tokio::test]
async fn a_stage_that_ends_after_its_request_joins_its_trace() {
    let telemetry = builder().build().unwrap();
    let stage = Mutex::new(None);
    serve(&telemetry, "/", async |trace| {
        *stage.lock().unwrap() = Some(trace.stage("watermark"));
        Ok(StatusCode::OK)
    })
    .await;
    let before = json(&telemetry, "/api/state").await["latest"].clone();
    assert_eq!(
        json(&telemetry, "/api/traces").await["traces"][0]["spans"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    drop(stage);
    let spans = &json(&telemetry, "/api/traces").await["traces"][0]["spans"];
    assert_eq!(spans[0]["name"], "watermark");
    assert_ne!(json(&telemetry, "/api/state").await["latest"], before);
}

const SAME: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn latest(telemetry: &Telemetry) -> u64 {
    let state = json(telemetry, "/api/state").await;
    state["latest"].as_str().unwrap().parse().unwrap()
}

/// The pictures of one website share the trace of its visit.
#[tokio::test]
async fn requests_of_one_trace_keep_their_own_stages() {
    let telemetry = builder().build().unwrap();
    let layer = telemetry.trace_layer();
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let send = |path: &'static str, fails: bool| {
        let both = Arc::clone(&both);
        let service = layer.layer(service_fn(move |request: Request<()>| {
            let both = Arc::clone(&both);
            async move {
                let trace = RequestTrace::from_extensions(request.extensions());
                trace
                    .stage(if fails { "of_failed" } else { "of_good" })
                    .end();
                both.wait().await;
                if fails {
                    both.wait().await;
                    return Err(io::Error::other("broken"));
                }
                Ok(Response::new(String::new()))
            }
        }));
        let request = Request::get(path)
            .header("traceparent", SAME)
            .body(())
            .unwrap();
        async move {
            if let Ok(response) = service.oneshot(request).await {
                response.into_body().collect().await.unwrap();
            }
        }
    };
    let good = async {
        send("/good", false).await;
        let state = json(&telemetry, "/api/state").await;
        let counted = state["routes"][0]["stages"].as_array().unwrap();
        assert_eq!(counted.len(), 1);
        assert_eq!(
            counted[0]["name"], "of_good",
            "the other request's stage waits for its own root"
        );
        both.wait().await;
    };
    tokio::join!(send("/failed", true), good);
    let row = &json(&telemetry, "/api/traces").await["traces"][0];
    assert_eq!(row["outcome"], "failed", "the worse one stands for both");
    assert_eq!(row["path"], "/failed");
    let trace = json(&telemetry, "/api/traces/0af7651916cd43dd8448eb211c80319c").await;
    assert_eq!(trace["spans"].as_array().unwrap().len(), 4);
    for name in ["of_good", "of_failed"] {
        let spans = trace["spans"].as_array().unwrap();
        let stage = spans.iter().find(|span| span["name"] == name).unwrap();
        assert_eq!(stage["depth"], 1, "{name}");
    }
}

/// A client chooses the trace id, also the same one for all its requests.
#[tokio::test]
async fn requests_of_one_trace_displace_no_others_and_cost_no_more_than_others() {
    const SENT: u64 = 3_000;
    let telemetry = builder().trace_page_max_bytes(512 << 10).build().unwrap();
    for number in 0..16 {
        serve(&telemetry, &format!("/other/{number}"), picture).await;
    }
    let layer = telemetry.trace_layer();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let trace = RequestTrace::from_extensions(request.extensions());
        trace.set_route("/same");
        for _ in 0..9 {
            trace.process("x".repeat(200)).end();
        }
        Ok::<_, io::Error>(Response::new(String::new()))
    }));
    let start = Instant::now();
    let before = latest(&telemetry).await;
    for _ in 0..SENT {
        let request = Request::get("/same").header("traceparent", SAME);
        let request = request.body(()).unwrap();
        service.clone().oneshot(request).await.unwrap();
    }
    let taken = latest(&telemetry).await - before;
    // In each of the nine latency bands some at once, and then one every 10 ms.
    let most = 9 * (17 + start.elapsed().as_millis() as u64 / 10);
    assert!(taken <= most, "{taken} of {SENT} were taken, not {most}");
    // Those that were taken are enough to fill the memory.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(11)).await;
        let request = Request::get("/same").header("traceparent", SAME);
        let request = request.body(()).unwrap();
        service.clone().oneshot(request).await.unwrap();
    }
    let others = json(&telemetry, "/api/traces?q=other").await;
    assert_eq!(others["matched"], 16);
    let same = json(&telemetry, "/api/traces?q=same").await;
    assert_eq!(same["matched"], 1);
}

/// The pictures of a visit may be asked for one after the other.
#[tokio::test]
async fn stages_of_later_requests_of_a_trace_are_counted_with_their_own() {
    let telemetry = builder().build().unwrap();
    let layer = telemetry.trace_layer();
    let late = Arc::new(Mutex::new(Vec::new()));
    for path in ["/first", "/second"] {
        let kept = Arc::clone(&late);
        let service = layer.layer(service_fn(move |request: Request<()>| {
            let kept = Arc::clone(&kept);
            async move {
                let trace = RequestTrace::from_extensions(request.extensions());
                trace.set_route(request.uri().path());
                trace.queue().end();
                // A stage below another one, both of which outlive their request.
                let outer = trace.stage("outer");
                let inner = outer.in_scope(|| trace.stage("inner"));
                kept.lock().unwrap().push((inner, outer));
                Ok::<_, io::Error>(Response::new(String::new()))
            }
        }));
        let request = Request::get(path).header("traceparent", SAME);
        let request = request.body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let state = json(&telemetry, "/api/state").await;
    for route in 0..2 {
        let stage = &state["routes"][route]["stages"][0];
        let found = (stage["name"].as_str(), stage["count"].as_u64());
        assert_eq!(found, (Some("queue"), Some(1)), "{state}");
    }
    for (inner, outer) in late.lock().unwrap().drain(..) {
        inner.end();
        outer.end();
    }
    let trace = json(&telemetry, "/api/traces/0af7651916cd43dd8448eb211c80319c").await;
    let spans = trace["spans"].as_array().unwrap().iter();
    let found: Vec<_> = spans
        .map(|span| {
            (
                span["name"].as_str().unwrap(),
                span["depth"].as_u64().unwrap(),
            )
        })
        .collect();
    let stages = [("queue", 1), ("outer", 1), ("inner", 2)];
    let first = [[("GET /first", 0)].as_slice(), &stages].concat();
    let second = [[("GET /second", 0)].as_slice(), &stages].concat();
    assert_eq!(found, [first, second].concat());
}

#[tokio::test]
async fn a_failed_request_is_held_however_much_it_says() {
    let telemetry = builder().trace_page_max_bytes(256 << 10).build().unwrap();
    serve(&telemetry, "/chatty", async |trace| {
        trace.set_route("/chatty");
        let failed = trace.stage("failed_first");
        failed.record_error(&io::Error::other("the cause"));
        failed.end();
        for _ in 0..60 {
            trace.process("x".repeat(200)).end();
        }
        Err(io::Error::other("the disk is full"))
    })
    .await;
    let failed = json(&telemetry, "/api/traces?outcome=failed").await;
    assert_eq!(failed["matched"], 1);
    assert_eq!(failed["traces"][0]["path"], "/chatty");
    assert_eq!(failed["traces"][0]["message"], "the disk is full");
    let id = failed["traces"][0]["trace_id"].as_str().unwrap();
    let trace = json(&telemetry, &format!("/api/traces/{id}")).await;
    let spans = trace["spans"].as_array().unwrap();
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).count();
    assert_eq!(named("failed_first"), 1, "what failed stays");
    let processed = named("processing_image");
    assert!((10..60).contains(&processed), "{processed}");
    assert_eq!(trace["left_out"], 60 - processed, "and is not concealed");
}

#[tokio::test]
async fn what_the_sampler_drops_is_shown_and_not_exported() {
    let server = OtlpServer::start();
    let telemetry = builder()
        .endpoint(server.endpoint())
        .sampler(Sampler::AlwaysOff)
        .build()
        .unwrap();
    let sampled = Mutex::new(Vec::new());
    serve(&telemetry, "/dropped", async |trace| {
        sampled
            .lock()
            .unwrap()
            .push(trace.context().span().span_context().is_sampled());
        picture(trace).await
    })
    .await;
    assert_eq!(
        *sampled.lock().unwrap(),
        [false],
        "others are told what the sampler said"
    );
    let row = &json(&telemetry, "/api/traces").await["traces"][0];
    assert_eq!(
        (row["path"].as_str(), row["exported"].as_bool()),
        (Some("/dropped"), Some(false))
    );
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert_eq!(telemetry.span_stats().exported, 0);

    let telemetry = builder().endpoint(server.endpoint()).build().unwrap();
    serve(&telemetry, "/kept", picture).await;
    let row = &json(&telemetry, "/api/traces").await["traces"][0];
    assert_eq!(
        (row["path"].as_str(), row["exported"].as_bool()),
        (Some("/kept"), Some(true))
    );
    telemetry.shutdown(PATIENCE).await.unwrap();
    let names: Vec<_> = server
        .spans()
        .iter()
        .map(|span| span.name.clone())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let exporter = &json(&telemetry, "/api/state").await["exporters"][0];
    assert_eq!(
        (exporter["signal"].as_str(), exporter["exported"].as_u64()),
        (Some("traces"), Some(2))
    );
}

#[tokio::test]
async fn outcomes_are_told_apart_and_found() {
    find_outcomes(builder().build().unwrap()).await;
    // Spans that go to a collector are written without the SDK.
    find_outcomes(builder().endpoint("http://127.0.0.1:9").build().unwrap()).await;
}

async fn find_outcomes(telemetry: Telemetry) {
    serve(&telemetry, "/good", picture).await;
    serve(&telemetry, "/missing", async |_| Ok(StatusCode::NOT_FOUND)).await;
    serve(&telemetry, "/broken", async |trace| {
        let failed = io::Error::other("no space left on device");
        trace.error(ErrorKind::Download, &failed);
        Ok(StatusCode::BAD_GATEWAY)
    })
    .await;
    // The client leaves.
    let service = telemetry
        .trace_layer()
        .layer(service_fn(async |_: Request<()>| {
            std::future::pending::<Result<Response<String>, Infallible>>().await
        }));
    let gone = service.oneshot(Request::get("/gone").body(()).unwrap());
    assert!(timeout(Duration::from_millis(1), gone).await.is_err());
    for (query, expected) in [
        ("", vec!["/gone", "/broken", "/missing", "/good"]),
        ("outcome=ok", vec!["/missing", "/good"]),
        ("outcome=failed", vec!["/broken"]),
        ("outcome=cancelled", vec!["/gone"]),
        (
            "route=GET+%2Fresize%2F%7Boptions%7D%2F%7Bsource%7D",
            vec!["/good"],
        ),
        // The word alone may be in a trace id.
        ("q=404+missing", vec!["/missing"]),
        ("q=SPACE+device", vec!["/broken"]),
        ("q=space+cat", vec![]),
        ("limit=1", vec!["/gone"]),
        ("band=8", vec![]),
    ] {
        let found = json(&telemetry, &format!("/api/traces?{query}")).await;
        let paths = found["traces"].as_array().unwrap().iter();
        let paths: Vec<_> = paths.map(|row| row["path"].as_str().unwrap()).collect();
        assert_eq!(paths, expected, "{query}");
        let matched = if query == "limit=1" {
            4
        } else {
            expected.len()
        };
        assert_eq!(found["matched"], matched, "{query}");
    }
    let broken = &json(&telemetry, "/api/traces?outcome=failed").await["traces"][0];
    assert_eq!(
        (broken["status"].as_u64(), broken["error_type"].as_str()),
        (Some(502), Some("502"))
    );
    for (path, expected) in [
        ("/api/traces?outcome=great", StatusCode::BAD_REQUEST),
        ("/api/traces?band=x", StatusCode::BAD_REQUEST),
        ("/api/traces/xyz", StatusCode::BAD_REQUEST),
        (
            "/api/traces/00000000000000000000000000000001",
            StatusCode::NOT_FOUND,
        ),
    ] {
        let (status, _, body) = ask(&telemetry, get(path)).await;
        assert_eq!(status, expected, "{path}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(
            body["error"].as_str().unwrap().contains(' '),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn a_trace_can_be_downloaded_as_otlp_json_and_zpages_have_their_form() {
    let telemetry = builder().service_name("thumbs").build().unwrap();
    serve(&telemetry, "/cat", picture).await;
    serve(&telemetry, "/bad", async |trace| {
        trace.set_route("/resize/{options}/{source}");
        Err(io::Error::other("broken"))
    })
    .await;
    let row = json(&telemetry, "/api/traces?outcome=ok").await["traces"][0].clone();
    let id = row["trace_id"].as_str().unwrap();
    let (status, headers, body) =
        ask(&telemetry, get(&format!("/api/traces/{id}/otlp.json"))).await;
    assert_eq!(status, StatusCode::OK);
    let disposition = &headers[header::CONTENT_DISPOSITION];
    assert_eq!(
        disposition,
        &format!("attachment; filename=\"{id}.otlp.json\"")
    );
    let request: ExportTraceServiceRequest = serde_json::from_slice(&body).unwrap();
    let resource = &request.resource_spans[0];
    assert!(format!("{:?}", resource.resource).contains("thumbs"));
    let scope = &resource.scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "tower-image-trace");
    let names: Vec<_> = scope.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        ["processing_image", "GET /resize/{options}/{source}"]
    );
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains(&format!("\"traceId\":\"{id}\"")), "{text}");

    let counts = json(&telemetry, "/tracez/api/aggregations").await;
    assert_eq!(counts.as_array().unwrap().len(), 1);
    assert_eq!(counts[0]["spanname"], "GET /resize/{options}/{source}");
    assert_eq!(
        (counts[0]["running"].as_u64(), counts[0]["error"].as_u64()),
        (Some(0), Some(1))
    );
    let latency = counts[0]["latency"].as_array().unwrap();
    assert_eq!(latency.len(), 9);
    let band = latency.iter().position(|count| *count == 1).unwrap();
    let name = "GET%20/resize/%7Boptions%7D/%7Bsource%7D";
    let data = json(&telemetry, &format!("/tracez/api/latency/{band}/{name}")).await;
    assert_eq!(data.as_array().unwrap().len(), 1);
    assert_eq!(data[0]["traceid"], id);
    assert!(data[0]["starttime"].as_str() < data[0]["endtime"].as_str());
    let keys = data[0]["attributes"].as_array().unwrap();
    assert!(keys.iter().any(|attribute| attribute["key"] == "url.path"));
    let errors = json(&telemetry, &format!("/tracez/api/error/{name}")).await;
    assert_eq!(errors[0]["status"]["message"], "broken");
    for path in [
        "/tracez/api/latency/9/x",
        "/tracez/api/latency/x",
        "/tracez/api/",
        "/tracez/api/x",
    ] {
        let (status, ..) = ask(&telemetry, get(path)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

const SOURCE: &str =
    "https://alice:hunter2@cdn.example/private/cat.jpg?w=9&sig=5ecre7&X-Amz-Signature=5ecre7";
const SECRETS: [&str; 3] = ["alice", "hunter2", "5ecre7"];
const MARKUP: &str = "<script>alert(1)</script>";

/// Everything that the page serves of a service's requests.
async fn everything(telemetry: &Telemetry) -> Vec<(HeaderMap, String)> {
    let mut paths = vec![
        "/api/state".to_owned(),
        "/api/traces?limit=500".to_owned(),
        "/tracez/api/aggregations".to_owned(),
    ];
    let state = json(telemetry, "/api/state").await;
    let names = state["routes"].as_array().unwrap().iter();
    for name in names.map(|route| route["name"].as_str().unwrap()) {
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        paths.push(format!("/tracez/api/running/{name}"));
        paths.push(format!("/tracez/api/error/{name}"));
        paths.extend((0..9).map(|band| format!("/tracez/api/latency/{band}/{name}")));
    }
    let list = json(telemetry, "/api/traces?limit=500").await;
    for row in list["traces"].as_array().unwrap() {
        let id = row["trace_id"].as_str().unwrap();
        paths.push(format!("/api/traces/{id}"));
        paths.push(format!("/api/traces/{id}/otlp.json"));
    }
    let mut served = Vec::new();
    for path in paths {
        let (status, headers, body) = ask(telemetry, get(&path)).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        served.push((headers, String::from_utf8(body.to_vec()).unwrap()));
    }
    let page = telemetry
        .trace_page()
        .oneshot(get("/api/events"))
        .await
        .unwrap();
    let headers = page.headers().clone();
    let first = page
        .into_body()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    served.push((headers, String::from_utf8(first.to_vec()).unwrap()));
    served
}

#[tokio::test]
async fn no_secret_is_served_and_nothing_becomes_markup() {
    let telemetry = builder().build().unwrap();
    let layer = telemetry.trace_layer();
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, SOURCE);
    let percent: String = SOURCE.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let paths = [
        format!("/plain/{SOURCE}"),
        format!("/plain/{percent}@webp"),
        format!("/signature/{encoded}.webp"),
        format!("/resize?url={percent}&w=300"),
        "/resize?sig=5ecre7&w=300".to_owned(),
        "/%3Cscript%3Ealert(1)%3C/script%3E?q=%3Cscript%3E".to_owned(),
    ];
    let (started, mut starts) = tokio::sync::mpsc::channel(1);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let started = started.clone();
        async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            let failed = io::Error::other(format!("{MARKUP} for url ({SOURCE})"));
            trace.download(SOURCE).record_error(&failed);
            let _stage = trace.stage(MARKUP);
            trace.set_attribute(opentelemetry::KeyValue::new("note", SOURCE));
            if request.headers().contains_key("hang") {
                started.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }
            Err::<Response<String>, _>(failed)
        }
    }));
    let mut hanging = tokio::task::JoinSet::new();
    for path in &paths {
        let request = || Request::get(path.as_str()).header("user-agent", MARKUP);
        let hang = request().header("hang", "").body(()).unwrap();
        hanging.spawn(service.clone().oneshot(hang));
        starts.recv().await.unwrap();
        let failed = service.clone().oneshot(request().body(()).unwrap());
        assert!(failed.await.is_err());
    }
    let state = json(&telemetry, "/api/state").await;
    assert_eq!(state["running_total"], paths.len());
    let served = everything(&telemetry).await;
    assert!(served.len() > 10);
    let mut seen = false;
    for (headers, text) in served {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
        assert!(
            ["application/json", "text/event-stream"].contains(&kind),
            "{kind}"
        );
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        seen |= text.contains(MARKUP);
    }
    assert!(seen, "markup stays the text that it is, in JSON");
    let (_, _, index) = ask(&telemetry, get("/")).await;
    assert!(!String::from_utf8_lossy(&index).contains(MARKUP));
}

#[tokio::test]
async fn files_have_tags_and_a_strict_policy() {
    let telemetry = builder().build().unwrap();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let (status, headers, body) = ask(&telemetry, get(path)).await;
        assert_eq!(
            (status, &headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &kind.parse().unwrap())
        );
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");

        for known in [headers[header::ETAG].clone(), "*".parse().unwrap()] {
            let mut again = get(path);
            again.headers_mut().insert(header::IF_NONE_MATCH, known);
            let (status, _, empty) = ask(&telemetry, again).await;
            assert_eq!(
                (status, empty.len()),
                (StatusCode::NOT_MODIFIED, 0),
                "{path}"
            );
        }

        let mut gzip = get(path);
        gzip.headers_mut()
            .insert(header::ACCEPT_ENCODING, "gzip".parse().unwrap());
        let (_, headers, compressed) = ask(&telemetry, gzip).await;
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        let mut plain = Vec::new();
        io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&compressed[..]),
            &mut plain,
        )
        .unwrap();
        assert_eq!(plain, body, "{path}");

        let mut head = get(path);
        *head.method_mut() = http::Method::HEAD;
        let (status, headers, nothing) = ask(&telemetry, head).await;
        assert_eq!((status, nothing.len()), (StatusCode::OK, 0));
        assert_eq!(
            headers[header::CONTENT_LENGTH],
            body.len().to_string(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn others_are_refused_with_a_sentence() {
    let telemetry = builder().build().unwrap();
    let mut post = get("/");
    *post.method_mut() = http::Method::POST;
    let (status, headers, body) = ask(&telemetry, post).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(headers[header::ALLOW], "GET, HEAD");
    assert_eq!(body, "only GET and HEAD are answered\n");

    let unknown = Request::get("/api/state")
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap();
    let (status, _, body) = ask(&telemetry, unknown).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(String::from_utf8_lossy(&body).contains("into_make_service_with_connect_info"));

    let mut foreign = get("/api/state");
    foreign
        .headers_mut()
        .insert("host", "evil.example".parse().unwrap());
    assert_eq!(ask(&telemetry, foreign).await.0, StatusCode::FORBIDDEN);

    for path in [
        "/../../etc/passwd",
        "/assets/main.js",
        "/%2e%2e/main.js",
        "/api",
        "/api/state/",
        "/x",
    ] {
        let (status, _, body) = ask(&telemetry, get(path)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {body:?}");
    }
    let long = format!("/api/traces?q={}", "x".repeat(8_000));
    assert_eq!(ask(&telemetry, get(&long)).await.0, StatusCode::BAD_REQUEST);

    let allowed = telemetry
        .trace_page_builder()
        .authorize(|parts| parts.headers.contains_key("cookie"));
    let allowed = allowed.build();
    for (request, expected) in [
        (
            Request::get("/api/state").header("cookie", "a=b"),
            StatusCode::OK,
        ),
        (Request::get("/api/state"), StatusCode::FORBIDDEN),
    ] {
        let request = request.body(String::new()).unwrap();
        assert_eq!(
            allowed.clone().oneshot(request).await.unwrap().status(),
            expected
        );
    }

    let off = Telemetry::builder().vars([("", ""); 0]).build().unwrap();
    assert!(!off.is_enabled());
    let (status, _, body) = ask(&off, get("/")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&body).contains("IMGPROXY_OPEN_TELEMETRY_PAGE_BIND"));
}

#[tokio::test]
async fn the_page_lies_under_any_path() {
    let telemetry = builder().build().unwrap();
    let router: Router = Router::new().nest_service("/debug/traces", telemetry.trace_page());
    let own = telemetry
        .trace_page_builder()
        .path("/debug/traces/")
        .build();
    for (path, expected, location) in [
        (
            "/debug/traces?trace=1",
            StatusCode::PERMANENT_REDIRECT,
            Some("./traces/?trace=1"),
        ),
        ("/debug/traces/", StatusCode::OK, None),
        ("/debug/traces/main.js", StatusCode::OK, None),
        ("/debug/traces/api/state", StatusCode::OK, None),
        ("/debug/tracesx", StatusCode::NOT_FOUND, None),
        ("/main.js", StatusCode::NOT_FOUND, None),
    ] {
        let nested = router.clone().oneshot(get(path)).await.unwrap();
        let with_path = own.clone().oneshot(get(path)).await.unwrap();
        assert_eq!(nested.status(), expected, "nested {path}");
        assert_eq!(with_path.status(), expected, "{path}");
        for headers in [nested.headers(), with_path.headers()] {
            let found = headers.get(header::LOCATION).map(|to| to.to_str().unwrap());
            assert_eq!(found, location, "{path}");
        }
    }
}

#[tokio::test]
async fn a_listener_serves_the_page_and_streams_what_happens() {
    let telemetry = Telemetry::builder()
        .vars([("IMGPROXY_OPEN_TELEMETRY_PAGE_BIND", "127.0.0.1:0")])
        .build()
        .unwrap();
    assert!(telemetry.is_enabled());
    let address = telemetry.page_address().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = String::new();
    let mut read_until = async |text: &str| {
        let mut buffer = [0; 4096];
        while !told.contains(text) {
            let read = timeout(PATIENCE, stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert!(read > 0, "the stream has ended: {told}");
            told.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    read_until("event: state\ndata: {").await;
    read_until("\"running_total\":0").await;
    serve(&telemetry, "/cat", picture).await;
    let start = Instant::now();
    read_until("\"latest\":\"1\"").await;
    assert!(start.elapsed() < Duration::from_secs(10));

    // The end of telemetry ends the streams, on the listener and elsewhere.
    let mut elsewhere = telemetry
        .trace_page()
        .oneshot(get("/api/events"))
        .await
        .unwrap()
        .into_body();
    assert!(elsewhere.frame().await.is_some());
    telemetry.shutdown(PATIENCE).await.unwrap();
    while let Some(frame) = timeout(PATIENCE, elsewhere.frame()).await.unwrap() {
        frame.unwrap();
    }
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap();
}

#[tokio::test]
async fn streams_are_bounded_and_given_back() {
    let telemetry = builder().build().unwrap();
    let open = async || {
        telemetry
            .trace_page()
            .oneshot(get("/api/events"))
            .await
            .unwrap()
    };
    let mut streams = Vec::new();
    for _ in 0..16 {
        let stream = open().await;
        assert_eq!(stream.status(), StatusCode::OK);
        streams.push(stream);
    }
    assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    streams.pop();
    assert_eq!(open().await.status(), StatusCode::OK);
}

#[test]
fn mistakes_in_settings_name_the_setting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let bind = "IMGPROXY_OPEN_TELEMETRY_PAGE_BIND";
    let bytes = "IMGPROXY_OPEN_TELEMETRY_PAGE_MAX_BYTES";
    let of = |vars: &[(&'static str, &str)]| {
        let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, *value)).collect();
        Telemetry::builder()
            .vars(vars)
            .build()
            .unwrap_err()
            .to_string()
    };
    for (found, expected) in [
        (of(&[(bind, "localhost")]), bind),
        (of(&[(bind, "http://localhost:1")]), bind),
        (of(&[(bind, "127.0.0.1:0"), (bytes, "0")]), bytes),
        (of(&[(bind, "127.0.0.1:0"), (bytes, "1000")]), bytes),
        (
            builder()
                .trace_page_listen("x")
                .build()
                .unwrap_err()
                .to_string(),
            "trace_page_listen",
        ),
        (
            builder()
                .trace_page_max_bytes(7)
                .build()
                .unwrap_err()
                .to_string(),
            "trace_page_max_bytes",
        ),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    let vars = vec![(bind, taken.as_str())];
    let error = Telemetry::builder().vars(vars).build().unwrap_err();
    assert!(
        matches!(&error, TelemetryError::Listener { setting, .. } if setting == bind),
        "{error}"
    );
    let mut page = TracePageSettings::default();
    (page.listen, page.max_bytes) = (Some("x".to_owned()), 1);
    let mut settings = Settings::default();
    settings.trace_page = Some(page);
    let error = Telemetry::from_settings(settings).unwrap_err().to_string();
    assert!(
        error.contains("trace_page.listen") && error.contains("trace_page.max_bytes"),
        "{error}"
    );
    let off = Settings::from_vars([(bind, "127.0.0.1:0"), ("OTEL_SDK_DISABLED", "true")]).unwrap();
    assert!(off.trace_page.is_none());
}

#[cfg(feature = "logs")]
#[tokio::test]
async fn log_lines_are_held_with_their_trace() {
    use tracing_subscriber::layer::SubscriberExt;

    let telemetry = builder().build().unwrap();
    let subscriber = tracing_subscriber::registry().with(telemetry.log_layer());
    let _default = tracing::subscriber::set_default(subscriber);
    tracing::info!("outside of any request");
    let late = Mutex::new(None);
    serve(&telemetry, "/cat", async |trace| {
        trace
            .process("")
            .in_scope(|| tracing::warn!(pixels = 42, "in a stage"));
        *late.lock().unwrap() = Some(trace);
        Ok(StatusCode::OK)
    })
    .await;
    let late = late.into_inner().unwrap().unwrap();
    let context = late.context();
    let _current = context.attach();
    tracing::error!("after the end");
    let id = json(&telemetry, "/api/traces").await["traces"][0]["trace_id"].clone();
    let trace = json(&telemetry, &format!("/api/traces/{}", id.as_str().unwrap())).await;
    let logs = trace["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[1]["body"], "after the end");
    assert_eq!(logs[1]["span_id"], trace["spans"][0]["span_id"]);
    assert_eq!(
        (logs[0]["severity"].as_str(), logs[0]["body"].as_str()),
        (Some("WARN"), Some("in a stage"))
    );
    assert_eq!(logs[0]["attributes"][0], serde_json::json!(["pixels", 42]));
    assert_eq!(logs[0]["span_id"], trace["spans"][1]["span_id"]);
    assert_eq!(logs[0]["target"], "behaviour::trace_page");
}

#[tokio::test]
async fn running_requests_are_described_in_bounded_time_and_space() {
    let telemetry = builder().build().unwrap();
    let mut service = telemetry.trace_layer().layer(service_fn(|_: Request<()>| {
        std::future::pending::<Result<Response<String>, Infallible>>()
    }));
    let mut start = |path: String| service.call(Request::get(path).body(()).unwrap());
    let long = start(format!("/{}", "p".repeat(60_000)));
    let state = json(&telemetry, "/api/state").await;
    let path = state["running"][0]["path"].as_str().unwrap();
    assert!(
        path.len() <= 16 << 10 && path.starts_with("/ppp"),
        "{}",
        path.len()
    );
    let others: Vec<_> = (0..300).map(|number| start(format!("/{number}"))).collect();
    let state = json(&telemetry, "/api/state").await;
    assert_eq!(state["running_total"], 301);
    assert_eq!(state["running"].as_array().unwrap().len(), 100);
    let running = json(&telemetry, "/tracez/api/running/GET").await;
    assert_eq!(running.as_array().unwrap().len(), 100);
    drop((long, others));
    assert_eq!(json(&telemetry, "/api/state").await["running_total"], 0);
}

#[tokio::test]
async fn debug_texts_show_counts_and_not_what_is_held() {
    let telemetry = builder().build().unwrap();
    let service = telemetry
        .trace_layer()
        .layer(service_fn(async |request: Request<()>| {
            let stage = RequestTrace::from_extensions(request.extensions()).stage("resize");
            stage.set_attribute(KeyValue::new("note", "y".repeat(5_000)));
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
    for _ in 0..50 {
        drop(service.clone().oneshot(Request::new(())).await);
    }
    for text in [
        format!("{telemetry:?}"),
        format!("{:?}", telemetry.trace_page()),
    ] {
        assert!(text.len() < 10_000, "{}", text.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_read_loses_its_place() {
    let telemetry = builder().build().unwrap();
    let open = async || {
        let answer = telemetry.trace_page().oneshot(get("/api/events")).await;
        answer.unwrap()
    };
    let mut stalled = Vec::new();
    for _ in 0..16 {
        stalled.push(open().await);
    }
    assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::advance(Duration::from_secs(25)).await;
    assert_eq!(open().await.status(), StatusCode::OK);
}
