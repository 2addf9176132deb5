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

use std::{
    convert::Infallible,
    error::Error,
    io::{self, Cursor},
    net::Ipv4Addr,
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use image::{ImageError, ImageFormat};
use tokio::{net::TcpListener, runtime::Runtime, sync::Semaphore, time::timeout};
use tower::{ServiceBuilder, service_fn};
use tower_image_trace::{
    RequestTrace, Settings, Telemetry, TelemetryError, shutdown_signal, trace::PeerAddr,
};

/// Longest side of a thumbnail, in pixels.
const MAX_SIDE: u32 = 2048;

/// Most pictures that are processed at the same time.
const WORKERS: usize = 2;

/// How long running requests may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long work that cannot be cancelled is waited for.
const CANCEL: Duration = Duration::from_secs(1);
/// How long sending the last spans may take.
const FLUSH: Duration = Duration::from_secs(5);

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

fn main() -> Result<(), Box<dyn Error>> {
    let port = match Vec::from_iter(std::env::args().skip(1)).as_slice() {
        [] => 8080,
        [option, port] if option == "--port" => port.parse()?,
        _ => return Err("usage: hyper_thumbnailer [--port PORT]".into()),
    };
    let runtime = Runtime::new()?;
    let telemetry = runtime.block_on(async { telemetry() })?;
    let outcome = runtime.block_on(serve(port, &telemetry));
    // Requests that are still running are dropped with their runtime. That ends their spans, which are then sent.
    runtime.shutdown_timeout(CANCEL);
    telemetry.shutdown_blocking(FLUSH)?;
    Ok(outcome?)
}

/// Answers requests until a signal.
async fn serve(port: u16, telemetry: &Telemetry) -> io::Result<()> {
    let mut signal = pin!(shutdown_signal());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);

    let (in_progress, _) = telemetry.in_progress_layer();
    let trace = telemetry.trace_layer_builder();
    let trace = trace.server_timing(true).trace_response(true).build();
    let service = ServiceBuilder::new()
        .layer(in_progress)
        .layer(trace)
        .service(service_fn(answer));
    let connections = GracefulShutdown::new();
    loop {
        let (connection, address) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut signal => break,
        };
        // Without it no span knows the address of its client.
        let peer = PeerAddr::from(address);
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                request
            })
            .service(service.clone());
        let connection = auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(connection), TowerToHyperService::new(service))
            .into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // An error means that the client left. Its trace says so already.
            let _ = connection.await;
        });
    }
    drop(listener);
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        eprintln!("hyper_thumbnailer: gave up on requests that took longer than {DRAIN:?}");
    }
    Ok(())
}

/// Exports to the collector that the environment names, or to the terminal if it names none.
fn telemetry() -> Result<Telemetry, TelemetryError> {
    let settings = Settings::from_env()?;
    match settings.is_enabled() {
        true => Telemetry::from_settings(settings),
        false => Telemetry::builder().console().build(),
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
