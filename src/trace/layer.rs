use std::{error::Error, fmt, net::SocketAddr, sync::Arc};

use http::{Extensions, HeaderValue, Method, request::Parts, response};
use opentelemetry::{
    KeyValue, global,
    metrics::MeterProvider,
    propagation::TextMapPropagator,
    trace::{Tracer, TracerProvider},
};
use tower_layer::Layer;

use super::{
    ForwardedHeader, HeaderAllowList, ImageTrace, Networks, Record, ServerTimingTrace, Trust,
    addresses::AddressRules,
    config::{Config, Filter, LabelRules, SampleRule, TrustRule},
    headers::RecordedHeaders,
    rpc::Methods,
};
#[cfg(feature = "page")]
use crate::request::RunningRequests;
use crate::{
    instrument::{
        ErrorView, Exceptions, MeterChoice, Propagation, ScopedMeter, StartSpan, TextRules, scope,
        view_as,
    },
    metrics::{
        ActiveRequests, Extra, Gauges, HttpMetrics, PictureMetrics, RpcMetrics, StageMetrics,
    },
    redact::SourceUrls,
    request::{Labelled, Recording},
    semconv::KnownMethods,
};

/// Opens a root span for each request and gives the request its [`RequestTrace`](crate::RequestTrace).
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use tower_image_trace::ImageTraceLayer;
///
/// let app: Router = Router::new()
///     .route("/thumbnail/{source}", get(async || "…"))
///     .layer(ImageTraceLayer::new());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ImageTraceLayer {
    config: Option<Arc<Config>>,
}

impl ImageTraceLayer {
    /// A layer on the OpenTelemetry globals: the tracer and meter providers that are set now, and the
    /// propagator that is set when a request arrives.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A layer with providers and propagators of its own.
    pub fn builder() -> ImageTraceLayerBuilder {
        ImageTraceLayerBuilder::default()
    }

    /// A layer that does nothing, at almost no cost.
    #[must_use]
    pub fn disabled() -> Self {
        Self { config: None }
    }
}

impl Default for ImageTraceLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ImageTraceLayer {
    type Service = ImageTrace<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ImageTrace::new(inner, self.config.clone())
    }
}

/// Builds an [`ImageTraceLayer`]. Providers and propagators that are not given are the OpenTelemetry
/// globals.
#[derive(Default)]
#[must_use]
pub struct ImageTraceLayerBuilder {
    disabled: bool,
    without_traces: bool,
    tracer: Option<Box<dyn StartSpan>>,
    meter: MeterChoice,
    active_requests: Option<Arc<ActiveRequests>>,
    extra_metrics: Extra,
    labels: LabelRules,
    labelled: Labelled,
    propagation: Option<Propagation>,
    propagate_external: bool,
    random_trace_ids: bool,
    attributes_after_sampling: bool,
    filter: Option<Box<Filter>>,
    trust: Option<TrustRule>,
    sample_when: Option<Box<SampleRule>>,
    addresses: AddressRules,
    exceptions: Exceptions,
    texts: TextRules,
    request_headers: HeaderAllowList,
    response_headers: HeaderAllowList,
    trace_response: bool,
    server_timing: bool,
    server_timing_trace: Option<ServerTimingTrace>,
    timing_allow_origin: Option<HeaderValue>,
    known_methods: Option<Vec<Method>>,
    rpc_methods: Option<Methods>,
    error_views: Vec<ErrorView>,
    #[cfg(feature = "page")]
    running: Option<Arc<RunningRequests>>,
}

impl ImageTraceLayerBuilder {
    /// Builds a layer that does nothing, whatever else is set.
    #[cfg(feature = "telemetry")]
    pub(crate) fn disabled() -> Self {
        Self {
            disabled: true,
            ..Self::default()
        }
    }

    /// Where running requests are listed.
    #[cfg(feature = "page")]
    pub(crate) fn running(mut self, running: Arc<RunningRequests>) -> Self {
        self.running = Some(running);
        self
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
        self.active_requests = None;
        self
    }

