//! X-Ray's sampling rules decide what is sampled, and nobody waits for the service that has them.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io::Read,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::{OriginalUri, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use http::Request;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::{Service, ServiceExt, layer::Layer, service_fn};
use tower_image_trace::{
    RequestTrace, Telemetry,
    telemetry::{Keep, TelemetryBuilder, TelemetryEvent},
};

use crate::support::{
    events::Log,
    otlp::{OtlpServer, PATIENCE},
};

/// A mock of X-Ray's daemon, with its two calls. It runs on its own thread, as another process would.
struct RuleServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    mock: Mutex<Mock>,
    changed: Condvar,
}

#[derive(Default)]
struct Mock {
    rules: Vec<Value>,
    /// The answer to statistics.
    targets: Value,
    behaviour: Behaviour,
    calls: Vec<(String, Value)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Behaviour {
    #[default]
    Answer,
    Hang,
    Fail,
    Babble,
}

impl RuleServer {
    fn start(rules: Vec<Value>) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), rules)
    }

    fn start_at(address: SocketAddr, rules: Vec<Value>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        shared.mock.lock().unwrap().rules = rules;
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = stopped => {}
                    served = axum::serve(listener, app) => served.unwrap(),
                }
            });
        });
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn behave(&self, behaviour: Behaviour) {
        self.shared.mock.lock().unwrap().behaviour = behaviour;
    }

    /// Waits for so many calls of this path, and returns their bodies.
    fn wait_for(&self, path: &str, count: usize) -> Vec<Value> {
        let of_path = |mock: &Mock| -> Vec<Value> {
            let calls = mock.calls.iter().filter(|(called, _)| called == path);
            calls.map(|(_, body)| body.clone()).collect()
        };
        let mock = self.shared.mock.lock().unwrap();
        let few = |mock: &mut Mock| of_path(mock).len() < count;
        let (mock, waited) = self
            .shared
            .changed
            .wait_timeout_while(mock, PATIENCE, few)
            .unwrap();
        assert!(!waited.timed_out(), "{path} {count}: {:?}", mock.calls);
        of_path(&mock)
    }
}

impl Drop for RuleServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers["content-type"], "application/json");
    let (behaviour, answer) = {
        let mut mock = shared.mock.lock().unwrap();
        let body = serde_json::from_slice(&body).unwrap();
        mock.calls.push((uri.path().to_owned(), body));
        let answer = match uri.path() {
            "/GetSamplingRules" => json!({ "SamplingRuleRecords": mock.rules, "NextToken": null }),
            "/SamplingTargets" => mock.targets.clone(),
            path => panic!("{path}"),
        };
        (mock.behaviour, answer)
    };
    shared.changed.notify_all();
    match behaviour {
        Behaviour::Answer => answer.to_string().into_response(),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Fail => (StatusCode::FORBIDDEN, "the token is invalid").into_response(),
        Behaviour::Babble => "<html>".into_response(),
    }
}

/// A rule for everything that samples nothing, with these changes.
fn rule(name: &str, priority: u32, changes: Value) -> Value {
    let mut rule = json!({
        "RuleName": name, "RuleARN": format!("arn:aws:xray:us-east-1:1:sampling-rule/{name}"),
        "Version": 1, "Priority": priority, "FixedRate": 0.0, "ReservoirSize": 0, "Attributes": {},
        "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*",
        "ResourceARN": "*",
    });
    for (key, value) in changes.as_object().unwrap() {
        rule[key] = value.clone();
    }
    json!({ "SamplingRule": rule, "CreatedAt": 0.0, "ModifiedAt": 1.7e9 })
}

/// What is known of the requests that were sent, in the collector and in the log.
struct Traced {
    collector: OtlpServer,
    telemetry: Telemetry,
    log: Log,
}

impl Traced {
    fn start(rules: SocketAddr) -> Self {
        Self::start_with(rules, |builder| builder)
    }

    fn start_with(
        rules: SocketAddr,
        change: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder,
    ) -> Self {
        let collector = OtlpServer::start();
        let log = Log::default();
        let argument = format!("endpoint=http://{rules},polling_interval=1");
        let builder = Telemetry::builder()
            .vars([
                ("OTEL_TRACES_SAMPLER", "xray"),
                ("OTEL_TRACES_SAMPLER_ARG", argument.as_str()),
                ("OTEL_RESOURCE_ATTRIBUTES", "cloud.platform=aws_ecs"),
            ])
            .endpoint(collector.endpoint())
            .service_name("thumbs");
        let telemetry = log.listen(change(builder)).build().unwrap();
        Self {
            collector,
            telemetry,
            log,
        }
    }

