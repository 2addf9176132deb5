//! `examples/axum_thumbnailer.rs`: one trace of axum, reqwest, `tracing` and blocking work, wherever it is shown.

// The test starts the service itself.
#[allow(dead_code)]
#[path = "../examples/axum_thumbnailer.rs"]
mod example;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::net::TcpListener;
use tower_image_trace::{Telemetry, TelemetryBuilder, console::ConsoleExporter};
use tracing_subscriber::{filter::LevelFilter, prelude::*};

use crate::support::otlp::{OtlpServer, PATIENCE};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The names of the spans, sorted, each with that of its parent.
const SPANS: [[&str; 2]; 6] = [
    ["GET", "fetch"],
    ["GET /cat.png", "GET"],
    ["GET /thumbnail", ""],
    ["downloading_image", "GET /thumbnail"],
    ["fetch", "downloading_image"],
    ["processing_image", "GET /thumbnail"],
];

async fn get(address: SocketAddr, path: &str) -> Bytes {
    let request = Request::get(format!("http://{address}{path}")).header("traceparent", CALLER);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.body(Empty::<Bytes>::new()).unwrap());
    let response = response.await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Asks the service for a thumbnail of its own picture. Returns the trace as its page shows it.
async fn trace(configure: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder) -> Value {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Telemetry::builder().vars([] as [(&str, &str); 0]);
    let telemetry = configure(builder.trace_page(true)).build().unwrap();
    let layer = telemetry.tracing_layer().with_filter(LevelFilter::INFO);
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = example::app(&telemetry, format!("http://{address}").parse().unwrap()).unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let picture = get(address, &format!("/thumbnail?url=http://{address}/cat.png")).await;
    assert_eq!(image::load_from_memory(&picture).unwrap().width(), 300);
    let page = get(address, &format!("/debug/traces/api/traces/{TRACE}")).await;
    telemetry.shutdown(PATIENCE).await.unwrap();
    serde_json::from_slice(&page).unwrap()
}

/// `spans` are ids, ids of parents, and names.
fn assert_joined(spans: &[[String; 3]]) {
    let name_of = |id: &String| {
        let found = spans.iter().find(|[of, ..]| of == id);
        found.map_or("", |[.., name]| name.as_str())
    };
    let named = spans
        .iter()
        .map(|[_, parent, name]| [name.as_str(), name_of(parent)]);
    let mut named: Vec<_> = named.collect();
    named.sort();
    assert_eq!(named, SPANS);
}

#[tokio::test]
async fn a_collector_and_the_page_have_one_trace() {
    let collector = OtlpServer::start();
    let page = trace(|builder| builder.endpoint(collector.endpoint()).logs(true)).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spans = page["spans"].as_array().unwrap().iter();
    let on_page = spans.map(|span| ["span_id", "parent_id", "name"].map(|key| text(&span[key])));
    assert_joined(&on_page.collect::<Vec<_>>());
    assert_eq!(page["logs"][0]["body"], "fetched");

    let hex = |id: &[u8]| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let spans = collector.spans();
    let exported = spans.iter().map(|span| {
        assert_eq!(hex(&span.trace_id), TRACE);
        [
            hex(&span.span_id),
            hex(&span.parent_span_id),
            span.name.clone(),
        ]
    });
    assert_joined(&exported.collect::<Vec<_>>());
    let logs = collector.logs();
    assert_eq!(
        logs.iter()
            .filter(|log| hex(&log.trace_id) == TRACE)
            .count(),
        1
    );
}

#[derive(Clone, Default)]
struct Terminal(Arc<Mutex<Vec<u8>>>);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_terminal_has_it_too() {
    let terminal = Terminal::default();
    let exporter = ConsoleExporter::new(terminal.clone());
    trace(|builder| builder.console_exporter(exporter)).await;
    let shown = String::from_utf8(terminal.0.lock().unwrap().clone()).unwrap();
    for [name, _] in SPANS {
        assert!(shown.contains(name), "{name} in\n{shown}");
    }
    assert_eq!(
        shown.matches(TRACE).count(),
        2,
        "two requests of one trace:\n{shown}"
    );
}