    /// Measurements go where `gauges` are read, in place of
    /// [`meter_provider`](Self::meter_provider). This saves two SDK lookups a request, because
    /// `http.server.active_requests` is counted beside the SDK, and read when metrics are collected.
    pub fn gauges(mut self, gauges: &Gauges) -> Self {
        self.meter.meter = Some(gauges.meter().clone());
        self.active_requests = Some(gauges.active_requests());
        self
    }

    /// Whether requests, stages and errors are measured through bound instruments: a fifth of what a measurement
    /// costs. `false` by default; [`Telemetry`](crate::Telemetry) has it on for its layers where it is right.
    ///
    /// It is for providers of the SDK's whose readers are all cumulative. With delta temporality the SDK forgets
    /// series that are not measured any more, but no bound ones, so that the limit of series is reached and new
    /// series are in `otel.metric.overflow` from then on. Any other provider, also the global one, is given each
    /// measurement.
    #[cfg(feature = "bound-instruments")]
    #[cfg_attr(docsrs, doc(cfg(feature = "bound-instruments")))]
    pub fn bound_instruments(mut self, enabled: bool) -> Self {
        self.meter.is_cumulative = enabled;
        self
    }

    /// Whether requests and stages have spans; `true` by default. Without them the caller's context
    /// passes through as it is.
    pub fn traces(mut self, enabled: bool) -> Self {
        self.without_traces = !enabled;
        self
    }

    /// Whether requests and stages are measured; `true` by default.
    pub fn metrics(mut self, enabled: bool) -> Self {
        self.meter.enabled = enabled;
        self
    }

    /// Whether requests are measured a second time under imgproxy's names, for dashboards made for
    /// imgproxy: `requests_total`, `status_codes_total` and `request_duration_seconds`. `false` by default.
    pub fn imgproxy_metrics(mut self, enabled: bool) -> Self {
        self.extra_metrics.imgproxy = enabled;
        self
    }

    /// Whether the time until the head of the response is measured too, as
    /// `image.request.time_to_first_byte`; `false` by default. Unlike the duration it does not depend on
    /// how quickly clients read.
    pub fn time_to_first_byte(mut self, enabled: bool) -> Self {
        self.extra_metrics.first_byte = enabled;
        self
    }

    /// Gives attributes of your own to the measurements of each request when it arrives. Handlers add
    /// others with [`RequestTrace::metric_attribute`](crate::RequestTrace::metric_attribute), which says
    /// more.
    ///
    /// ```
    /// use opentelemetry::KeyValue;
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// let layer = ImageTraceLayer::builder()
    ///     .request_metric_attributes(|parts| {
    ///         let is_thumbnail = parts.uri.path().starts_with("/thumbnail/");
    ///         [KeyValue::new("thumbs.kind", if is_thumbnail { "thumbnail" } else { "full" })]
    ///     })
    ///     .label_stages(true)
    ///     .build();
    /// ```
    pub fn request_metric_attributes<A: IntoIterator<Item = KeyValue>>(
        mut self,
        attributes: impl Fn(&Parts) -> A + Send + Sync + 'static,
    ) -> Self {
        let attributes = move |parts: &Parts| attributes(parts).into_iter().collect();
        self.labels.of_request = Some(Box::new(attributes));
        self
    }

    /// Gives attributes of your own to the measurements of each request when the head of its response is
    /// there. The closure sees both heads. That of the request is copied for it.
    ///
    /// ```
    /// use opentelemetry::KeyValue;
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// let layer = ImageTraceLayer::builder()
    ///     .metric_attributes(|_, response| {
    ///         let is_hit = response.headers.get("x-cache").is_some_and(|value| value == "HIT");
    ///         [KeyValue::new("thumbs.cache", if is_hit { "hit" } else { "miss" })]
    ///     })
    ///     .build();
    /// ```
    pub fn metric_attributes<A: IntoIterator<Item = KeyValue>>(
        mut self,
        attributes: impl Fn(&Parts, &response::Parts) -> A + Send + Sync + 'static,
    ) -> Self {
        let attributes = move |request: &Parts, response: &response::Parts| {
            attributes(request, response).into_iter().collect()
        };
        self.labels.of_response = Some(Box::new(attributes));
        self
    }

