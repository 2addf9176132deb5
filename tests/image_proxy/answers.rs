//! What the service answers, over TCP.

use std::net::SocketAddr;

use axum::{
    Router,
    http::{Method, StatusCode},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use image::GenericImageView;
use tower_image_trace::Telemetry;

use super::{Limits, Service, demo::Demo, origin, serve};

#[tokio::test]
async fn a_picture_comes_with_its_type_and_length() {
    let service = Service::start().await;
    let origin = service.origin;
    let base64 = URL_SAFE_NO_PAD.encode(format!("http://{origin}/chelsea.png"));
    let escaped = format!("plain/http%3A%2F%2F{origin}%2Fchelsea.png");
    let plain = format!("plain/http://{origin}/chelsea.png");
    for source in [base64, escaped, plain] {
        let answer = service
            .get(&format!("/resize/rs:fit:90:90/f:jpg/{source}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "image/jpeg");
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string()
        );
        let picture = image::load_from_memory(&answer.body).unwrap();
        assert_eq!(picture.dimensions(), (90, 60));
    }
}

/// The picture is larger than one chunk.
#[tokio::test]
async fn a_large_picture_arrives_whole() {
    let service = Service::start().await;
    let answer = service.resize("f:png", "/rocket.jpg").await;
    assert!(answer.body.len() > 100_000, "{}", answer.body.len());
    let picture = image::load_from_memory(&answer.body).unwrap();
    assert_eq!(picture.dimensions(), (640, 427));
}

#[tokio::test]
async fn wrong_requests_get_a_status_and_a_sentence() {
    let service = Service::start().await;
    let origin = service.origin;
    for (path, status, sentence) in [
        (
            format!("/resize/w:wide/plain/http://{origin}/chelsea.png"),
            400,
            "`wide` is not a side length: 0 to 4096 pixels are accepted\n",
        ),
        (
            "/resize/w:10/plain/https://127.0.0.1/cat.png".to_owned(),
            400,
            "only absolute http:// URLs are sources\n",
        ),
        (
            "/resize/w:10/plain/http%3A%2F%2Fori%20gin%2Fb.png".to_owned(),
            400,
            "only absolute http:// URLs are sources\n",
        ),
        (
            // No port, and not the default one either.
            "/resize/w:10/plain/http://127.0.0.1:99999/cat.png".to_owned(),
            400,
            "only absolute http:// URLs are sources\n",
        ),
        (
            "/resize/w:10/plain/http://169.254.169.254/latest".to_owned(),
            403,
            "pictures from http://169.254.169.254:80 are not allowed\n",
        ),
        (
            // The part that looks like an allowed host is a user name.
            format!("/resize/w:10/plain/http://{origin}@127.0.0.1:1/cat.png"),
            403,
            "pictures from http://127.0.0.1:1 are not allowed\n",
        ),
        (
            format!("/resize/w:10/plain/http://{origin}/missing.png"),
            404,
            "the source does not exist: its origin answered 404 Not Found\n",
        ),
        (
            format!("/resize/w:10/plain/http://{origin}/notes.txt"),
            422,
            "the source is not a JPEG, PNG or WebP picture\n",
        ),
        (
            "/".to_owned(),
            404,
            "not found: try /resize/{options}/{source} or /health\n",
        ),
    ] {
        let answer = service.get(&path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.text(), sentence, "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
}

/// What is beyond a limit is for the client to change.
#[tokio::test]
async fn pictures_beyond_a_limit_are_unprocessable() {
    // faults E1, F21
    let wide = get(include_bytes!("pictures/wide17000.png").as_slice());
    let origin = serve(Router::new().route("/wide.png", wide)).await;
    let limits = Limits {
        memory: 8 << 20,
        ..Limits::default()
    };
    let service = Service::with(origin, limits).await;
    let mut cases = vec![("f:webp", "a side of a webp picture has at most 16383")];
    // libvips never holds the whole result.
    if !cfg!(feature = "libvips") {
        cases.push(("rs:force:4096:4096", "and a worker has 8: ask for"));
    }
    for (options, part) in cases {
        let answer = service.resize(options, "/wide.png").await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{options}");
        assert!(answer.text().contains(part), "{}", answer.text());
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let service = Service::start().await;
    let path = format!(
        "/resize/w:9/f:jpg/plain/http://{}/chelsea.png",
        service.origin
    );
    let answer = service.send(Method::HEAD, &path).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(answer.header("content-length"), "0");
    assert!(answer.body.is_empty());
    let answer = service.send(Method::POST, &path).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn health_needs_no_worker() {
    let limits = Limits {
        workers: 0,
        queue: 0,
        ..Limits::default()
    };
    let service = Service::with(origin::start().await.unwrap(), limits).await;
    let answer = service.get("/health").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok\n"));
}

async fn demo(service: &Service, origin: SocketAddr) -> Result<(), String> {
    let telemetry = Telemetry::builder().vars([("", ""); 0]).build().unwrap();
    let demo = Demo::new(
        service.address,
        origin,
        &service.app.in_progress,
        &telemetry,
    );
    demo.run().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_demo_gets_the_answers_it_expects() {
    let service = Service::start().await;
    demo(&service, service.origin).await.unwrap();
}

#[tokio::test]
async fn the_demo_fails_on_another_answer() {
    let service = Service::start().await;
    // The service does not allow this origin.
    let sentence = demo(&service, service.address).await.unwrap_err();
    assert!(
        sentence.starts_with("expected 200 OK, got 403 Forbidden: "),
        "{sentence}"
    );
}
