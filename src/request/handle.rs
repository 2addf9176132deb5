use std::{fmt, sync::Arc};

use http::Extensions;
use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{SpanContext, TraceContextExt, TraceId},
};

use super::{
    AsError, ErrorKind, ErrorReport, RequestBody, RequestState, Route, Stage, body::BodyCount,
    current::with_current,
};
use crate::{
    attribute,
    instrument::{Clock, Level, TextRules},
    metrics::Labels,
};

/// The handle of one request: records its stages and errors, names its route.
///
/// Cheap to clone, and works from any task or thread, during the request and after it. The default
/// value records nothing; a request without [`ImageTraceLayer`](crate::ImageTraceLayer) has that one.
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

    /// The handle of a layer that has the request already, and is around the one that asks. A request with the
    /// extensions of one that is over is a new one.
    pub(crate) fn of_outer(extensions: &Extensions) -> Option<Self> {
        let outer = extensions.get::<Self>()?;
        let state = outer.state.as_ref()?;
        (!state.has_ended()).then(|| outer.clone())
    }

    /// The context for a layer inside the one of this handle: the current one, unless the request has come
    /// to another task without it.
    pub(crate) fn inner_context(&self) -> Context {
        let trace = self.trace_id();
        let current = Context::map_current(|current| {
            let is_inside = current.span().span_context().trace_id() == trace;
            is_inside.then(|| current.clone())
        });
        current.unwrap_or_else(|| self.context())
    }

    /// Whether the request is measured.
    pub(crate) fn is_measured(&self) -> bool {
        let state = self.state.as_ref();
        state.is_some_and(|state| state.layer.measures())
    }

    /// Names the route as a layer inside knows it.
    pub(crate) fn route_inside(&self, route: &Route) {
        if let Some(state) = &self.state {
            state.live().set_route(route.path.as_str(), route.named);
        }
    }

    /// The handle in a request's extensions, or one that records nothing.
    ///
    /// With feature `axum` this also takes the route from axum's `MatchedPath`, which a layer around a
    /// whole `Router` cannot see.
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

    /// The handle of the request that is being worked on, or one that records nothing.
    ///
    /// It is available in the service and its futures, while the response's body is polled or dropped, and
    /// in everything that stages run, on any thread. A task that the service spawns does not inherit it:
    /// move the handle there, or spawn a future from [`Stage::attach`].
    ///
    /// ```
    /// use opentelemetry::KeyValue;
    /// use tower_image_trace::RequestTrace;
    ///
    /// /// Called by whatever handles a request.
    /// fn decode(source: &[u8]) {
    ///     let stage = RequestTrace::current().stage("decode");
    ///     stage.set_attribute(KeyValue::new("image.source.size", source.len() as i64));
    ///     // …
    /// }
    /// # decode(b"");
    /// ```
    #[must_use]
    pub fn current() -> Self {
        let state = with_current(|request| Some(Arc::clone(request)));
        Self { state }
    }

    /// How texts are recorded, if there is a trace.
    pub(crate) fn texts(&self) -> Option<&TextRules> {
        Some(&self.state.as_ref()?.layer.recording().texts)
    }

    /// The clock of the request's spans, if it has spans.
    pub(crate) fn clock(&self) -> Option<Clock> {
        let state = self.state.as_ref().filter(|state| state.is_recording)?;
        Some(state.clock)
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
        self.start("downloading_image", ErrorKind::Download, |texts| {
            let mut attributes = Vec::with_capacity(2);
            if let Some(url) = texts.source_url(url) {
                attributes.push(KeyValue::new(attribute::SOURCE_URL, url));
            }
            if let Some(origin) = texts.origin(url) {
                attributes.push(KeyValue::new(attribute::SOURCE_ORIGIN, origin));
            }
            attributes
        })
    }

    /// Decoding, transforming and encoding: stage `processing_image`, with the options in the
    /// service's own notation.
    #[must_use = "a stage ends when it is dropped"]
    pub fn process(&self, options: impl Into<StringValue>) -> Stage {
        self.start("processing_image", ErrorKind::Processing, |texts| {
            let options = KeyValue::new(attribute::PROCESSING_OPTIONS, options.into());
            vec![texts.attribute(options)]
        })
    }

    /// Sending the result: stage `streaming_image`.
    #[must_use = "a stage ends when it is dropped"]
    pub fn stream(&self) -> Stage {
        self.start("streaming_image", ErrorKind::Streaming, |_| Vec::new())
    }

    /// Waiting for another request that makes the same result (coalescing, single flight): stage
    /// `waiting_for_image`, with a link to the root span of that request.
    ///
    /// ```
    /// # use std::io;
    /// use tower_image_trace::RequestTrace;
    ///
    /// # async fn follow(
    /// #     trace: RequestTrace,
    /// #     leader: RequestTrace,
    /// #     result: impl Future<Output = io::Result<Vec<u8>>>,
    /// # ) -> io::Result<Vec<u8>> {
    /// // `leader` is the handle of the request that does the work.
    /// let picture = trace.wait_for(&leader).run(result).await?;
    /// # Ok(picture)
    /// # }
    /// ```
    #[must_use = "a stage ends when it is dropped"]
    pub fn wait_for(&self, other: &Self) -> Stage {
        let stage = self.start("waiting_for_image", ErrorKind::Processing, |_| Vec::new());
        match other.root_span() {
            Some(root) => stage.awaits(root),
            None => stage,
        }
    }

    /// Links the root span to that of another request, such as one that has made the result which this one
    /// gets. [`wait_for`](Self::wait_for) is for the time until then.
    pub fn link(&self, other: &Self) {
        if let (Some(state), Some(root)) = (&self.state, other.root_span())
            && state.is_recording
        {
            state.context.span().add_link(root, Vec::new());
        }
    }

    fn root_span(&self) -> Option<SpanContext> {
        let root = self.state.as_ref()?.context.span().span_context().clone();
        root.is_valid().then_some(root)
    }

    /// A stage of the service's own. The name is also a metric attribute: keep the number of names small.
    #[must_use = "a stage ends when it is dropped"]
    pub fn stage(&self, name: &'static str) -> Stage {
        self.start(name, ErrorKind::Other(name), |_| Vec::new())
    }

    /// Records an error that belongs to no stage: an `exception` event on the root span, and one
    /// in `errors_total`. The root span's status still follows from the response.
    pub fn error<Form>(&self, kind: ErrorKind, error: &(impl AsError<Form> + ?Sized)) {
        if let Some(state) = &self.state {
            let report = state.record_error(kind, |texts| ErrorReport::new(error, texts));
            if let Some(report) = report {
                let exceptions = &state.layer.recording().exceptions;
                let event = ("image.request.exception", Level::Warn);
                report.log(exceptions, event, state.clock.now(), &state.context);
            }
        }
    }

    /// Names the route, as the router knows it and never the path itself: `/resize/{options}/{source}`.
    /// It becomes `http.route` and part of the span's name, cut at 256 bytes, and wins over a route that was
    /// matched. A gRPC call is named after its method instead.
    ///
    /// A matched route without a wildcard (`{*path}`) is shown to samplers that look at attributes. Where it
    /// was, it stays the span's `http.route`; the span's name and the measurements have the one named here.
    pub fn set_route(&self, route: &str) {
        if let Some(state) = &self.state {
            let route = state.layer.recording().texts.route(route);
            state.live().set_route(&route, true);
        }
    }

    /// Sets an attribute of the root span. URLs in its text are redacted, and long texts are cut.
    ///
    /// The value replaces an earlier one of the same key, also one that the layer sets itself. Attributes
    /// that the sampler has seen cannot be replaced. With
    /// [`attributes_after_sampling`](crate::trace::ImageTraceLayerBuilder::attributes_after_sampling), which
    /// layers from `Telemetry` have on, it sees none.
    pub fn set_attribute(&self, attribute: KeyValue) {
        if let Some(state) = self.state.as_ref().filter(|state| state.is_recording) {
            let attribute = state.layer.recording().texts.attribute(attribute);
            state.live().set_attribute(attribute);
        }
    }

    /// Sets an attribute of the request's measurements: a preset, a tenant, whether a cache had the result.
    /// URLs in its text are redacted. A text, or the values of an array together, is cut at 128 bytes, because a
    /// scrape repeats it on each line of its series.
    ///
    /// Each set of values is a series of its own in every metric, so values that clients can invent use up
    /// the limit of series (2,000 with `Telemetry`): all later sets are counted as one, with the attribute
    /// `otel.metric.overflow`. The value replaces an earlier one of the same key. Attributes that the metrics
    /// have by themselves cannot be replaced.
    ///
    /// The durations of stages and of downloads that end later have it too where the layer says so
    /// ([`label_stages`](crate::trace::ImageTraceLayerBuilder::label_stages),
    /// [`label_downloads`](crate::trace::ImageTraceLayerBuilder::label_downloads)).
    ///
    /// ```
    /// use tower_image_trace::{RequestTrace, opentelemetry::KeyValue};
    ///
    /// # let trace = RequestTrace::default();
    /// trace.metric_attribute(KeyValue::new("thumbs.preset", "avatar"));
    /// ```
    pub fn metric_attribute(&self, attribute: KeyValue) {
        if let Some(state) = self.state.as_ref().filter(|state| state.layer.measures()) {
            let attribute = state.layer.recording().texts.label(attribute);
            state.live().labels.set(attribute);
        }
    }

    /// Sets attributes of measurements as a layer inside knows them.
    pub(crate) fn labelled_inside(&self, labels: &[KeyValue]) {
        if let Some(state) = &self.state {
            let mut live = state.live();
            labels
                .iter()
                .for_each(|label| live.labels.set(label.clone()));
        }
    }

    /// The attributes of the service's own for the measurements of downloads.
    pub(crate) fn download_labels(&self) -> Labels {
        let state = self.state.as_ref();
        let state = state.filter(|state| state.layer.recording().labelled.downloads);
        let live = state.and_then(|state| state.changed());
        live.map_or_else(Labels::default, |live| live.labels.clone())
    }

    /// Counts the bytes of the request's body as the service reads them, for `http.request.body.size`.
    ///
    /// Without this the size is what `Content-Length` announced, when the service has answered with a
    /// success or a redirect. The layer does this by itself for axum's bodies (feature `axum`).
    pub fn request_body<B>(&self, body: B) -> RequestBody<B> {
        RequestBody::new(body, self.clone())
    }

    pub(super) fn body_count(&self) -> Option<&BodyCount> {
        self.state.as_ref().map(|state| &state.request_body)
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
        attributes: impl FnOnce(&TextRules) -> Vec<KeyValue>,
    ) -> Stage {
        match &self.state {
            Some(state) => Stage::start(state, name, kind, attributes),
            None => Stage::default(),
        }
    }
}

impl RequestState {
    /// Counts an error and adds it to the root span. Returns the report when it is recorded elsewhere too.
    pub(super) fn record_error(
        &self,
        kind: ErrorKind,
        report: impl FnOnce(&TextRules) -> ErrorReport,
    ) -> Option<ErrorReport> {
        let recording = self.layer.recording();
        if let Some(metrics) = &recording.stage_metrics {
            metrics.error(kind.as_str());
        }
        let exceptions = &recording.exceptions;
        (self.is_recording || exceptions.are_logged()).then(|| {
            let report = report(&recording.texts);
            if self.is_recording && exceptions.on_spans {
                let (span, now) = (self.context.span(), self.clock.now());
                span.add_event_with_timestamp("exception", now, report.event_attributes());
            }
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