    /// Whether the durations and the CPU times of stages have the request's own attributes too, as they
    /// are when the stage ends; `false` by default.
    pub fn label_stages(mut self, enabled: bool) -> Self {
        self.labelled.stages = enabled;
        self
    }

    /// Whether the durations of downloads have the request's own attributes too, as they are when the
    /// attempt ends; `false` by default.
    pub fn label_downloads(mut self, enabled: bool) -> Self {
        self.labelled.downloads = enabled;
        self
    }

    /// How the caller's context is read from the request's headers, and written by
    /// [`Stage::inject`](crate::Stage::inject): a [`Propagators`](crate::Propagators), or any
    /// other propagator.
    pub fn propagators(
        mut self,
        propagators: impl TextMapPropagator + Send + Sync + 'static,
    ) -> Self {
        self.propagation = Some(Propagation::new(propagators));
        self
    }

    /// Whether [`Stage::inject`](crate::Stage::inject) writes into outgoing requests; `false` by
    /// default, so that trace ids and baggage don't leak to foreign origins.
    pub fn propagate_external(mut self, propagate: bool) -> Self {
        self.propagate_external = propagate;
        self
    }

    /// Whether the low 56 bits of the trace ids that the tracer provider makes are random; `false` by
    /// default. New traces then carry the random flag of W3C Trace Context level 2, which some samplers
    /// need. The id generators of the SDK and of X-Ray make such ids, but a layer does not know the
    /// generator of its provider; layers from `Telemetry` do.
    pub fn random_trace_ids(mut self, random: bool) -> Self {
        self.random_trace_ids = random;
        self
    }

    /// Whether root spans get their attributes after the sampler has taken them, which makes requests
    /// cheaper that are not sampled; `false` by default, because a sampler may look at attributes
    /// (semconv http-spans). The SDK's samplers don't, and layers from `Telemetry` have this on, unless
    /// its tracer provider was changed or X-Ray's sampling rules decide.
    pub fn attributes_after_sampling(mut self, after: bool) -> Self {
        self.attributes_after_sampling = after;
        self
    }

    /// Which requests are recorded: one decision a request for spans and metrics, a [`Record`] or a
    /// `bool`, which is `true` for requests that are recorded.
    ///
    /// ```
    /// use tower_image_trace::{ImageTraceLayer, trace::Record};
    ///
    /// ImageTraceLayer::builder().filter(|parts| parts.uri.path() != "/health").build();
    /// ImageTraceLayer::builder()
    ///     .filter(|parts| match parts.uri.path() {
    ///         "/health" => Record::Nothing,
    ///         "/metrics" => Record::Metrics,
    ///         _ => Record::All,
    ///     })
    ///     .build();
    /// ```
    pub fn filter<R: Into<Record>>(
        mut self,
        filter: impl Fn(&Parts) -> R + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some(Box::new(move |parts| filter(parts).into()));
        self
    }

    /// How far each request's propagated context, baggage included, is trusted; [`Trust::Parent`] by
    /// default.
    pub fn trust(mut self, trust: impl Fn(&Parts) -> Trust + Send + Sync + 'static) -> Self {
        self.trust = Some(TrustRule::Closure(Box::new(trust)));
        self
    }

