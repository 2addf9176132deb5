//! The service: `GET /resize/{options}/{source}`, traced, `GET /health` and `GET /metrics`.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
    routing::get,
};
use opentelemetry::{KeyValue, trace::get_active_span};
use percent_encoding::percent_decode_str;
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, RequestTrace, RequestsInProgress, RequestsInProgressLayer, Stage,
    attribute,
    metrics::Gauges,
    pool::{Buffer, Workers},
    request::{self, Picture},
    telemetry::Prometheus,
};

#[cfg(not(feature = "libvips"))]
use super::process::process;
#[cfg(feature = "libvips")]
use super::vips::process;
use super::{
    cache::{Cache, Key},
    error::Error,
    options::ImagePath,
    process::Processed,
    rendition::{Rendition, accepts_webp},
    source::{Source, SourceError, Sources},
    url,
};

#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) sources: Sources,
    pub(crate) workers: Workers,
    /// Most bytes that a worker takes for a picture.
    pub(crate) memory: u64,
    /// Results that may be asked for again.
    pub(crate) cache: Option<Cache>,
    /// For how long clients and caches may keep a result.
    pub(crate) max_age: Duration,
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

    /// A result of the cache needs no worker. Its stage says so, and takes no time.
    fn cached(&self, trace: &RequestTrace, source: &Source, path: &ImagePath) -> Option<Rendition> {
        let rendition = self.cache.as_ref()?.get(&key(source, path))?;
        let stage = trace.process(path.options_text.clone());
        stage.result_cache(request::Cache::Hit);
        Some(rendition)
    }

    async fn render(
        &self,
        trace: &RequestTrace,
        source: Source,
        path: ImagePath,
    ) -> Result<Rendition, Error> {
        let worker = self.workers.acquire(trace).await?;
        let key = key(&source, &path);
        let source = self.download(trace, source).await?;

        let stage = trace.process(path.options_text);
        if self.cache.is_some() {
            stage.result_cache(request::Cache::Miss);
        }
        let memory = self.memory;
        let picture = stage.run_blocking_with(move |stage| {
            // The work goes on when the client leaves, and keeps its worker busy until it ends.
            let _busy = worker;
            process(&source, &path.options, memory)
                .inspect(|picture| describe(stage, source.len(), picture))
        });
        let picture = picture.await?;
        let rendition = Rendition::new(picture.bytes, picture.format);
        if let Some(cache) = &self.cache {
            cache.insert(key, rendition.clone());
        }
        Ok(rendition)
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

async fn resize(
    State(app): State<App>,
    trace: RequestTrace,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    // Axum only knows `/resize/{*path}`. This name says what the path holds.
    trace.set_route("/resize/{options}/{source}");
    // Axum's `Path` refuses bytes that are not UTF-8, which names of files may have.
    let path = uri.path().strip_prefix("/resize/").unwrap_or_default();
    let path = url::from_bytes(&Vec::from_iter(percent_decode_str(path)));
    let mut path =
        ImagePath::parse(&path).inspect_err(|error| trace.error(ErrorKind::PathParsing, error))?;
    let negotiated = path.options.format.is_none();
    path.options.accepts_webp = negotiated && accepts_webp(&headers);
    let source = app
        .sources
        .locate(&path.source)
        .inspect_err(|error| trace.error(ErrorKind::Security, error))?;

    let rendition = match app.cached(&trace, &source, &path) {
        Some(rendition) => rendition,
        None => app.render(&trace, source, path).await?,
    };
    Ok(rendition.respond(&headers, app.max_age, negotiated, &trace))
}

fn key(source: &Source, path: &ImagePath) -> Key {
    Key {
        source: source.to_string(),
        options: path.options.clone(),
    }
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
