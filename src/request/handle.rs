use std::{borrow::Cow, fmt, sync::Arc};

use http::Extensions;
use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{TraceContextExt, TraceId},
};

use super::{AsError, ErrorKind, ErrorReport, RequestState, Stage};
use crate::{
    attribute,
    redact::{self, Redaction},
};

/// The handle of one request: records its stages and errors, names its route.
///
/// Cheap to clone, and works from any task or thread, during the request and after it. The default
/// value is a handle that records nothing, which is also what a request has without
/// [`ImageTraceLayer`](crate::ImageTraceLayer).
///
/// With feature `axum` it is an extractor that never fails:
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use tower_image_trace::{ImageTraceLayer, RequestTrace};
///
/// let app: Router = Router::new()
///     .route("/resize/{options}", get(async |trace: RequestTrace| trace.trace_id().to_string()))
///     .layer(ImageTraceLayer::new());
/// # }
/// ```
#[derive(Clone, Default)]
pub struct RequestTrace {
    state: Option<Arc<RequestState>>,
}

impl RequestTrace {
    pub(crate) fn new(state: Arc<RequestState>) -> Self {
        Self { state: Some(state) }
    }

    /// The handle in a request's extensions, or one that records nothing when there is none.
    ///
    /// With feature `axum` this also takes the route from axum's `MatchedPath`, which a layer
    /// around a whole `Router` can't see yet.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Self {
        let trace = extensions.get::<Self>().cloned().unwrap_or_default();
        #[cfg(feature = "axum")]
        if let (Some(state), Some(path)) =
            (&trace.state, extensions.get::<axum::extract::MatchedPath>())
        {
            state.live().set_route(path.as_str(), false);
        }
        trace
    }

    /// Waiting for a worker: stage `queue`.
    #[must_use = "a stage ends when it is dropped"]
    pub fn queue(&self) -> Stage {
        self.start("queue", ErrorKind::Queue, |_| Vec::new())
    }

    /// Fetching the source from an absolute `url`: stage `downloading_image`. The URL is recorded
    /// without credentials and signatures.
    #[must_use = "a stage ends when it is dropped"]
    pub fn download(&self, url: &str) -> Stage {
        self.start("downloading_image", ErrorKind::Download, |redaction| {
            let mut attributes = Vec::with_capacity(2);
            if let Some(url) = redaction.source_url(url) {
                attributes.push(KeyValue::new(attribute::SOURCE_URL, url.into_owned()));
            }
            if let Some(origin) = redact::origin(url) {
                attributes.push(KeyValue::new(attribute::SOURCE_ORIGIN, origin));
            }
            attributes
        })
    }

    /// Decoding, transforming and encoding: stage `processing_image`, with the options in the
    /// service's own notation.
    #[must_use = "a stage ends when it is dropped"]
    pub fn process(&self, options: impl Into<StringValue>) -> Stage {
        self.start("processing_image", ErrorKind::Processing, |redaction| {
            let mut options = options.into();
            if let Cow::Owned(redacted) = redaction.message(options.as_str()) {
                options = redacted.into();
            }
            vec![KeyValue::new(attribute::PROCESSING_OPTIONS, options)]
        })
    }

    /// Sending the result: stage `streaming_image`.
    #[must_use = "a stage ends when it is dropped"]
    pub fn stream(&self) -> Stage {
        self.start("streaming_image", ErrorKind::Streaming, |_| Vec::new())
    }

    /// A stage of the service's own. The name is a metric attribute too: keep their number small.
    #[must_use = "a stage ends when it is dropped"]
    pub fn stage(&self, name: &'static str) -> Stage {
        self.start(name, ErrorKind::Other(name), |_| Vec::new())
    }

    /// Records an error that belongs to no stage: an `exception` event on the root span, and one
    /// in `errors_total`. The root span's status still follows from the response.
    pub fn error<Form>(&self, kind: ErrorKind, error: &(impl AsError<Form> + ?Sized)) {
        if let Some(state) = &self.state {
            state.record_error(kind, || ErrorReport::new(error));
        }
    }

    /// Names the route, as the router knows it and never the path itself: `/resize/{options}/{source}`.
    /// It becomes `http.route` and part of the span's name, and wins over a route that was matched.
    /// A gRPC call is named after its method instead.
    pub fn set_route(&self, route: &str) {
        if let Some(state) = &self.state {
            state.live().set_route(route, true);
        }
    }

    /// Sets an attribute of the root span; a later value of the same key replaces it.
    pub fn set_attribute(&self, attribute: KeyValue) {
        if let Some(state) = self.state.as_ref().filter(|state| state.recording) {
            let attribute = state.config.redaction.attribute(attribute);
            state.live().set_attribute(attribute);
        }
    }

    /// The trace id, for log lines and error pages; [`TraceId::INVALID`] when there is no trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        match &self.state {
            Some(state) => state.context.span().span_context().trace_id(),
            None => TraceId::INVALID,
        }
    }

    /// The context of the root span, with the baggage of the request; the current context when
    /// there is no trace.
    #[must_use]
    pub fn context(&self) -> Context {
        match &self.state {
            Some(state) => state.context.clone(),
            None => Context::current(),
        }
    }

    fn start(
        &self,
        name: &'static str,
        kind: ErrorKind,
        attributes: impl FnOnce(&Redaction) -> Vec<KeyValue>,
    ) -> Stage {
        match &self.state {
            Some(state) => Stage::start(state, name, kind, attributes),
            None => Stage::default(),
        }
    }
}

impl RequestState {
    /// Gives the redacted report if there is a span to see it.
    pub(super) fn record_error(
        &self,
        kind: ErrorKind,
        report: impl FnOnce() -> ErrorReport,
    ) -> Option<ErrorReport> {
        if let Some(metrics) = &self.config.stage_metrics {
            metrics.error(kind);
        }
        self.recording.then(|| {
            let mut report = report();
            report.redact(&self.config.redaction);
            let span = self.context.span();
            span.add_event("exception", report.event_attributes());
            report
        })
    }
}

impl fmt::Debug for RequestTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTrace")
            .field("trace_id", &self.trace_id())
            .finish()
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for RequestTrace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self::from_extensions(&parts.extensions))
    }
}
