use std::{error::Error, fmt, sync::Arc};

use opentelemetry::{
    global,
    metrics::MeterProvider,
    propagation::TextMapPropagator,
    trace::{Tracer, TracerProvider},
};
use tower_layer::Layer;

use super::{
    Download, Origin,
    config::{Config, Propagate},
    server::MeasuredServers,
};
use crate::{
    instrument::{
        ErrorView, Exceptions, MeterChoice, Propagation, ScopedMeter, StartSpan, TextRules, scope,
        view_as,
    },
    metrics::ClientMetrics,
    redact::SourceUrls,
    semconv::KnownMethods,
};

/// Opens a client span for each request to a service that fetches, such as hyper-util's client.
///
/// ```
/// # #[cfg(feature = "hyper-client")] {
/// # use {bytes::Bytes, http_body_util::Empty};
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{Layer, ServiceExt};
/// use tower_image_trace::DownloadLayer;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(TokioExecutor::new()).build_http();
/// let client = DownloadLayer::new().layer(client);
/// let request = http::Request::get("http://cdn.example/cat.jpg").body(Empty::<Bytes>::new())?;
/// let response = client.oneshot(request).await?; // the span ends with the last byte of its body
/// # drop(response);
/// # Ok(())
/// # }
/// # }
/// ```
///
/// The [module](super) says how it goes together with a stage of the request.
#[derive(Clone, Debug)]
pub struct DownloadLayer {
    config: Option<Arc<Config>>,
}

impl DownloadLayer {
    /// A layer on the OpenTelemetry globals: the tracer and meter providers that are set at this moment.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A layer with providers and propagators of its own.
    pub fn builder() -> DownloadLayerBuilder {
        DownloadLayerBuilder::default()
    }

    /// A layer that does nothing, at almost no cost.
    #[must_use]
    pub fn disabled() -> Self {
        Self { config: None }
    }
}

impl Default for DownloadLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for DownloadLayer {
    type Service = Download<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Download::new(inner, self.config.clone())
    }
}

/// Builds a [`DownloadLayer`]. Providers and propagators that are not given are the OpenTelemetry
/// globals.
#[must_use]
pub struct DownloadLayerBuilder {
    enabled: bool,
    tracer: Option<Box<dyn StartSpan>>,
    meter: MeterChoice,
    propagation: Option<Propagation>,
    propagate: Propagate,
    measured_servers: usize,
    error_views: Vec<ErrorView>,
    exceptions: Exceptions,
    texts: TextRules,
    has_own_texts: bool,
}

impl Default for DownloadLayerBuilder {
    fn default() -> Self {
        Self {
            enabled: true,
            tracer: None,
            meter: MeterChoice::default(),
            propagation: None,
            propagate: Propagate::default(),
            measured_servers: 100,
            error_views: Vec::new(),
            exceptions: Exceptions::default(),
            texts: TextRules::default(),
            has_own_texts: false,
        }
    }
}

