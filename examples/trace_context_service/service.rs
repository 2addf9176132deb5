//! The router behind `POST /test`.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, Uri, header::CONTENT_TYPE};
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::Value;
use tower_image_trace::{ImageTraceLayer, Propagators, RequestTrace};

type HttpClient = Client<HttpConnector, Full<Bytes>>;
type CallError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn app(provider: SdkTracerProvider, propagators: Propagators) -> Router {
    let layer = ImageTraceLayer::builder()
        .tracer_provider(provider)
        .propagators(propagators)
        .propagate_external(true)
        .random_trace_ids(true)
        .build();
    Router::new()
        .route("/test", post(test))
        .with_state(Client::builder(TokioExecutor::new()).build_http())
        .layer(layer)
}

async fn test(
    trace: RequestTrace,
    State(client): State<HttpClient>,
    body: Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    let calls: Vec<Value> = serde_json::from_slice(&body).map_err(|error| {
        (
            StatusCode::BAD_REQUEST,
            format!("expected a JSON array: {error}"),
        )
    })?;
    for call in calls {
        let called = call_back(&trace, &client, &call).await;
        called.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    }
    Ok(StatusCode::OK)
}

/// One POST, in a span of its own, whose answer is read to the end.
async fn call_back(
    trace: &RequestTrace,
    client: &HttpClient,
    call: &Value,
) -> Result<(), CallError> {
    let url = call["url"].as_str().ok_or("an element has no url")?;
    let body = serde_json::to_vec(&call["arguments"])?;
    let mut request = Request::post(url.parse::<Uri>()?).body(Full::from(body))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));

    let stage = trace.stage("call");
    stage.inject(headers);
    let exchange = async {
        let response = client.request(request).await?;
        response.into_body().collect().await?;
        Ok::<_, CallError>(())
    };
    stage.run(exchange).await
}