    async fn send(&self, request: Request<()>) {
        let handler = service_fn(async |request: Request<()>| {
            let trace = RequestTrace::from_extensions(request.extensions());
            drop(trace.process("rs:fill:300:200"));
            let mut response = http::Response::new(String::new());
            if request.uri().path().ends_with("/failing") {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, Infallible>(response)
        });
        let mut service = self.telemetry.trace_layer().layer(handler);
        let response = service.ready().await.unwrap().call(request).await;
        drop(response.unwrap());
    }

    async fn get(&self, path: &str) {
        self.send(Request::get(path).body(()).unwrap()).await;
    }

    /// The paths of the root spans so far.
    async fn sampled(&self) -> Vec<String> {
        self.telemetry.force_flush(PATIENCE).await.unwrap();
        let spans = self.collector.spans();
        let paths = spans
            .iter()
            .filter_map(|span| span.attributes().get("url.path").cloned());
        paths.collect()
    }

    fn changes_of_state(&self) -> Vec<bool> {
        let events = self.log.events();
        let changes = events.iter().filter_map(|event| match event {
            TelemetryEvent::SamplingRulesAvailable { .. } => Some(true),
            TelemetryEvent::SamplingRulesUnavailable { .. } => Some(false),
            _ => None,
        });
        changes.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_decide_by_what_requests_begin_with() {
    let always = |mut criteria: Value| {
        criteria["FixedRate"] = json!(1.0);
        criteria
    };
    let server = RuleServer::start(vec![
        rule("Default", 10_000, json!({})),
        rule(
            "posts",
            30,
            always(json!({"HTTPMethod": "post", "URLPath": "/upload/*"})),
        ),
        rule("host", 20, always(json!({"Host": "*.example"}))),
        rule(
            "route",
            21,
            always(json!({"Attributes": {"user_agent.original": "probe/?"}})),
        ),
        rule("health", 10, json!({"URLPath": "*/health"})),
        rule("other service", 1, always(json!({"ServiceName": "shop"}))),
        rule(
            "other type",
            1,
            always(json!({"ServiceType": "AWS::EC2::Instance"})),
        ),
        rule("other version", 1, always(json!({"Version": 2}))),
        rule(
            "type",
            40,
            always(json!({"ServiceType": "AWS::ECS::Container", "URLPath": "/typed"})),
        ),
    ]);
    let traced = Traced::start(server.address);
    traced.log.wait_for("sampling rules are known: 6 may apply");
    let request = |method: &str, path: &str, header: (&str, &str)| {
        let request = Request::builder().method(method).uri(path);
        request.header(header.0, header.1).body(()).unwrap()
    };
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    #[rustfmt::skip]
    let cases = [
        ("GET", "/", ("x", "y"), false),
        ("POST", "/upload/1", ("x", "y"), true),
        ("PUT", "/upload/2", ("x", "y"), false),
        ("GET", "/host/1", ("host", "images.EXAMPLE:8080"), true),
        ("GET", "/host/2", ("host", "images.example.org"), false),
        ("GET", "/host/health", ("host", "images.example"), false),
        ("GET", "/agent/1", ("user-agent", "probe/2"), true),
        ("GET", "/agent/2", ("user-agent", "probe/22"), false),
        ("GET", "/typed", ("x", "y"), true),
        // The caller has decided, or leaves it to this service.
        ("GET", "/parent/1", ("traceparent", SAMPLED), true),
        ("POST", "/upload/3", ("traceparent", UNSAMPLED), false),
        // The caller debugs.
        ("GET", "/debugged", ("jaeger-debug-id", "why"), false),
    ];
    for (method, path, header, _) in cases {
        traced.send(request(method, path, header)).await;
    }
    let sampled: BTreeSet<_> = traced.sampled().await.into_iter().collect();
    for (method, path, header, expected) in cases {
        assert_eq!(
            sampled.contains(path),
            expected,
            "{method} {path} {header:?}"
        );
    }
    // With each its stage.
    assert_eq!(traced.collector.spans().len(), 2 * sampled.len());
    traced.telemetry.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_do_not_sample_may_be_kept_at_its_end() {
    let server = RuleServer::start(vec![
        rule("Default", 10_000, json!({})),
        rule(
            "sampled",
            1,
            json!({"URLPath": "/sampled/*", "FixedRate": 1.0}),
        ),
    ]);
    let traced = Traced::start_with(server.address, |builder| {
        builder.keep(Keep::ratio(0.0).errors())
    });
    traced.log.wait_for("sampling rules are known: 2 may apply");
    let kept = ["/sampled/ok", "/sampled/failing", "/other/failing"];
    for path in kept.into_iter().chain(["/other/ok"]) {
        traced.get(path).await;
    }
    assert_eq!(traced.sampled().await, kept);
    // With each its stage.
    assert_eq!(traced.collector.spans().len(), 2 * kept.len());
    traced.telemetry.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_asked_for_with_the_statistics() {
    let reservoir = json!({"ReservoirSize": 500});
    let server = RuleServer::start(vec![rule("Default", 10_000, reservoir)]);
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    server.shared.mock.lock().unwrap().targets = json!({
        "SamplingTargetDocuments": [{
            "RuleName": "Default", "FixedRate": 0.0, "Interval": 1, "ReservoirQuota": 1000,
            "ReservoirQuotaTTL": unix + 3600.0,
        }],
        "LastRuleModification": unix + 3600.0,
        "UnprocessedStatistics": [{"RuleName": "gone", "ErrorCode": "400", "Message": "Unknown rule"}],
    });
    let traced = Traced::start(server.address);
    traced.log.wait_for("are known: 1");
    for _ in 0..20 {
        traced.get("/before").await;
    }
    let before = traced.sampled().await.len();
    assert!(
        (1..20).contains(&before),
        "{before} were borrowed, one a second"
    );
    let reported = server.wait_for("/SamplingTargets", 1).remove(0);
    let document = &reported["SamplingStatisticsDocuments"][0];
    let client = document["ClientID"].as_str().unwrap();
    assert!(
        client.len() == 24 && client.bytes().all(|b| b.is_ascii_hexdigit()),
        "{client}"
    );
    let timestamp = document["Timestamp"].as_f64().unwrap();
    assert!((timestamp - unix).abs() < 300.0, "{document}");
    let counts = ["RequestCount", "SampledCount", "BorrowCount"].map(|key| document[key].as_u64());
    let before = before as u64;
    assert_eq!(counts, [Some(20), Some(before), Some(before)], "{document}");
    assert_eq!(document["RuleName"], "Default");
    // The answer may still be on its way, and what was borrowed is among the quota of that second.
    let mut sampled = 0;
    while sampled < 20 {
        let sampled_before = traced.sampled().await.len();
        for _ in 0..20 {
            traced.get("/within").await;
        }
        sampled = traced.sampled().await.len() - sampled_before;
    }
    // X-Ray says for how long it is to be left alone.
    let second = server.wait_for("/SamplingTargets", 2).remove(1);
    let document = &second["SamplingStatisticsDocuments"][0];
    assert_eq!(document["ClientID"].as_str(), Some(client));
    assert!(document["RequestCount"].as_u64() >= Some(1), "{document}");
    assert_eq!(traced.changes_of_state(), [true]);
    traced.telemetry.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_slow_broken_or_gone_holds_up_nothing() {
    let gone = {
        let (address, reserved) = OtlpServer::reserve();
        (address, Some(reserved))
    };
    let all = || vec![rule("all", 1, json!({"FixedRate": 1.0}))];
    for (behaviour, said) in [
        (None, "refused"),
        (Some(Behaviour::Hang), "no answer within 5s"),
        (Some(Behaviour::Fail), "403 Forbidden: the token is invalid"),
        (Some(Behaviour::Babble), "an answer that is no JSON"),
    ] {
        let server = behaviour.map(|behaviour| {
            let server = RuleServer::start(all());
            server.behave(behaviour);
            server
        });
        let address = server.as_ref().map_or(gone.0, |server| server.address);
        let traced = Traced::start(address);
        // At once, without rules: one a second.
        for _ in 0..20 {
            traced.get("/without").await;
        }
        let sampled = traced.sampled().await.len();
        assert!((1..20).contains(&sampled), "{said}: {sampled}");
        let line = traced.log.wait_for(said);
        assert!(
            line.contains(&format!("http://{address}/GetSamplingRules: ")),
            "{line}"
        );
        // Asked again and again, said once; then the service comes up.
        let server = match server {
            Some(server) => {
                server.wait_for("/GetSamplingRules", 2);
                server.behave(Behaviour::Answer);
                server
            }
            None => RuleServer::start_at(address, all()),
        };
        traced.log.wait_for("are known: 1");
        assert_eq!(traced.changes_of_state(), [false, true], "{said}");
        for _ in 0..20 {
            traced.get("/with").await;
        }
        let with = |paths: Vec<String>| paths.iter().filter(|path| *path == "/with").count();
        assert_eq!(with(traced.sampled().await), 20, "{said}");
        // What is known holds when the service goes away.
        drop(server);
        while traced.changes_of_state().len() < 3 {
            tokio::task::yield_now().await;
            traced.get("/with").await;
        }
        let sent = with(traced.sampled().await);
        traced.get("/with").await;
        assert_eq!(with(traced.sampled().await), sent + 1, "{said}");
        assert_eq!(traced.changes_of_state(), [false, true, false], "{said}");
        traced.telemetry.shutdown(PATIENCE).await.unwrap();
    }
}

#[test]
fn the_shutdown_does_not_wait_for_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let traced = Traced::start(listener.local_addr().unwrap());
    let (mut connection, _) = listener.accept().unwrap();
    let mut head = [0; 22];
    connection.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"POST /GetSamplingRules");
    traced.telemetry.shutdown_blocking(PATIENCE).unwrap();
    assert_eq!(
        traced.changes_of_state(),
        [false; 0],
        "before the call's own limit"
    );
    // The call is over, too: nobody is left who would read an answer.
    let mut rest = Vec::new();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.read_to_end(&mut rest).unwrap();
    assert!(
        rest.ends_with(br#"{"NextToken":null}"#),
        "{}",
        String::from_utf8_lossy(&rest)
    );
}