impl DownloadLayerBuilder {
    /// Builds a layer that does nothing, whatever is set.
    #[cfg(feature = "telemetry")]
    pub(crate) fn disabled() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// Where spans go.
    pub fn tracer_provider<P>(mut self, provider: P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
    {
        self.tracer = Some(Box::new(provider.tracer_with_scope(scope())));
        self
    }

    /// What starts the spans.
    #[cfg(feature = "telemetry")]
    pub(crate) fn tracer(mut self, tracer: Box<dyn StartSpan>) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Where exceptions are recorded.
    #[cfg(feature = "telemetry")]
    pub(crate) fn exceptions(mut self, exceptions: Exceptions) -> Self {
        self.exceptions = exceptions;
        self
    }

    /// Where measurements go.
    pub fn meter_provider(mut self, provider: impl MeterProvider + 'static) -> Self {
        self.meter.meter = Some(ScopedMeter::of(&provider));
        self
    }

    /// Whether attempts are measured; `true` by default.
    pub fn metrics(mut self, enabled: bool) -> Self {
        self.meter.enabled = enabled;
        self
    }

    /// How the trace context is written into requests that carry it: a
    /// [`Propagators`](crate::Propagators), or any other propagator.
    pub fn propagators(
        mut self,
        propagators: impl TextMapPropagator + Send + Sync + 'static,
    ) -> Self {
        self.propagation = Some(Propagation::new(propagators));
        self
    }

    /// Whether requests carry the trace context; `false` by default, so that trace ids and baggage
    /// don't leak to foreign origins. The last call of this or [`propagate_to`](Self::propagate_to) wins.
    pub fn propagate_external(mut self, propagate: bool) -> Self {
        self.propagate = if propagate {
            Propagate::All
        } else {
            Propagate::None
        };
        self
    }

    /// Only requests to these origins carry the trace context.
    ///
    /// ```
    /// use tower_image_trace::DownloadLayer;
    ///
    /// let layer = DownloadLayer::builder().propagate_to(["https://images.internal:8443".parse()?]);
    /// # Ok::<(), tower_image_trace::download::OriginError>(())
    /// ```
    pub fn propagate_to(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.propagate = Propagate::To(origins.into_iter().collect());
        self
    }

    /// How many servers (host and port) `http.client.request.duration` names; 100 by default. The first
    /// servers are named, all later ones share the `server.address` `_OTHER`.
    pub fn measured_servers(mut self, limit: usize) -> Self {
        self.measured_servers = limit;
        self
    }

    /// The query keys whose values are redacted in `url.full` and in errors, in place of semconv's list:
    /// see [`ImageTraceLayerBuilder::sensitive_query_keys`](crate::trace::ImageTraceLayerBuilder::sensitive_query_keys).
    ///
    /// The settings of the trace layer apply to the downloads of its requests without being repeated here.
    /// When both layers have settings, both are applied.
    pub fn sensitive_query_keys(self, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let keys = keys.into_iter().map(Into::into).collect();
        self.with_texts(|texts| texts.redaction.sensitive_keys = Some(keys))
    }

    /// How much is recorded of the URLs that are fetched, in `url.full` and in errors. Applied in
    /// addition to the settings of the request's trace layer.
    pub fn source_urls(self, source_urls: SourceUrls) -> Self {
        self.with_texts(|texts| texts.redaction.source_urls = source_urls)
    }

    /// The most bytes that are recorded of an error's message with its sources; 4 KiB by default. Applied
    /// in addition to the settings of the request's trace layer.
    pub fn longest_message(self, bytes: usize) -> Self {
        self.with_texts(|texts| texts.longest_message = bytes)
    }

    /// The most bytes that are recorded of `url.full`; 16 KiB by default. Applied in addition to the
    /// settings of the request's trace layer.
    pub fn longest_attribute(self, bytes: usize) -> Self {
        self.with_texts(|texts| texts.longest_attribute = bytes)
    }

    fn with_texts(mut self, change: impl FnOnce(&mut TextRules)) -> Self {
        change(&mut self.texts);
        self.has_own_texts = true;
        self
    }

    /// Records and classifies errors of type `E`, from the inner service or a response body, with
    /// their sources.
    ///
    /// Boxed errors, `std::io::Error`, and with feature `hyper-client` the errors of hyper and
    /// hyper-util's client need no such call. Of all other types only the text is recorded, because the
    /// error of a tower service need not be an [`Error`].
    pub fn record_errors_as<E: Error + 'static>(mut self) -> Self {
        self.error_views.push(view_as::<E>);
        self
    }

    /// Builds the layer.
    #[must_use]
    pub fn build(self) -> DownloadLayer {
        if !self.enabled {
            return DownloadLayer::disabled();
        }
        let config = Config {
            tracer: self
                .tracer
                .unwrap_or_else(|| Box::new(global::tracer_provider().tracer_with_scope(scope()))),
            propagation: self.propagation.unwrap_or(Propagation::Global),
            propagate: self.propagate,
            metrics: self.meter.meter().as_deref().map(ClientMetrics::new),
            measured_servers: MeasuredServers::new(self.measured_servers),
            known_methods: KnownMethods::new(None),
            error_views: self.error_views,
            exceptions: self.exceptions,
            texts: self.texts,
            has_own_texts: self.has_own_texts,
        };
        DownloadLayer {
            config: Some(Arc::new(config)),
        }
    }
}

impl fmt::Debug for DownloadLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadLayerBuilder")
            .field("propagate", &self.propagate)
            .finish_non_exhaustive()
    }
}
