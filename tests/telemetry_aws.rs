//! On AWS the resource says where the service runs; elsewhere nothing is held up or broken by asking.

use std::{net::TcpListener, time::Instant};

use axum::{Json, Router, routing::get};
use opentelemetry::trace::{Tracer, TracerProvider};
use tower_image_trace::Telemetry;

use crate::support::{
    otlp::{OtlpServer, PATIENCE, ReceivedSpan},
    process::run_alone,
};

/// The detectors read the environment, so each case is a process of its own.
fn in_a_process_of_its_own(vars: &[(&str, &str)]) -> ReceivedSpan {
    let server = OtlpServer::start();
    run_alone("telemetry_aws::child_process", |command| {
        command
            .env_clear()
            .env("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", server.endpoint())
            .env("IMGPROXY_OPEN_TELEMETRY_AWS_RESOURCE", "true")
            .envs(vars.iter().copied())
    });
    server.spans().remove(0)
}

/// Each detector has a second, which a busy machine may miss.
fn until_it_has(attribute: &str, vars: &[(&str, &str)]) -> ReceivedSpan {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let span = in_a_process_of_its_own(vars);
        if span.resource.contains_key(attribute) {
            return span;
        }
        assert!(Instant::now() < deadline, "{:?}", span.resource);
    }
}

#[test]
#[ignore = "a part of other tests"]
fn child_process() {
    let telemetry = Telemetry::from_env().unwrap();
    drop(telemetry.tracer_provider().tracer("test").start("span"));
    telemetry.shutdown_blocking(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn on_ecs() {
    let task = serde_json::json!({
        "Cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/thumbs",
        "TaskARN": "arn:aws:ecs:us-east-1:123456789012:task/thumbs/abc123",
        "Family": "thumbs",
        "Revision": "3",
        "AvailabilityZone": "us-east-1b",
        "LaunchType": "FARGATE",
    });
    let container = serde_json::json!({
        "ContainerARN": "arn:aws:ecs:us-east-1:123456789012:container/abc",
        "DockerId": "deadbeef",
        "Name": "thumbs",
        "Image": "thumbs:1",
        "LogDriver": "json-file",
    });
    let metadata = Router::new()
        .route("/v4/task", get(async || Json(task)))
        .route("/v4", get(async || Json(container)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/v4", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, metadata).await });

    let span = tokio::task::spawn_blocking(move || {
        let vars = [
            ("ECS_CONTAINER_METADATA_URI_V4", uri.as_str()),
            // what is set by hand comes first
            ("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=by-hand"),
        ];
        until_it_has("cloud.platform", &vars)
    });
    let resource = span.await.unwrap().resource;
    assert_eq!(resource["cloud.platform"], "aws_ecs", "{resource:?}");
    assert_eq!(resource["cloud.account.id"], "123456789012");
    assert_eq!(resource["cloud.region"], "by-hand");
    assert_eq!(resource["aws.ecs.task.family"], "thumbs");
    assert_eq!(resource["service.name"], "imgproxy");
}

#[test]
fn on_lambda() {
    let vars = [
        ("AWS_LAMBDA_FUNCTION_NAME", "thumbs"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "7"),
    ];
    let span = until_it_has("faas.name", &vars);
    assert_eq!(span.resource["faas.name"], "thumbs", "{:?}", span.resource);
    assert_eq!(span.resource["cloud.region"], "eu-central-1");
}

#[test]
fn a_metadata_endpoint_that_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", silent.local_addr().unwrap());
    let span = in_a_process_of_its_own(&[("ECS_CONTAINER_METADATA_URI_V4", uri.as_str())]);
    assert!(
        !span.resource.contains_key("cloud.platform"),
        "{:?}",
        span.resource
    );
}

#[test]
fn elsewhere() {
    let span = in_a_process_of_its_own(&[]);
    assert!(
        !span.resource.contains_key("cloud.provider"),
        "{:?}",
        span.resource
    );
}
