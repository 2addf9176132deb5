//! `examples/tonic_thumbnailer`, called by tonic's client over real connections.

#[path = "../examples/tonic_thumbnailer/api.rs"]
mod api;
#[path = "../examples/tonic_thumbnailer/service.rs"]
mod service;

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tonic::{
    Code, Request,
    client::Grpc,
    transport::{
        Channel, Endpoint, Server,
        server::{TcpConnectInfo, TcpIncoming},
    },
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tower_image_trace::{RequestsInProgress, RequestsInProgressLayer, trace::Record};

use self::api::{
    Picture, RESIZE, RESIZE_MANY, ResizeManyRequest, ResizeRequest, ThumbnailerServer,
};
use crate::{
    // The example takes these two from image_proxy.
    image_proxy::{options, process},
    support::{Recorder, body::ChannelBody, recorder::Span},
};

const PICTURE: &[u8] = include_bytes!("../examples/image_proxy/images/chelsea.png");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

struct Service {
    recorder: Recorder,
    in_progress: RequestsInProgress,
    url: String,
    channel: Channel,
    client: Grpc<Channel>,
}

impl Service {
    async fn start() -> Self {
        let recorder = Recorder::new();
        let (count, in_progress) = RequestsInProgressLayer::pair();
        let trace = recorder
            .builder()
            .filter(|parts| match parts.uri.path() {
                "/grpc.health.v1.Health/Check" => Record::Metrics,
                _ => Record::All,
            })
            .peer_address(|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr())
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<ThumbnailerServer>().await;
        let server = Server::builder()
            .layer(count)
            .layer(trace)
            .add_service(health_service)
            .add_service(ThumbnailerServer)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        let url = format!("http://{address}");
        let endpoint = Endpoint::from_shared(url.clone()).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self {
            recorder,
            in_progress,
            url,
            client: Grpc::new(channel.clone()),
            channel,
        }
    }

    async fn resize(&mut self, request: Request<ResizeRequest>) -> Result<Picture, tonic::Status> {
        self.client.ready().await.unwrap();
        let codec = ProstCodec::<ResizeRequest, Picture>::default();
        let path = PathAndQuery::from_static(RESIZE);
        let response = self.client.unary(request, path, codec).await?;
        Ok(response.into_inner())
    }

    async fn resize_many(&mut self, widths: Vec<u32>) -> tonic::Streaming<Picture> {
        self.client.ready().await.unwrap();
        let request = Request::new(ResizeManyRequest {
            source: Bytes::from_static(PICTURE),
            widths,
        });
        let codec = ProstCodec::<ResizeManyRequest, Picture>::default();
        let path = PathAndQuery::from_static(RESIZE_MANY);
        let response = self.client.server_streaming(request, path, codec).await;
        response.unwrap().into_inner()
    }

    /// The root spans, once so many requests are over.
    async fn roots(&self, count: usize) -> Vec<Span> {
        loop {
            let mut roots = self.recorder.spans();
            roots.retain(|span| span.0.span_kind == opentelemetry::trace::SpanKind::Server);
            if roots.len() >= count && self.in_progress.requests() == 0 {
                assert_eq!(roots.len(), count);
                self.recorder.assert_nothing_active();
                return roots;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn resize(width: u32) -> Request<ResizeRequest> {
    Request::new(ResizeRequest {
        source: Bytes::from_static(PICTURE),
        width,
    })
}

#[tokio::test]
async fn a_call_continues_its_callers_trace() {
    let mut service = Service::start().await;
    let mut request = resize(100);
    let parent = format!("00-{TRACE}-{SPAN}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    let picture = service.resize(request).await.unwrap();
    assert_eq!((picture.width, picture.height), (100, 67));
    assert!(picture.jpeg.starts_with(&[0xff, 0xd8]));

    let [root] = <[Span; 1]>::try_from(service.roots(1).await).unwrap();
    root.assert_no_error();
    assert_eq!(root.name(), "thumbs.v1.Thumbnailer/Resize");
    assert_eq!(root.trace_id().to_string(), TRACE);
    assert_eq!(root.parent().to_string(), SPAN);
    assert_eq!(root.get("rpc.response.status_code").as_deref(), Some("OK"));
    // Faults A16: semconv gives calls the peer's address only.
    assert_eq!(root.get("client.address"), None);
    assert_eq!(
        root.get("network.peer.address").as_deref(),
        Some("127.0.0.1")
    );
    let stage = service.recorder.span("processing_image");
    assert_eq!(stage.parent(), root.id());
    assert_eq!(
        stage.get("image.processing.options").as_deref(),
        Some("w:100")
    );
}

#[tokio::test]
async fn a_refused_call_has_the_code_that_its_client_sees() {
    let mut service = Service::start().await;
    let status = service.resize(resize(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let [root] = <[Span; 1]>::try_from(service.roots(1).await).unwrap();
    assert_eq!(
        root.get("rpc.response.status_code").as_deref(),
        Some("INVALID_ARGUMENT")
    );
    assert_eq!(root.get("error.type"), None);
    let stage = service.recorder.span("processing_image");
    stage.assert_error(
        &stage.get("error.type").unwrap(),
        "the width must be 1 to 4096 pixels, not 0",
    );
}

#[tokio::test]
async fn a_stream_is_one_span_to_its_last_message() {
    let mut service = Service::start().await;
    let mut pictures = service.resize_many(vec![10, 20, 30]).await;
    let mut widths = Vec::new();
    while let Some(picture) = pictures.message().await.unwrap() {
        widths.push(picture.width);
    }
    assert_eq!(widths, [10, 20, 30]);
    let [root] = <[Span; 1]>::try_from(service.roots(1).await).unwrap();
    root.assert_no_error();
    assert_eq!(root.name(), "thumbs.v1.Thumbnailer/ResizeMany");
    assert_eq!(root.get("rpc.response.status_code").as_deref(), Some("OK"));
    assert_eq!(service.recorder.spans().len(), 4);
}

#[tokio::test]
async fn a_client_that_leaves_midway_cancels_the_call() {
    let mut service = Service::start().await;
    let mut pictures = service.resize_many(vec![10; 1_000_000]).await;
    pictures.message().await.unwrap().unwrap();
    drop(pictures);
    let [root] = <[Span; 1]>::try_from(service.roots(1).await).unwrap();
    root.assert_no_error();
    assert_eq!(root.name(), "thumbs.v1.Thumbnailer/ResizeMany");
    assert_eq!(
        root.get("rpc.response.status_code").as_deref(),
        Some("CANCELLED")
    );
    let phase = root.get("image.request.cancelled").unwrap();
    assert!(
        ["response_body", "processing_image"].contains(&&*phase),
        "{phase}"
    );
}

#[tokio::test]
async fn a_deadline_that_passes_cancels_the_call() {
    let mut service = Service::start().await;
    service.resize(resize(10)).await.unwrap();
    // A message that never comes. tonic's client would hold to the deadline too, and on a busy machine might
    // give up before the server knows of the call.
    let (message, body) = ChannelBody::new();
    let request = http::Request::post(format!("{}{RESIZE}", service.url))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5m");
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let answer = client.request(request.body(body).unwrap());
    assert_eq!(answer.await.unwrap().headers()["grpc-status"], "1");
    drop(message);
    let roots = service.roots(2).await;
    let root = &roots[1];
    root.assert_no_error();
    assert_eq!(root.name(), "thumbs.v1.Thumbnailer/Resize");
    assert_eq!(
        root.get("rpc.response.status_code").as_deref(),
        Some("CANCELLED")
    );
    assert!(root.get("image.request.cancelled").is_some());
}

#[tokio::test]
async fn the_health_service_is_measured_and_has_no_spans() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel.clone());
    let request = HealthCheckRequest {
        service: "thumbs.v1.Thumbnailer".to_owned(),
    };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
    assert!(service.roots(0).await.is_empty());
    let series = service.recorder.only_series("rpc.server.call.duration");
    assert_eq!(
        series.attributes["rpc.method"],
        "grpc.health.v1.Health/Check"
    );
}

/// The work on pictures is image_proxy's, so it keeps colours as they are seen.
#[tokio::test]
async fn colours_are_those_of_image_proxy() {
    // faults E2, E3
    let mut service = Service::start().await;
    let mut thumbnail = async |source: &'static [u8], width| {
        let source = Bytes::from_static(source);
        service
            .resize(Request::new(ResizeRequest { source, width }))
            .await
    };
    let middle = |picture: Picture| {
        let picture = image::load_from_memory(&picture.jpeg).unwrap().into_rgb8();
        picture
            .get_pixel(picture.width() / 2, picture.height() / 2)
            .0
    };
    let swapped = include_bytes!("image_proxy/pictures/icc_swapped.jpg");
    let [red, green, _] = middle(thumbnail(swapped, 20).await.unwrap());
    assert!(red < 50 && green > 200, "{red} {green}");
    // Red beside nothing, on white: red everywhere, but for what JPEG does to edges.
    let fringe = include_bytes!("image_proxy/pictures/fringe.png");
    let picture = thumbnail(fringe, 50).await.unwrap();
    let picture = image::load_from_memory(&picture.jpeg).unwrap().into_rgb8();
    let darkest = picture.pixels().map(|pixel| pixel.0[0]).min().unwrap();
    assert!(darkest > 205, "{darkest}");
}
