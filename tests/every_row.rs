//! What one request must show, on every stack, over real sockets: axum, hyper over HTTP/1.1 and
//! HTTP/2, and tonic.

mod dropped;
mod rows;
mod stack;

use std::{collections::BTreeSet, time::Duration};

use opentelemetry::trace::Status;
use tower_image_trace::attribute;

use self::{
    rows::{ROWS, Row},
    stack::{Client, STACKS, Server, Stack},
};
use crate::support::{registry::Registry, semconv};

#[tokio::test]
async fn every_row_on_every_stack() {
    let registry = Registry::read();
    let (mut requests, mut calls) = (BTreeSet::new(), BTreeSet::new());
    for stack in STACKS {
        for row in ROWS {
            let seen = match stack {
                Stack::Tonic => &mut calls,
                _ => &mut requests,
            };
            seen.extend(check(stack, row, &registry).await);
        }
    }
    // What is decided at the end of a request: `keep.rs`.
    for seen in [&mut requests, &mut calls] {
        seen.insert(attribute::TRACE_KEPT.to_owned());
    }
    // faults A16
    assert_eq!(requests, registry.spans["request"].1);
    assert_eq!(calls, registry.spans["call"].1);
}

/// Returns the attributes of the root span.
async fn check(stack: Stack, row: &Row, registry: &Registry) -> Vec<String> {
    let server = Server::start(stack).await;
    server.send(row).await;
    server.wait_for_the_end().await;

    let what = format!("{stack:?} {}", row.name);
    let root = server.recorder.root();
    let is_rpc = stack == Stack::Tonic;
    let expected = if is_rpc { row.rpc } else { row.http };
    for (key, expected) in expected {
        let found = match *key {
            "name" => Some(root.name().to_owned()),
            "status" => Some(match &root.0.status {
                Status::Error { description } => format!("Error {description}").trim().to_owned(),
                other => format!("{other:?}"),
            }),
            "exception" => root.exceptions().first().cloned(),
            key => root.get(key),
        };
        assert_eq!(found.as_deref().unwrap_or("-"), *expected, "{what}: {key}");
    }

    assert_eq!(
        root.get("server.address").as_deref(),
        Some("localhost"),
        "{what}"
    );
    registry.check_span(if is_rpc { "call" } else { "request" }, root.keys());
    for event in root.0.events.iter() {
        assert_eq!(event.name, "exception");
        let keys = event.attributes.iter().map(|pair| pair.key.as_str());
        semconv::EXCEPTION.check_attributes("exception", keys);
    }
    // Semconv rpc-spans: a call has neither the client's address nor the protocol (faults A16).
    let http_only = |value: &'static str| (!is_rpc).then_some(value);
    assert_eq!(
        root.get("client.address").as_deref(),
        http_only("127.0.0.1"),
        "{what}"
    );
    assert!(root.get("network.peer.port").is_some(), "{what}");
    let version = if stack.is_http2() { "2" } else { "1.1" };
    assert_eq!(
        root.get("network.protocol.version").as_deref(),
        http_only(version)
    );

    let name = if is_rpc {
        "rpc.server.call.duration"
    } else {
        "http.server.request.duration"
    };
    let duration = server.recorder.only_series(name);
    assert_eq!(duration.count, 1, "{what}");
    assert_eq!(
        duration.attributes.get("error.type"),
        root.get("error.type").as_ref(),
        "{what}"
    );
    let keys = duration.attributes.keys().map(String::as_str);
    semconv::Metric::named(name).unwrap().check_attributes(keys);
    for value in duration.attributes.values() {
        assert!(
            !value.contains("localhost") && !value.contains("secret"),
            "{what}: {value}"
        );
    }
    if row.client == Client::Reads && row.takes > Duration::ZERO {
        assert!(
            duration.sum >= row.takes.as_secs_f64(),
            "{what}: {}",
            duration.sum
        );
    }
    server.recorder.assert_nothing_active();
    assert_eq!(server.in_progress.requests(), 0, "{what}");
    assert!(server.contexts.seen() > 0, "{what}");
    assert_eq!(
        server.contexts.wrong(),
        0,
        "{what}: the context was not current"
    );
    root.keys().into_iter().map(str::to_owned).collect()
}
