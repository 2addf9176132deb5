//! Origins that answer with the bytes a test gives them, and clients for them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceExt};
use tower_image_trace::{
    DownloadLayer, Propagators,
    download::{DownloadBody, DownloadLayerBuilder},
};

use super::Recorder;

pub type Answered = Result<Response<DownloadBody<Incoming>>, legacy::Error>;

/// What an origin sends, and whether it then closes the connection or leaves it open.
pub enum Answer {
    Close(String),
    Hang(String),
}

/// A server on its own port.
pub struct Origin {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// `answer` gets the requested path.
    pub async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&heads);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (answer, received) = (Arc::clone(&answer), Arc::clone(&received));
                tokio::spawn(async move { serve(connection, &*answer, &received).await });
            }
        });
        Self { address, heads }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut connection: TcpStream,
    answer: &(dyn Fn(&str) -> Answer + Send + Sync),
    received: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let answer = answer(head.split(' ').nth(1).unwrap());
    received.lock().unwrap().push(head);
    let (Answer::Close(bytes) | Answer::Hang(bytes)) = &answer;
    connection.write_all(bytes.as_bytes()).await.unwrap();
    if let Answer::Hang(_) = answer {
        // This returns when the client disconnects.
        let _ = connection.read_u8().await;
    }
}

/// A complete response with `content-length`.
pub fn response(status: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Close(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

pub fn builder(recorder: &Recorder) -> DownloadLayerBuilder {
    DownloadLayer::builder()
        .tracer_provider(recorder.tracers.clone())
        .meter_provider(recorder.meters.clone())
        .propagators(Propagators::default())
}

pub fn client() -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

pub fn request(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

pub async fn get(layer: &DownloadLayer, url: &str) -> Answered {
    layer.layer(client()).oneshot(request(url)).await
}