    /// Samples the requests for which the closure returns true, whatever the sampler, the caller or the dice of
    /// `Keep` say: for a signed header, or the cookie of someone of the staff. It is not asked about requests that
    /// are not [trusted](Self::trust) as [`Trust::Parent`].
    ///
    /// The samplers of `Telemetry` obey. A layer with another tracer provider cannot change what its sampler
    /// says. The debug flag of B3 and Jaeger, and a `jaeger-debug-id`, do the same where their formats are read.
    ///
    /// ```
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// # fn is_signed_by_us(_: &http::HeaderValue) -> bool { true }
    /// let layer = ImageTraceLayer::builder()
    ///     .sample_when(|parts| parts.headers.get("x-trace-me").is_some_and(is_signed_by_us))
    ///     .build();
    /// ```
    pub fn sample_when(mut self, rule: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.sample_when = Some(Box::new(rule));
        self
    }

    /// [`Trust::Parent`] for callers in `networks`, and `others` for all other callers, unknown
    /// addresses included. Replaces [`trust`](Self::trust).
    ///
    /// The address is that of the connection ([`peer_address`](Self::peer_address)), which cannot be
    /// forged; headers are not read.
    ///
    /// ```
    /// use tower_image_trace::{ImageTraceLayer, Trust};
    ///
    /// let layer = ImageTraceLayer::builder()
    ///     .trust_only("10.0.0.0/8, fd00::/8".parse()?, Trust::Link)
    ///     .build();
    /// # Ok::<(), tower_image_trace::trace::NetworksError>(())
    /// ```
    pub fn trust_only(mut self, networks: Networks, others: Trust) -> Self {
        self.trust = Some(TrustRule::Networks(networks, others));
        self
    }

    /// The networks of the proxies in front of this service. When the connection comes from one of them,
    /// its forwarding headers ([`forwarded_header`](Self::forwarded_header)) say who the client is
    /// (`client.address`), and what it asked for (`url.scheme`, `server.address`, `server.port`). The
    /// client is the right-most hop that is not one of these proxies. Without this setting the headers are
    /// not read, because any client can write them.
    ///
    /// ```
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// let layer = ImageTraceLayer::builder().trusted_proxies("10.0.0.0/8, fd00::/8".parse()?).build();
    /// # drop(layer);
    /// # Ok::<(), tower_image_trace::trace::NetworksError>(())
    /// ```
    pub fn trusted_proxies(mut self, proxies: Networks) -> Self {
        self.addresses.proxies = Some(proxies);
        self
    }

    /// The header that the [trusted proxies](Self::trusted_proxies) own; the other one is ignored. By
    /// default these are the `X-Forwarded-` headers where there is one of them, or else `Forwarded`: name
    /// the header when your proxies write `Forwarded`, because they may pass on an `X-Forwarded-For` of the
    /// client's.
    ///
    /// Proxies that write `X-Forwarded-For` do not always write `-Proto`, `-Host` and `-Port` too: let them
    /// remove those that they leave alone.
    pub fn forwarded_header(mut self, header: ForwardedHeader) -> Self {
        self.addresses.forwarded = Some(header);
        self
    }

    /// Finds the address of the connection's other end. By default that is a
    /// [`PeerAddr`](super::PeerAddr) or a [`SocketAddr`] in the request's extensions, and with
    /// feature `axum` its `ConnectInfo<SocketAddr>`. For tonic:
    ///
    /// ```
    /// use tonic::transport::server::TcpConnectInfo;
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// let layer = ImageTraceLayer::builder()
    ///     .peer_address(|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr())
    ///     .build();
    /// ```
    pub fn peer_address(
        mut self,
        find: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.addresses.peer = Some(Box::new(find));
        self
    }

