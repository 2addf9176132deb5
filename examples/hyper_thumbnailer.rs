//! An image service on hyper alone, over HTTP/1.1 and HTTP/2. It shows where the time of each
//! request goes.
//!
//! ```text
//! cargo run --example hyper_thumbnailer [-- --port 8080]
//! curl -o cat.jpg http://127.0.0.1:8080/thumbnail/300/chelsea.png
//! curl --http2-prior-knowledge -o sky.jpg http://127.0.0.1:8080/thumbnail/300/hubble_deep_field.jpg
//! ```
//!
//! There is no router, so the handler names its route. Each response has a `Server-Timing` header:
//! the developer tools of browsers show it, and the page at `/` prints it as text.

use std::{convert::Infallible, error::Error, io::Cursor, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use image::{ImageError, ImageFormat};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::{ServiceBuilder, service_fn};
use tower_image_trace::{
    ImageTraceLayer, RequestTrace, RequestsInProgressLayer, Telemetry, trace::PeerAddr,
};

/// Longest side of a thumbnail, in pixels.
const MAX_SIDE: u32 = 2048;

/// Most pictures that are processed at the same time.
const WORKERS: usize = 2;

const PAGE: &str = include_str!("hyper_thumbnailer.html");

const PICTURES: [(&str, &[u8]); 4] = [
    (
        "chelsea.png",
        include_bytes!("image_proxy/images/chelsea.png"),
    ),
    (
        "coffee.png",
        include_bytes!("image_proxy/images/coffee.png"),
    ),
    (
        "hubble_deep_field.jpg",
        include_bytes!("image_proxy/images/hubble_deep_field.jpg"),
    ),
    (
        "rocket.jpg",
        include_bytes!("image_proxy/images/rocket.jpg"),
    ),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = match Vec::from_iter(std::env::args().skip(1)).as_slice() {
        [] => 8080,
        [option, port] if option == "--port" => port.parse()?,
        _ => return Err("usage: hyper_thumbnailer [--port PORT]".into()),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);

    let telemetry = match Telemetry::from_env()? {
        enabled if enabled.is_enabled() => enabled,
        _ => Telemetry::builder().console().build()?,
    };
    let (in_progress, _) = telemetry.in_progress_layer();
    let trace = telemetry
        .trace_layer_builder()
        .server_timing(true)
        .trace_response(true)
        .build();
    tokio::select! {
        served = serve(listener, in_progress, trace) => served?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    telemetry.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

async fn serve(
    listener: TcpListener,
    in_progress: RequestsInProgressLayer,
    trace: ImageTraceLayer,
) -> std::io::Result<()> {
    let service = ServiceBuilder::new()
        .layer(in_progress)
        .layer(trace)
        .service(service_fn(answer));
    loop {
        let (connection, address) = listener.accept().await?;
        let peer = PeerAddr::from(address);
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                request
            })
            .service(service.clone());
        tokio::spawn(async move {
            // An error means that the client left. Its trace says so already.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(connection), TowerToHyperService::new(service))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    static WORKER: Semaphore = Semaphore::const_new(WORKERS);

    let trace = RequestTrace::from_extensions(request.extensions());
    if request.uri().path() == "/" {
        trace.set_route("/");
        return Ok(content("text/html; charset=utf-8", PAGE.into()));
    }
    let mut segments = request.uri().path().split('/').skip(1);
    let asked = (
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    );
    let (Some("thumbnail"), Some(width), Some(name), None) = asked else {
        return Ok(sentence(
            StatusCode::NOT_FOUND,
            "GET /thumbnail/{width}/{picture}",
        ));
    };
    trace.set_route("/thumbnail/{width}/{picture}");
    if request.method() != Method::GET {
        return Ok(sentence(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is supported",
        ));
    }
    let Some(width) = width
        .parse()
        .ok()
        .filter(|width| (1..=MAX_SIDE).contains(width))
    else {
        return Ok(sentence(
            StatusCode::BAD_REQUEST,
            "the width must be 1 to 2048 pixels",
        ));
    };
    let Some((_, picture)) = PICTURES.iter().find(|(known, _)| *known == name) else {
        return Ok(sentence(StatusCode::NOT_FOUND, "there is no such picture"));
    };
    let worker = trace.queue().run(WORKER.acquire()).await;
    let stage = trace.process(format!("w:{width}"));
    let jpeg = stage.run_blocking(move || thumbnail(picture, width)).await;
    drop(worker);
    Ok(match jpeg {
        Ok(jpeg) => content("image/jpeg", jpeg.into()),
        Err(_) => sentence(StatusCode::INTERNAL_SERVER_ERROR, "the picture is broken"),
    })
}

fn thumbnail(picture: &[u8], width: u32) -> Result<Vec<u8>, ImageError> {
    let picture = image::load_from_memory(picture)?.thumbnail(width, MAX_SIDE);
    let mut jpeg = Cursor::new(Vec::new());
    picture.into_rgb8().write_to(&mut jpeg, ImageFormat::Jpeg)?;
    Ok(jpeg.into_inner())
}

fn content(content_type: &'static str, content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn sentence(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
