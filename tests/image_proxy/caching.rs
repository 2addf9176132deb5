//! What lets clients, caches on the way and the service itself keep a result.

use std::time::Duration;

use axum::{
    Router,
    http::{Method, StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use super::{
    Answer, Limits, Service,
    cache::{Cache, Key},
    options::{Format, Options},
    origin,
    rendition::Rendition,
    serve,
};

/// What Chromium sends for pictures.
const BROWSER: &str = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";

impl Service {
    /// Requests a source of the origin with these options and headers.
    async fn resize_with(&self, options: &str, source: &str, headers: &[(&str, &str)]) -> Answer {
        let origin = self.origin;
        let path = format!("/resize/{options}/plain/http://{origin}{source}");
        self.ask(Method::GET, &path, headers).await
    }

    /// The spans of the requests since the last call.
    async fn ended(&self) -> Vec<SpanData> {
        while self.app.in_progress.requests() > 0 {
            tokio::task::yield_now().await;
        }
        let spans = self.spans.get_finished_spans().unwrap();
        self.spans.reset();
        spans
    }
}

fn caching() -> Limits {
    Limits {
        cache: 1 << 20,
        ..Limits::default()
    }
}

fn found(spans: &[SpanData]) -> Vec<String> {
    let attributes = spans.iter().flat_map(|span| {
        let found = span.attributes.iter();
        found.filter(|attribute| attribute.key.as_str() == "image.result.cache")
    });
    attributes.map(|found| found.value.to_string()).collect()
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

#[tokio::test]
async fn png_becomes_webp_where_the_client_accepts_it() {
    let service = Service::start().await;
    let png_answer = service.resize_with("w:90", "/chelsea.png", &[]).await;
    for (accept, options, source, format) in [
        (BROWSER, "w:90", "/chelsea.png", "webp"),
        ("text/html, IMAGE/WEBP", "w:90", "/chelsea.png", "webp"),
        ("image/webp;q=0.5", "w:90", "/chelsea.png", "webp"),
        ("image/webp;q=0", "w:90", "/chelsea.png", "png"),
        ("image/webp; q=0.000", "w:90", "/chelsea.png", "png"),
        ("image/webp;q=x", "w:90", "/chelsea.png", "png"),
        ("*/*", "w:90", "/chelsea.png", "png"),
        ("image/webpx", "w:90", "/chelsea.png", "png"),
        // Lossless WebP would be larger.
        (BROWSER, "w:90", "/rocket.jpg", "jpeg"),
        (BROWSER, "w:90/f:png", "/chelsea.png", "png"),
        (BROWSER, "w:90/f:jpg", "/chelsea.png", "jpeg"),
    ] {
        let headers = [("accept", accept)];
        let answer = service.resize_with(options, source, &headers).await;
        assert_eq!(answer.status, StatusCode::OK, "{accept} {options}");
        let content_type = format!("image/{format}");
        assert_eq!(answer.header("content-type"), content_type, "{accept}");
        let guessed = image::guess_format(&answer.body).unwrap().to_mime_type();
        assert_eq!(guessed, content_type, "{accept}");
        // What was asked for is the same for everybody.
        let vary = answer.headers.get("vary").map(|vary| vary.as_bytes());
        let negotiated = !options.contains("f:");
        assert_eq!(
            vary,
            negotiated.then_some(b"accept".as_slice()),
            "{options}"
        );
        if format == "webp" {
            let (webp, png) = (answer.body.len(), png_answer.body.len());
            // libvips makes more of a picture as small as this.
            assert!(webp < png || cfg!(feature = "libvips"), "{webp} {png}");
            assert_ne!(answer.header("etag"), png_answer.header("etag"));
        }
    }
}

/// WebP has no room for it.
#[tokio::test]
async fn a_wide_png_stays_png() {
    let wide = get(include_bytes!("pictures/wide17000.png").as_slice());
    let origin = serve(Router::new().route("/wide.png", wide)).await;
    let service = Service::with(origin, Limits::default()).await;
    let headers = [("accept", BROWSER)];
    let answer = service.resize_with("q:80", "/wide.png", &headers).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "image/png");
}

#[tokio::test]
async fn a_client_that_has_the_picture_gets_304() {
    for limits in [Limits::default(), caching()] {
        let cached = limits.cache > 0;
        let service = Service::with(origin::start().await.unwrap(), limits).await;
        let first = service.resize("w:90", "/chelsea.png").await;
        assert_eq!(first.header("cache-control"), "public, max-age=3600");
        let etag = first.header("etag").to_owned();
        assert_eq!(first.status, StatusCode::OK);
        service.ended().await;
        for (tags, status) in [
            (etag.clone(), 304),
            (format!("\"other\", W/{etag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
            (etag.trim_matches('"').to_owned(), 200),
        ] {
            let headers = [("if-none-match", &*tags)];
            let answer = service.resize_with("w:90", "/chelsea.png", &headers).await;
            assert_eq!(answer.status, status, "{tags}");
            // RFC 9110 §15.4.5.
            for name in ["etag", "cache-control", "vary"] {
                assert_eq!(answer.header(name), first.header(name), "{tags}: {name}");
            }
            let spans = service.ended().await;
            let streams = names(&spans).contains(&"streaming_image");
            if status == 304 {
                assert!(answer.body.is_empty(), "{tags}");
                assert!(answer.headers.get(CONTENT_TYPE).is_none(), "{tags}");
            }
            assert_eq!(streams, status == 200, "{tags}");
            assert_eq!(names(&spans).contains(&"downloading_image"), !cached);
        }
        // Another picture has another tag.
        let headers = [("if-none-match", &*etag)];
        let other = service.resize_with("w:91", "/chelsea.png", &headers).await;
        assert_eq!(other.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_span_says_hit_or_miss() {
    let service = Service::with(origin::start().await.unwrap(), caching()).await;
    let first = service.resize("w:90", "/chelsea.png").await;
    assert_eq!(found(&service.ended().await), ["miss"]);
    // The same source and options, and a path that is written in another way.
    for path in ["/resize/rs:fit:90:0/plain/", "/resize/w:90/plain/"] {
        let path = format!("{path}http://{}/chelsea.png", service.origin);
        let again = service.get(&path).await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("content-type"), "image/png");
        assert_eq!(again.header("etag"), first.header("etag"));
        let spans = service.ended().await;
        assert_eq!(found(&spans), ["hit"]);
        assert_eq!(names(&spans)[..2], ["processing_image", "streaming_image"]);
        assert_eq!(spans.len(), 3);
    }
    // Another result of the same source.
    let headers = [("accept", BROWSER)];
    let webp = service.resize_with("w:90", "/chelsea.png", &headers).await;
    assert_eq!(webp.header("content-type"), "image/webp");
    assert_eq!(found(&service.ended().await), ["miss"]);

    let service = Service::start().await;
    for _ in 0..2 {
        service.resize("w:90", "/chelsea.png").await;
        assert!(found(&service.ended().await).is_empty(), "no cache");
    }
}

#[tokio::test]
async fn errors_are_kept_nowhere() {
    let (ask, mut asked) = mpsc::unbounded_channel();
    let broken = get(async move || {
        ask.send(()).unwrap();
        StatusCode::NOT_FOUND
    });
    let origin = serve(Router::new().route("/gone.png", broken)).await;
    let service = Service::with(origin, caching()).await;
    for _ in 0..2 {
        let answer = service.resize("w:90", "/gone.png").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.headers.get("etag").is_none());
        assert!(asked.try_recv().is_ok());
    }
}

#[tokio::test]
async fn a_result_is_made_again_after_its_time() {
    let limits = Limits {
        max_age: Duration::ZERO,
        ..caching()
    };
    let service = Service::with(origin::start().await.unwrap(), limits).await;
    for _ in 0..2 {
        let answer = service.resize("w:90", "/chelsea.png").await;
        assert_eq!(answer.header("cache-control"), "public, max-age=0");
        assert_eq!(found(&service.ended().await), ["miss"]);
    }
}

fn key(name: usize) -> Key {
    Key {
        source: format!("http://origin/{name:04}"),
        options: Options::default(),
    }
}

#[test]
fn the_least_recently_used_result_leaves_the_full_cache() {
    let cache = Cache::new(100_000, super::NEVER);
    let insert = |name, bytes| {
        cache.insert(key(name), Rendition::new(vec![0; bytes], Format::Png));
    };
    (0..3).for_each(|name| insert(name, 30_000));
    assert!(cache.get(&key(0)).is_some());
    insert(3, 30_000);
    let kept = |name| cache.get(&key(name)).is_some();
    assert_eq!([0, 1, 2, 3].map(kept), [true, false, true, true]);
    // A result that replaces itself takes no more room.
    (0..10).for_each(|_| insert(3, 30_000));
    assert_eq!([0, 1, 2, 3].map(kept), [true, false, true, true]);
    // One that is larger than the cache displaces nothing.
    insert(4, 100_001);
    assert_eq!([0, 2, 3, 4].map(kept), [true, true, true, false]);
    // Small ones have a cost too.
    (100..1_100).for_each(|name| insert(name, 0));
    let small = (100..1_100).filter(|name| kept(*name)).count();
    assert!((100..200).contains(&small), "{small}");
    assert!(!kept(0));
}