    /// The keys whose values are redacted, in any case of letters, wherever a text is recorded: in
    /// queries, and in the URLs, JSON and XML of messages. They replace the default keys:
    /// `X-Amz-Signature`, `X-Amz-Credential`, `X-Amz-Security-Token`, `AWSAccessKeyId`, `Signature`,
    /// `sig`, `X-Goog-Signature` (all of semconv's registry, `url.query`), `Policy`, `Key-Pair-Id`,
    /// `X-Goog-Credential`, `GoogleAccessId`, `SignatureProvided`, `StringToSign`, `StringToSignBytes`,
    /// `CanonicalRequest`, `CanonicalRequestBytes`, `Token-0`, `ArgumentValue` (all of S3's errors),
    /// `access_token`, `refresh_token`, `id_token`, `token`, `api_key`, `apikey`, `api-key`, `x-api-key`,
    /// `client_secret`, `secret`, `password`, `authorization`.
    pub fn sensitive_query_keys(
        mut self,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.texts.redaction.sensitive_keys = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    /// How much is recorded of source URLs: in stages, in error messages, and in paths and queries that
    /// contain a source (plain, percent-encoded or in URL-safe base64).
    pub fn source_urls(mut self, source_urls: SourceUrls) -> Self {
        self.texts.redaction.source_urls = source_urls;
        self
    }

    /// The most bytes that are recorded of an error's message with its sources; 4 KiB by default. What is
    /// cut off is marked with an ellipsis.
    pub fn longest_message(mut self, bytes: usize) -> Self {
        self.texts.longest_message = bytes;
        self
    }

    /// The most bytes that are recorded of one attribute's text, from headers, URLs or the service; 16 KiB
    /// by default. What is cut off is marked with an ellipsis.
    pub fn longest_attribute(mut self, bytes: usize) -> Self {
        self.texts.longest_attribute = bytes;
        self
    }

    /// The request headers to record, as `http.request.header.<name>`, and of gRPC calls
    /// as `rpc.request.metadata.<name>`; none by default. URLs in them are redacted.
    pub fn request_headers(mut self, names: HeaderAllowList) -> Self {
        self.request_headers = names;
        self
    }

    /// The response headers to record, as `http.response.header.<name>`, and of gRPC
    /// calls as `rpc.response.metadata.<name>`; none by default. URLs in them are redacted.
    pub fn response_headers(mut self, names: HeaderAllowList) -> Self {
        self.response_headers = names;
        self
    }

    /// Whether responses have a `traceresponse` header with the ids of their span (W3C Trace Context
    /// level 2, draft); `false` by default.
    pub fn trace_response(mut self, add: bool) -> Self {
        self.trace_response = add;
        self
    }

    /// Whether responses have a `Server-Timing` header with the durations of the stages that ended
    /// before the response began; `false` by default. Browsers show it in their developer tools (across
    /// origins only with [`timing_allow_origin`](Self::timing_allow_origin)).
    pub fn server_timing(mut self, add: bool) -> Self {
        self.server_timing = add;
        self
    }

    /// Whether `Server-Timing` names the trace of the response, and in which form; by default it does not.
    /// A script finds it for each `<img>` of its page, with
    /// `performance.getEntriesByType("resource")[0].serverTiming`, and can link the picture to its trace.
    /// Scripts that use `fetch` across origins need `Access-Control-Expose-Headers: Server-Timing` too,
    /// which is the service's to say.
    pub fn server_timing_trace(mut self, form: ServerTimingTrace) -> Self {
        self.server_timing_trace = Some(form);
        self
    }

    /// The value of `Timing-Allow-Origin` on responses that have none: the origins whose pages may read the
    /// response's timing, `Server-Timing` included, such as `https://shop.example`, several with commas
    /// between them, or `*` for all (W3C Resource Timing). By default only pages of the same origin may.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use tower_image_trace::{ImageTraceLayer, trace::ServerTimingTrace};
    ///
    /// let layer = ImageTraceLayer::builder()
    ///     .server_timing(true)
    ///     .server_timing_trace(ServerTimingTrace::Trace)
    ///     .timing_allow_origin(HeaderValue::from_static("https://shop.example"))
    ///     .build();
    /// # drop(layer);
    /// ```
    pub fn timing_allow_origin(mut self, origins: HeaderValue) -> Self {
        self.timing_allow_origin = Some(origins);
        self
    }

    /// The methods that are recorded by name, case-sensitive; all others become `_OTHER`. By default
    /// those of `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS` (comma-separated), or else the methods of RFC
    /// 9110, PATCH and QUERY.
    pub fn known_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.known_methods = Some(methods.into_iter().collect());
        self
    }

