//! The service: `GET /resize/{options}/{source}`, traced, and `GET /health`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use opentelemetry::KeyValue;
use opentelemetry::trace::get_active_span;
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, RequestTrace, RequestsInProgress, RequestsInProgressLayer,
    attribute,
    metrics::Gauges,
    pool::{Buffer, Workers},
};

use super::body::PictureBody;
use super::error::Error;
use super::options::ImagePath;
use super::process::Processed;
#[cfg(not(feature = "libvips"))]
use super::process::process;
use super::source::{Source, SourceError, Sources};
#[cfg(feature = "libvips")]
use super::vips::process;

#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) sources: Sources,
    pub(crate) workers: Workers,
    pub(crate) in_progress: RequestsInProgress,
}

impl App {
    pub(crate) fn router(self, trace: ImageTraceLayer, count: RequestsInProgressLayer) -> Router {
        Router::new()
            .route("/resize/{*path}", get(resize))
            .fallback((
                StatusCode::NOT_FOUND,
                "here are /resize/{options}/{source} and /health\n",
            ))
            .layer(trace)
            .layer(count)
            // After the layers: a health check every few seconds is neither traced nor counted.
            .route("/health", get("ok\n"))
            .with_state(self)
    }

    /// Shows how busy the workers are, and how large the buffers.
    pub(crate) fn register(&self, gauges: &Gauges) {
        gauges.workers(&self.workers);
        gauges.buffers(self.sources.buffers());
        #[cfg(feature = "libvips")]
        if super::vips::start().is_ok() {
            gauges.vips();
        }
    }

    async fn download(&self, trace: &RequestTrace, source: Source) -> Result<Buffer, SourceError> {
        let stage = trace.download(&source.to_string());
        let download = async {
            let bytes = self.sources.download(source).await?;
            get_active_span(|stage| stage.set_attribute(size(attribute::SOURCE_SIZE, &bytes)));
            Ok(bytes)
        };
        stage.run(download).await
    }
}

async fn resize(
    State(app): State<App>,
    trace: RequestTrace,
    Path(path): Path<String>,
) -> Result<Response, Error> {
    // Axum knows the one wildcard, the reader wants to see what is in it.
    trace.set_route("/resize/{options}/{source}");
    let path =
        ImagePath::parse(&path).inspect_err(|error| trace.error(ErrorKind::PathParsing, error))?;
    let source = app
        .sources
        .locate(&path.source)
        .inspect_err(|error| trace.error(ErrorKind::Security, error))?;

    let worker = app.workers.acquire(&trace).await?;
    let source = app.download(&trace, source).await?;

    let stage = trace.process(path.options_text);
    let picture = stage.run_blocking(move || {
        // Work that has begun goes on when the client leaves, and its worker is busy until it ends.
        let _busy = worker;
        process(&source, &path.options).inspect(describe)
    });
    let picture = picture.await?;

    let content_type = [(CONTENT_TYPE, picture.format.content_type())];
    let body = PictureBody::new(picture.bytes, trace.stream());
    Ok((content_type, Body::new(body)).into_response())
}

/// Says on the current stage what went in and what came out.
fn describe(picture: &Processed) {
    get_active_span(|stage| {
        stage.set_attributes([
            KeyValue::new(attribute::SOURCE_FORMAT, picture.source_format.name()),
            KeyValue::new(attribute::SOURCE_WIDTH, i64::from(picture.source_width)),
            KeyValue::new(attribute::SOURCE_HEIGHT, i64::from(picture.source_height)),
            KeyValue::new(attribute::RESULT_FORMAT, picture.format.name()),
            KeyValue::new(attribute::RESULT_WIDTH, i64::from(picture.width)),
            KeyValue::new(attribute::RESULT_HEIGHT, i64::from(picture.height)),
            size(attribute::RESULT_SIZE, &picture.bytes),
        ]);
    });
}

fn size(name: &'static str, bytes: &[u8]) -> KeyValue {
    KeyValue::new(name, bytes.len() as i64)
}
