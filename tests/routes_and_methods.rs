//! The route is the router's, never the path; methods a client invents are not recorded by name.

use axum::{Router, extract::Request, response::Response, routing::get};
use http::Method;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::RequestTrace;

use crate::support::Recorder;

async fn send<S, B>(service: S, method: &str, path: &str)
where
    S: tower::Service<Request, Response = Response<B>, Error: std::fmt::Debug>,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(axum::body::Body::empty());
    let response = service.oneshot(request.unwrap()).await.unwrap();
    response.into_body().collect().await.unwrap();
}

fn assert_route(recorder: &Recorder, route: Option<&str>) {
    let root = recorder.root();
    let name = route.map_or("GET".to_owned(), |route| format!("GET {route}"));
    assert_eq!(root.name(), name);
    assert_eq!(root.get("http.route").as_deref(), route);
    let series = recorder.only_series("http.server.request.duration");
    assert_eq!(
        series.attributes.get("http.route").map(String::as_str),
        route
    );
}

fn thumbnails() -> Router {
    Router::new().route("/thumbnail/{source}", get(async |_: RequestTrace| "…"))
}

#[tokio::test]
async fn axums_route_inside_the_router() {
    let recorder = Recorder::new();
    let app = Router::new()
        .route("/thumbnail/{source}", get(async || "…"))
        .layer(recorder.layer());
    send(app, "GET", "/thumbnail/cat.jpg").await;
    assert_route(&recorder, Some("/thumbnail/{source}"));
}

#[tokio::test]
async fn axums_route_around_the_whole_router() {
    let recorder = Recorder::new();
    send(
        recorder.layer().layer(thumbnails()),
        "GET",
        "/thumbnail/cat.jpg",
    )
    .await;
    assert_route(&recorder, Some("/thumbnail/{source}"));
}

#[tokio::test]
async fn axums_route_in_nested_routers() {
    for nest_service in [false, true] {
        for outside in [false, true] {
            let recorder = Recorder::new();
            let app = if nest_service {
                Router::new().nest_service("/v1", thumbnails())
            } else {
                Router::new().nest("/v1", thumbnails())
            };
            if outside {
                send(recorder.layer().layer(app), "GET", "/v1/thumbnail/cat.jpg").await;
            } else {
                send(app.layer(recorder.layer()), "GET", "/v1/thumbnail/cat.jpg").await;
            }
            assert_route(&recorder, Some("/v1/thumbnail/{source}"));
        }
    }
}

#[tokio::test]
async fn no_route_when_nothing_matched() {
    let recorder = Recorder::new();
    send(thumbnails().layer(recorder.layer()), "GET", "/secret/path").await;
    assert_route(&recorder, None);
}

#[tokio::test]
async fn a_route_that_the_service_names_wins() {
    for after_sampling in [false, true] {
        a_named_route_wins(after_sampling).await;
    }
}

async fn a_named_route_wins(after_sampling: bool) {
    let recorder = Recorder::new();
    let app = Router::new().route(
        "/{*rest}",
        get(async |trace: RequestTrace, request: Request| {
            trace.set_route("/resize/{options}/{source}");
            drop(RequestTrace::from_extensions(request.extensions()));
            "…"
        }),
    );
    let layer = recorder.builder();
    let layer = layer.attributes_after_sampling(after_sampling).build();
    send(app.layer(layer), "GET", "/resize/fit/cat.jpg").await;
    assert_route(&recorder, Some("/resize/{options}/{source}"));
}

#[tokio::test]
async fn an_empty_route_is_none() {
    let recorder = Recorder::new();
    let service = recorder
        .layer()
        .layer(service_fn(|request: Request| async move {
            RequestTrace::from_extensions(request.extensions()).set_route("");
            Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::empty()))
        }));
    send(service, "GET", "/x").await;
    assert_route(&recorder, None);
}

#[tokio::test]
async fn invented_methods_and_hosts_add_no_series() {
    let recorder = Recorder::new();
    let app = Router::new().fallback(async || "…").layer(recorder.layer());
    for index in 0..50 {
        send(
            app.clone(),
            &format!("BREW{index}"),
            &format!("http://host{index}/{index}"),
        )
        .await;
    }
    let series = recorder.only_series("http.server.request.duration");
    assert_eq!(series.count, 50);
    assert_eq!(series.attributes["http.request.method"], "_OTHER");
    assert_eq!(recorder.series("http.server.active_requests").len(), 1);
    let spans = recorder.spans();
    assert_eq!(spans.len(), 50);
    for (index, span) in spans.iter().enumerate() {
        assert_eq!(span.name(), "HTTP");
        assert_eq!(span.get("http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(
            span.get("http.request.method_original"),
            Some(format!("BREW{index}"))
        );
    }
}

#[tokio::test]
async fn the_known_methods_can_be_others() {
    let recorder = Recorder::new();
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let layer = recorder.builder().known_methods([purge]).build();
    let app = Router::new().fallback(async || "…").layer(layer);
    send(app.clone(), "PURGE", "/").await;
    let root = recorder.root();
    assert_eq!(
        (root.name(), root.get("http.request.method").as_deref()),
        ("PURGE", Some("PURGE"))
    );
    send(app, "GET", "/").await;
    assert_eq!(
        recorder.spans()[1].get("http.request.method").as_deref(),
        Some("_OTHER")
    );
}