    /// The gRPC methods of the service, as `package.Service/Method`. Calls of other methods are recorded
    /// as `_OTHER` (semconv registry, `rpc.method`).
    ///
    /// Without this setting a method becomes known when a handler has answered a call of it. Until then
    /// it is `_OTHER`, as invented methods are, with the claimed name in `rpc.method_original` on the
    /// span.
    ///
    /// ```
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// let layer = ImageTraceLayer::builder().rpc_methods(["thumbs.v1.Thumbnailer/Resize"]).build();
    /// # drop(layer);
    /// ```
    pub fn rpc_methods(mut self, methods: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.rpc_methods = Some(Methods::listed(methods));
        self
    }

    /// Records errors of type `E`, from the inner service or a response body, with their sources.
    ///
    /// Boxed errors and `std::io::Error` need no such call. Of all other types only the text is
    /// recorded, because the error of a tower service need not be an [`Error`].
    ///
    /// ```
    /// use tower_image_trace::ImageTraceLayer;
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("the service is overloaded")]
    /// struct Overloaded(#[source] std::io::Error);
    ///
    /// let layer = ImageTraceLayer::builder().record_errors_as::<Overloaded>().build();
    /// # drop(layer);
    /// ```
    pub fn record_errors_as<E: Error + 'static>(mut self) -> Self {
        self.error_views.push(view_as::<E>);
        self
    }

    /// Builds the layer.
    #[must_use]
    pub fn build(self) -> ImageTraceLayer {
        if self.disabled {
            return ImageTraceLayer::disabled();
        }
        let tracer = self
            .tracer
            .unwrap_or_else(|| Box::new(global::tracer_provider().tracer_with_scope(scope())));
        let meter = self.meter.meter();
        let labels = match meter {
            Some(_) => self.labels,
            None => LabelRules::default(),
        };
        #[cfg(feature = "page")]
        let lists_stages = self.running.is_some();
        #[cfg(not(feature = "page"))]
        let lists_stages = false;
        let config = Config {
            #[cfg(feature = "page")]
            running: self.running,
            traces: !self.without_traces,
            recording: Recording {
                tracer,
                propagation: self.propagation.unwrap_or(Propagation::Global),
                propagate_external: self.propagate_external,
                stage_metrics: meter.as_ref().map(StageMetrics::new),
                picture_metrics: meter.as_deref().map(PictureMetrics::new),
                labelled: self.labelled,
                exceptions: self.exceptions,
                texts: self.texts,
                server_timing: self.server_timing,
                keeps_stages: self.server_timing || lists_stages,
            },
            http_metrics: meter
                .as_ref()
                .map(|meter| HttpMetrics::new(meter, self.extra_metrics, self.active_requests)),
            rpc_metrics: meter.as_deref().map(RpcMetrics::new),
            sees_parts: self.filter.is_some()
                || self.trust.is_some()
                || self.sample_when.is_some()
                || labels.any(),
            labels,
            random_trace_ids: self.random_trace_ids,
            attributes_after_sampling: self.attributes_after_sampling,
            filter: self.filter,
            trust: self.trust,
            sample_when: self.sample_when,
            addresses: self.addresses,
            request_headers: RecordedHeaders::new("request", self.request_headers),
            response_headers: RecordedHeaders::new("response", self.response_headers),
            trace_response: self.trace_response,
            server_timing_trace: self.server_timing_trace,
            timing_allow_origin: self.timing_allow_origin,
            known_methods: KnownMethods::new(self.known_methods),
            rpc_methods: self.rpc_methods.unwrap_or_else(Methods::learned),
            error_views: self.error_views,
        };
        ImageTraceLayer {
            config: Some(Arc::new(config)),
        }
    }
}

impl fmt::Debug for ImageTraceLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageTraceLayerBuilder")
            .finish_non_exhaustive()
    }
}
