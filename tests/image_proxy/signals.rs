//! The examples as processes: on SIGTERM and SIGINT they answer what they have begun, send its spans and exit with 0.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use image::{ImageFormat, RgbImage};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::{Semaphore, mpsc},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{pictures::encoded, serve};
use crate::support::otlp::{OtlpServer, PATIENCE, ReceivedSpan};

const SIGNALS: [&str; 2] = ["TERM", "INT"];

/// A running example, which exports to a collector of its own.
struct Example {
    process: Child,
    address: SocketAddr,
    collector: OtlpServer,
}

impl Example {
    async fn start(name: &'static str, arguments: &[&str]) -> Self {
        let executable = spawn_blocking(move || executable(name)).await.unwrap();
        let collector = OtlpServer::start();
        let mut command = Command::new(executable);
        for (variable, _) in std::env::vars() {
            if variable.starts_with("OTEL_") || variable.starts_with("IMGPROXY_") {
                command.env_remove(variable);
            }
        }
        let mut process = command
            .args(["--port", "0"])
            .args(arguments)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            // Only the end sends spans.
            .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let (_, address) = line.split_once("http://").unwrap();
        let address = address.split([',', '\n']).next().unwrap();
        Self {
            process,
            address: address.parse().unwrap(),
            collector,
        }
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill")
            .args([format!("-{signal}"), self.process.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits for the end, which must be a good one, and returns the root spans that were sent until then.
    async fn roots(mut self) -> Vec<ReceivedSpan> {
        let ended = spawn_blocking(move || (self.process.wait(), self));
        let (status, example) = timeout(PATIENCE, ended).await.unwrap().unwrap();
        assert_eq!(status.unwrap().code(), Some(0));
        let mut roots = example.collector.spans();
        roots.retain(|span| span.kind() == SpanKind::Server);
        roots
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.process.kill();
    }
}

/// Builds the examples as this test was built. `cargo test` has done so before, unless it was asked for one test.
fn executable(name: &str) -> String {
    static BUILT: OnceLock<HashMap<String, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What this test's cargo has set would make some build scripts run again.
        for (variable, _) in std::env::vars() {
            if variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(variable);
            }
        }
        cargo.args(["build", "--message-format", "json"]);
        if !cfg!(feature = "default") {
            cargo.arg("--no-default-features");
        }
        for (feature, enabled) in [
            ("axum", true),
            ("console", true),
            ("otlp-grpc", true),
            ("otlp-http", true),
            ("aws", cfg!(feature = "aws")),
            ("bound-instruments", cfg!(feature = "bound-instruments")),
            ("libvips", cfg!(feature = "libvips")),
            ("logs", cfg!(feature = "logs")),
            ("process", cfg!(feature = "process")),
            ("tokio-metrics", cfg!(feature = "tokio-metrics")),
        ] {
            if enabled {
                cargo.args(["--features", feature]);
            }
        }
        for example in ["image_proxy", "hyper_thumbnailer", "tonic_thumbnailer"] {
            cargo.args(["--example", example]);
        }
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success());
        let messages = output.stdout.lines();
        let messages = messages.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        messages
            .filter_map(|message: serde_json::Value| {
                let name = message["target"]["name"].as_str()?;
                Some((name.to_owned(), message["executable"].as_str()?.to_owned()))
            })
            .collect()
    });
    built[name].clone()
}

/// Over HTTP/2, where a server sees all requests of a connection before it answers the first.
fn client() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

#[tokio::test]
async fn hyper_thumbnailer_answers_before_it_ends() {
    // faults F20
    for signal in SIGNALS {
        let example = Example::start("hyper_thumbnailer", &[]).await;
        let client = client();
        let mut answers = JoinSet::new();
        for _ in 0..10 {
            let address = example.address;
            let uri = format!("http://{address}/thumbnail/300/chelsea.png");
            let answer = client.get(uri.parse().unwrap());
            answers.spawn(async move {
                let answer = answer.await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                let picture = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(image::load_from_memory(&picture).is_ok());
            });
        }
        answers.join_next().await.unwrap().unwrap();
        example.signal(signal);
        while let Some(answer) = answers.join_next().await {
            answer.unwrap();
        }
        assert_eq!(example.roots().await.len(), 10, "{signal}");
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResizeMany {
    #[prost(bytes = "bytes", tag = "1")]
    source: Bytes,
    #[prost(uint32, repeated, tag = "2")]
    widths: Vec<u32>,
}

#[tokio::test]
async fn tonic_thumbnailer_finishes_its_streams_before_it_ends() {
    // faults F20
    const PICTURES: usize = 6;
    let message = ResizeMany {
        source: include_bytes!("../../examples/image_proxy/images/chelsea.png")
            .as_slice()
            .into(),
        widths: vec![300; PICTURES],
    };
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    for signal in SIGNALS {
        let example = Example::start("tonic_thumbnailer", &[]).await;
        let uri = format!(
            "http://{}/thumbs.v1.Thumbnailer/ResizeMany",
            example.address
        );
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(frame.clone()));
        let answer = client().request(request.unwrap()).await.unwrap();
        let mut body = answer.into_body();
        // Later pictures wait until the client has room.
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        example.signal(signal);
        let rest = body.collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap()["grpc-status"], "0", "{signal}");
        let mut bytes = [first, rest.to_bytes()].concat();
        let mut pictures = 0;
        while let [_, a, b, c, d, ..] = bytes[..] {
            bytes.drain(..5 + u32::from_be_bytes([a, b, c, d]) as usize);
            pictures += 1;
        }
        assert_eq!(pictures, PICTURES, "{signal}");
        assert_eq!(example.roots().await.len(), 1, "{signal}");
    }
}

