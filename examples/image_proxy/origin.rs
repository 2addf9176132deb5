//! A small origin server with the sample pictures, and with the failures that origins have.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, http::header::CONTENT_TYPE, response::Redirect, routing::get};
use tokio::net::TcpListener;

const CHELSEA: &[u8] = include_bytes!("images/chelsea.png");
const COFFEE: &[u8] = include_bytes!("images/coffee.png");
const HUBBLE: &[u8] = include_bytes!("images/hubble_deep_field.jpg");
const ROCKET: &[u8] = include_bytes!("images/rocket.jpg");

/// Longer than any client waits for an answer.
const SLOW: Duration = Duration::from_secs(60);

/// Serves on a free port of 127.0.0.1 until the runtime shuts down.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router()).await });
    Ok(address)
}

fn router() -> Router {
    let png = [(CONTENT_TYPE, "image/png")];
    let jpeg = [(CONTENT_TYPE, "image/jpeg")];
    Router::new()
        .route("/chelsea.png", get((png.clone(), CHELSEA)))
        .route("/coffee.png", get((png.clone(), COFFEE)))
        .route("/hubble.jpg", get((jpeg.clone(), HUBBLE)))
        .route("/rocket.jpg", get((jpeg, ROCKET)))
        .route(
            "/moved.png",
            get(|| async { Redirect::temporary("chelsea.png") }),
        )
        .route(
            "/elsewhere.png",
            get(|| async { Redirect::temporary("http://example.com/cat.png") }),
        )
        .route("/notes.txt", get("not a picture\n"))
        .route(
            "/slow.png",
            get(|| async move {
                tokio::time::sleep(SLOW).await;
                (png, CHELSEA)
            }),
        )
}
