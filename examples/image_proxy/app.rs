//! The service: `GET /resize/{options}/{source}`, traced, `GET /health` and `GET /metrics`.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use opentelemetry::{KeyValue, trace::get_active_span};
use percent_encoding::percent_decode_str;
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, RequestTrace, RequestsInProgress, RequestsInProgressLayer, Stage,
    attribute,
    metrics::Gauges,
    pool::{Buffer, Workers},
    request::Picture,
    telemetry::Prometheus,
};

#[cfg(not(feature = "libvips"))]
use super::process::process;
#[cfg(feature = "libvips")]
use super::vips::process;
use super::{
    body::PictureBody,
    error::Error,
    options::ImagePath,
    process::Processed,
    source::{Source, SourceError, Sources},
    url,
};

#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) sources: Sources,
    pub(crate) workers: Workers,
    /// Most bytes that a worker takes for a picture.
    pub(crate) memory: u64,
    pub(crate) in_progress: RequestsInProgress,
}

impl App {
    pub(crate) fn router(
        self,
        trace: ImageTraceLayer,
        count: RequestsInProgressLayer,
        metrics: Prometheus,
    ) -> Router {
        Router::new()
            .route("/resize/{*path}", get(resize))
            .fallback((
                StatusCode::NOT_FOUND,
                "not found: try /resize/{options}/{source} or /health\n",
            ))
            .layer(trace)
            .layer(count)
            // Added after the layers, so frequent checks and scrapes are neither traced nor counted.
            .route("/health", get("ok\n"))
            .route_service("/metrics", metrics)
            .with_state(self)
    }

    /// Registers gauges of the busy workers and of the buffer sizes.
    pub(crate) fn register(&self, gauges: &Gauges) {
        gauges.workers(&self.workers);
        gauges.buffers(self.sources.buffers());
        #[cfg(feature = "libvips")]
        if super::vips::start().is_ok() {
            gauges.vips();
        }
    }

    async fn download(&self, trace: &RequestTrace, source: Source) -> Result<Buffer, SourceError> {
        // The stage ends with this future, so the future reads the whole body.
        let stage = trace.download(&source.to_string());
        let download = async {
            let bytes = self.sources.download(source).await?;
            get_active_span(|stage| stage.set_attribute(size(attribute::SOURCE_SIZE, &bytes)));
            Ok(bytes)
        };
        stage.run(download).await
    }
}

async fn resize(State(app): State<App>, trace: RequestTrace, uri: Uri) -> Result<Response, Error> {
    // Axum only knows `/resize/{*path}`. This name says what the path holds.
    trace.set_route("/resize/{options}/{source}");
    // Axum's `Path` refuses bytes that are not UTF-8, which names of files may have.
    let path = uri.path().strip_prefix("/resize/").unwrap_or_default();
    let path = url::from_bytes(&Vec::from_iter(percent_decode_str(path)));
    let path =
        ImagePath::parse(&path).inspect_err(|error| trace.error(ErrorKind::PathParsing, error))?;
    let source = app
        .sources
        .locate(&path.source)
        .inspect_err(|error| trace.error(ErrorKind::Security, error))?;

    let worker = app.workers.acquire(&trace).await?;
    let source = app.download(&trace, source).await?;

    let stage = trace.process(path.options_text);
    let picture = stage.run_blocking_with(move |stage| {
        // The work goes on when the client leaves, and keeps its worker busy until it ends.
        let _busy = worker;
        process(&source, &path.options, app.memory)
            .inspect(|picture| describe(stage, source.len(), picture))
    });
    let picture = picture.await?;

    let content_type = [(CONTENT_TYPE, picture.format.content_type())];
    let body = PictureBody::new(picture.bytes, trace.stream());
    Ok((content_type, Body::new(body)).into_response())
}

/// Records what went into a stage and what came out.
fn describe(stage: &Stage, source_size: usize, picture: &Processed) {
    stage.source_picture(&Picture {
        format: picture.source_format.name(),
        width: picture.source_width,
        height: picture.source_height,
        size: source_size as u64,
    });
    stage.result_picture(&Picture {
        format: picture.format.name(),
        width: picture.width,
        height: picture.height,
        size: picture.bytes.len() as u64,
    });
    stage.set_attribute(KeyValue::new(attribute::SOURCE_ANIMATED, picture.animated));
    let profile = picture.profile.name();
    stage.set_attribute(KeyValue::new(attribute::SOURCE_COLOR_PROFILE, profile));
}

fn size(name: &'static str, bytes: &[u8]) -> KeyValue {
    KeyValue::new(name, bytes.len() as i64)
}
