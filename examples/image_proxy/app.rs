//! The service: `GET /resize/{options}/{source}` and `GET /health`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::body::PictureBody;
use super::error::Error;
use super::options::ImagePath;
use super::process::process;
use super::source::Sources;
use super::workers::Workers;

#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) sources: Sources,
    pub(crate) workers: Workers,
}

impl App {
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/resize/{*path}", get(resize))
            .route("/health", get("ok\n"))
            .fallback((
                StatusCode::NOT_FOUND,
                "here are /resize/{options}/{source} and /health\n",
            ))
            .with_state(self)
    }
}

async fn resize(State(app): State<App>, Path(path): Path<String>) -> Result<Response, Error> {
    let path = ImagePath::parse(&path)?;
    let source = app.sources.locate(&path.source)?;
    let worker = app.workers.acquire().await?;
    let source = app.sources.download(source, HeaderMap::new()).await?;
    let picture = tokio::task::spawn_blocking(move || {
        // Work that has begun cannot be stopped: its worker is busy until it ends, also when the client has left.
        let _worker = worker;
        process(&source, &path.options)
    })
    .await
    .unwrap()?;
    let content_type = [(CONTENT_TYPE, picture.format.content_type())];
    let body = Body::new(PictureBody::new(picture.bytes));
    Ok((content_type, body).into_response())
}