/// An origin whose answers wait for permits, and that tells when it is asked.
async fn held_origin(picture: Vec<u8>) -> (String, Arc<Semaphore>, mpsc::UnboundedReceiver<()>) {
    let permits = Arc::new(Semaphore::new(0));
    let (ask, asked) = mpsc::unbounded_channel();
    let answers = Arc::clone(&permits);
    let held = async move || {
        let _ = ask.send(());
        answers.acquire().await.unwrap().forget();
        picture.clone()
    };
    let origin = serve(Router::new().route("/held", get(held))).await;
    (format!("http://{origin}"), permits, asked)
}

#[tokio::test]
async fn image_proxy_answers_before_it_ends_and_knows_its_client() {
    // faults A18, F20
    let picture = encoded(&RgbImage::new(8, 8).into(), ImageFormat::Png);
    for signal in SIGNALS {
        let (origin, permits, mut asked) = held_origin(picture.clone()).await;
        let example = Example::start("image_proxy", &["--allow-origin", &origin]).await;
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let uri = format!("http://{}/resize/w:4/plain/{origin}/held", example.address);
        let answer = tokio::spawn(client.get(uri.parse().unwrap()));
        asked.recv().await.unwrap();
        example.signal(signal);
        permits.add_permits(1);
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{signal}");
        answer.into_body().collect().await.unwrap();
        drop(client);
        let roots = example.roots().await;
        assert_eq!(roots.len(), 1, "{signal}");
        assert_eq!(roots[0].attributes()["client.address"], "127.0.0.1");
    }
}

/// What a proxy says of the client counts where it is trusted.
#[tokio::test]
async fn image_proxy_takes_the_client_from_trusted_proxies() {
    for (arguments, client) in [
        (&["--trusted-proxy", "127.0.0.1"][..], "203.0.113.9"),
        (&["--trusted-proxy", "10.0.0.0/8"][..], "127.0.0.1"),
        (&[][..], "127.0.0.1"),
    ] {
        let example = Example::start("image_proxy", arguments).await;
        let request = Request::get(format!("http://{}/resize/", example.address))
            .header("x-forwarded-for", "203.0.113.9")
            .body(Full::<Bytes>::default());
        let service = Client::builder(TokioExecutor::new()).build_http();
        let answer = service.request(request.unwrap()).await.unwrap();
        answer.into_body().collect().await.unwrap();
        drop(service);
        example.signal("TERM");
        let roots = example.roots().await;
        assert_eq!(roots.len(), 1);
        assert_eq!(roots[0].attributes()["client.address"], client);
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_cancelled_after_the_drain() {
    // faults F22
    let mut state = 1_u32;
    let noise = RgbImage::from_fn(2_000, 2_000, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, pixel @ ..] = state.to_be_bytes();
        image::Rgb(pixel)
    });
    // More than all the buffers on the way to the client.
    let picture = encoded(&noise.into(), ImageFormat::Png);
    assert!(picture.len() > 10 << 20, "{}", picture.len());
    let (origin, permits, _asked) = held_origin(picture).await;
    permits.add_permits(1);
    let arguments = ["--allow-origin", &origin, "--drain", "0"];
    let example = Example::start("image_proxy", &arguments).await;

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut connection = socket.connect(example.address).await.unwrap();
    let request = format!("GET /resize/f:png/plain/{origin}/held HTTP/1.1\r\nhost: a\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");

    example.signal("TERM");
    let roots = example.roots().await;
    assert_eq!(roots.len(), 1);
    let attributes = roots[0].attributes();
    assert_eq!(attributes["image.request.cancelled"], "streaming_image");
    assert_eq!(attributes["http.response.status_code"], "200");
}
