//! `GET /`: the sample pictures in several sizes, each with the stages of its request and a link to its trace.

use std::net::SocketAddr;

use axum::{
    Router,
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    routing::get,
};

const PAGE: &str = include_str!("gallery/index.html");
const STYLE: &str = include_str!("gallery/gallery.css");
const SCRIPT: &str = include_str!("gallery/gallery.js");

/// The page may load files and pictures of this service, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the page, which shows pictures of `origin`.
pub(crate) fn router(origin: SocketAddr) -> Router {
    let page = PAGE.replace("{origin}", &format!("http://{origin}"));
    let html = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    Router::new()
        .route("/", get((html, page)))
        .route("/gallery.css", get(([(CONTENT_TYPE, "text/css")], STYLE)))
        .route(
            "/gallery.js",
            get(([(CONTENT_TYPE, "text/javascript")], SCRIPT)),
        )
}
