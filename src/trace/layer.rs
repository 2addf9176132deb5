use std::{borrow::Cow, error::Error, fmt, net::SocketAddr, sync::Arc};

use http::{Extensions, Method, request::Parts};
use opentelemetry::{
    InstrumentationScope, StringValue, global,
    metrics::{Meter, MeterProvider},
    propagation::TextMapPropagator,
    trace::{Tracer, TracerProvider},
};
use tower_layer::Layer;

use super::{
    HeaderAllowList, ImageTrace, Networks, Skip, Trust,
    addresses::AddressRules,
    config::{Config, ErrorView, Filter, Propagation, StartSpan, TrustRule, view_as},
    headers::RecordedHeaders,
    response_headers::ResponseHeaders,
    rpc::Methods,
};
use crate::{
    metrics::{ActiveRequests, Gauges, HttpMetrics, RpcMetrics, StageMetrics},
    redact::{Redaction, SourceUrls},
};

/// The semantic conventions that spans and metrics follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// Semconv registry, `http.request.method`: the methods of RFC 9110, PATCH and QUERY.
const KNOWN_METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
];

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
    /// A layer on the OpenTelemetry globals: the tracer and meter providers that are set at this
    /// moment, and the propagator that is set when a request comes.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A layer with providers and propagators of its own.
    pub fn builder() -> ImageTraceLayerBuilder {
        ImageTraceLayerBuilder::default()
    }

    /// A layer that does nothing and costs next to nothing.
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

/// Builds an [`ImageTraceLayer`]; what is not given comes from the OpenTelemetry globals.
#[derive(Default)]
#[must_use]
pub struct ImageTraceLayerBuilder {
    disabled: bool,
    without_traces: bool,
    tracer: Option<Box<dyn StartSpan>>,
    meter: MeterChoice,
    active_requests: Option<Arc<ActiveRequests>>,
    imgproxy_metrics: bool,
    propagation: Option<Propagation>,
    propagate_external: bool,
    random_trace_ids: bool,
    attributes_after_sampling: bool,
    filter: Option<Box<Filter>>,
    trust: Option<TrustRule>,
    addresses: AddressRules,
    redaction: Redaction,
    request_headers: HeaderAllowList,
    response_headers: HeaderAllowList,
    added_headers: ResponseHeaders,
    known_methods: Option<Vec<Method>>,
    rpc_methods: Option<Methods>,
    error_views: Vec<ErrorView>,
}

#[derive(Default)]
pub(crate) enum MeterChoice {
    #[default]
    Global,
    Given(Meter),
    Off,
}

impl MeterChoice {
    pub(crate) fn meter(self) -> Option<Meter> {
        match self {
            Self::Global => Some(global::meter_with_scope(scope())),
            Self::Given(meter) => Some(meter),
            Self::Off => None,
        }
    }
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

    /// Where measurements go.
    pub fn meter_provider(mut self, provider: impl MeterProvider) -> Self {
        self.meter = MeterChoice::Given(provider.meter_with_scope(scope()));
        self.active_requests = None;
        self
    }

    /// Measurements go where `gauges` are read, in place of
    /// [`meter_provider`](Self::meter_provider). Requests then cost two lookups of the SDK's less,
    /// because `http.server.active_requests` is counted beside it, and read when metrics are
    /// collected.
    ///
    /// All layers that measure for one provider must be given the same `Gauges`, or none of them
    /// any: the SDK does not add up what several sources of one metric say. The layers of
    /// [`Telemetry`](crate::Telemetry) have its [`gauges`](crate::Telemetry::gauges). The metric
    /// lasts as long as one of its layers, even if the `Gauges` are dropped.
    pub fn gauges(mut self, gauges: &Gauges) -> Self {
        self.meter = MeterChoice::Given(gauges.meter().clone());
        self.active_requests = Some(gauges.active_requests());
        self
    }

    /// Makes no spans: requests are measured, and the caller's context passes through as it is.
    pub fn without_traces(mut self) -> Self {
        self.without_traces = true;
        self
    }

    /// Measures nothing.
    pub fn without_metrics(mut self) -> Self {
        self.meter = MeterChoice::Off;
        self
    }

    /// Whether requests are measured once more under imgproxy's names, for dashboards made for
    /// it: `requests_total`, `status_codes_total` and `request_duration_seconds`. `false` by default.
    pub fn imgproxy_metrics(mut self, enabled: bool) -> Self {
        self.imgproxy_metrics = enabled;
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
    /// default, so that trace ids and baggage don't leak to origins that have no business with them.
    pub fn propagate_external(mut self, propagate: bool) -> Self {
        self.propagate_external = propagate;
        self
    }

    /// Whether the low 56 bits of the trace ids that the tracer provider makes are random. New traces
    /// then say so to other services, by the random flag of W3C Trace Context level 2, which some
    /// samplers need. The id generators of the SDK and of X-Ray make such ids. `false` by default,
    /// because a layer does not know the id generator of a provider; the layers of `Telemetry` do.
    pub fn random_trace_ids(mut self, random: bool) -> Self {
        self.random_trace_ids = random;
        self
    }

    /// Whether root spans get their attributes only when the sampler has taken them, which makes
    /// requests cheaper that are not sampled; `false` by default, because samplers may want to
    /// see the attributes (semconv http-spans). Those of the SDK don't look at them, and the
    /// builder of `Telemetry` has this on.
    pub fn attributes_after_sampling(mut self, after: bool) -> Self {
        self.attributes_after_sampling = after;
        self
    }

    /// Which requests are traced and measured: one decision a request for spans and metrics, a
    /// [`Skip`] or a `bool`, which is `true` for those that are recorded.
    ///
    /// ```
    /// use tower_image_trace::{ImageTraceLayer, trace::Skip};
    ///
    /// ImageTraceLayer::builder().filter(|parts| parts.uri.path() != "/health").build();
    /// ImageTraceLayer::builder()
    ///     .filter(|parts| match parts.uri.path() {
    ///         "/health" => Skip::All,
    ///         "/metrics" => Skip::Span,
    ///         _ => Skip::Nothing,
    ///     })
    ///     .build();
    /// ```
    pub fn filter<S: Into<Skip>>(
        mut self,
        filter: impl Fn(&Parts) -> S + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some(Box::new(move |parts| filter(parts).into()));
        self
    }

    /// What the caller's context, its baggage included, is worth, request by request;
    /// [`Trust::Parent`] by default.
    pub fn trust(mut self, trust: impl Fn(&Parts) -> Trust + Send + Sync + 'static) -> Self {
        self.trust = Some(TrustRule::Closure(Box::new(trust)));
        self
    }

    /// [`Trust::Parent`] for callers in `networks`, and `others` for the rest, those of unknown
    /// address among them. In place of [`trust`](Self::trust).
    ///
    /// The address is that of the connection ([`peer_address`](Self::peer_address)), which nobody
    /// can forge; headers have no say in it.
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

    /// The networks of the proxies in front of this service. When the connection comes from one
    /// of them, `Forwarded` (RFC 7239), or else `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`,
    /// say who the client is (`client.address`), and what it asked for (`url.scheme`,
    /// `server.address`, `server.port`). The client is the right-most hop that is not one of
    /// these proxies. Without this the headers are not read: any client can write them.
    pub fn trusted_proxies(mut self, proxies: Networks) -> Self {
        self.addresses.proxies = Some(proxies);
        self
    }

    /// Where the server keeps the address of the connection's other end. By default that is a
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
    /// `X-Goog-Credential`, `GoogleAccessId`, `SignatureProvided`, `StringToSign`, `access_token`,
    /// `refresh_token`, `id_token`, `token`, `api_key`, `apikey`, `api-key`, `x-api-key`,
    /// `client_secret`, `secret`, `password`, `authorization`.
    pub fn sensitive_query_keys(
        mut self,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.redaction.sensitive_keys = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    /// What is recorded of the URLs of sources: in stages, in error messages, and in paths and
    /// queries that have a source in them (plain, percent-encoded or in URL-safe base64).
    pub fn source_urls(mut self, source_urls: SourceUrls) -> Self {
        self.redaction.source_urls = source_urls;
        self
    }

    /// The request headers that are recorded, as `http.request.header.<name>`, and of gRPC calls
    /// as `rpc.request.metadata.<name>`; none by default. URLs in them are redacted.
    pub fn request_headers(mut self, names: HeaderAllowList) -> Self {
        self.request_headers = names;
        self
    }

    /// The response headers that are recorded, as `http.response.header.<name>`, and of gRPC
    /// calls as `rpc.response.metadata.<name>`; none by default. URLs in them are redacted.
    pub fn response_headers(mut self, names: HeaderAllowList) -> Self {
        self.response_headers = names;
        self
    }

    /// Whether responses tell the ids of their span in a `traceresponse` header (W3C Trace Context
    /// level 2, draft); `false` by default.
    pub fn trace_response(mut self, add: bool) -> Self {
        self.added_headers.trace_response = add;
        self
    }

    /// Whether responses tell how long the stages took that were done when the response began, in
    /// a `Server-Timing` header, which browsers show in their developer tools (across origins only
    /// with `Timing-Allow-Origin`); `false` by default.
    pub fn server_timing(mut self, add: bool) -> Self {
        self.added_headers.server_timing = add;
        self
    }

    /// The methods that are recorded by name, case-sensitive; all others become `_OTHER`. In place
    /// of `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS` (comma-separated), and without that of the
    /// methods of RFC 9110, PATCH and QUERY.
    pub fn known_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.known_methods = Some(methods.into_iter().collect());
        self
    }

    /// The gRPC methods that the service has, as `package.Service/Method`; calls of others are
    /// recorded as method `_OTHER` (semconv registry, `rpc.method`).
    ///
    /// Without this a method becomes known when a handler has answered a call of it. Until then,
    /// and whenever a client invents one, it is `_OTHER`, with the claimed name in
    /// `rpc.method_original` on the span.
    pub fn rpc_methods(mut self, methods: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.rpc_methods = Some(Methods::listed(methods));
        self
    }

    /// Records errors of type `E`, from the inner service or a response body, with their sources.
    ///
    /// Boxed errors and `std::io::Error` are recorded so without this. Of other types only the
    /// text is, because a tower service may fail with what is no [`Error`] at all.
    pub fn error_type<E: Error + 'static>(mut self) -> Self {
        self.error_views.push(view_as::<E>);
        self
    }

    /// The layer.
    #[must_use]
    pub fn build(self) -> ImageTraceLayer {
        if self.disabled {
            return ImageTraceLayer::disabled();
        }
        let tracer = self
            .tracer
            .unwrap_or_else(|| Box::new(global::tracer_provider().tracer_with_scope(scope())));
        let meter = self.meter.meter();
        let config = Config {
            traces: !self.without_traces,
            tracer,
            propagation: self.propagation.unwrap_or(Propagation::Global),
            propagate_external: self.propagate_external,
            random_trace_ids: self.random_trace_ids,
            http_metrics: meter
                .as_ref()
                .map(|meter| HttpMetrics::new(meter, self.imgproxy_metrics, self.active_requests)),
            rpc_metrics: meter.as_ref().map(RpcMetrics::new),
            stage_metrics: meter.as_ref().map(StageMetrics::new),
            attributes_after_sampling: self.attributes_after_sampling,
            filter: self.filter,
            trust: self.trust,
            addresses: self.addresses,
            redaction: self.redaction,
            request_headers: RecordedHeaders::new("request", self.request_headers),
            response_headers: RecordedHeaders::new("response", self.response_headers),
            added_headers: self.added_headers,
            known_methods: known_methods(self.known_methods),
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

pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}

/// The given methods, or else those of the environment, or else the default ones.
pub(crate) fn known_methods(given: Option<Vec<Method>>) -> Vec<(Method, StringValue)> {
    given
        .or_else(known_methods_from_env)
        .map_or_else(default_known_methods, |methods| {
            methods.into_iter().map(named).collect()
        })
}

fn default_known_methods() -> Vec<(Method, StringValue)> {
    // Names that are `'static` are recorded without an allocation.
    KNOWN_METHODS
        .iter()
        .filter_map(|name| {
            Some((
                Method::from_bytes(name.as_bytes()).ok()?,
                StringValue::from(*name),
            ))
        })
        .collect()
}

fn known_methods_from_env() -> Option<Vec<Method>> {
    let methods = std::env::var("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS").ok()?;
    parse_known_methods(&methods)
}

fn parse_known_methods(methods: &str) -> Option<Vec<Method>> {
    let names = methods
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let methods: Vec<Method> = names
        .filter_map(|name| Method::from_bytes(name.as_bytes()).ok())
        .collect();
    (!methods.is_empty()).then_some(methods)
}

fn named(method: Method) -> (Method, StringValue) {
    let name: Cow<'static, str> = match KNOWN_METHODS
        .iter()
        .find(|known| **known == method.as_str())
    {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(method.as_str().to_owned()),
    };
    let name = match name {
        Cow::Borrowed(name) => StringValue::from(name),
        Cow::Owned(name) => StringValue::from(Arc::<str>::from(name)),
    };
    (method, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_are_a_comma_separated_list() {
        assert_eq!(
            parse_known_methods("GET, PURGE ,,purge"),
            Some(vec![
                Method::GET,
                Method::from_bytes(b"PURGE").unwrap(),
                Method::from_bytes(b"purge").unwrap()
            ])
        );
        assert_eq!(parse_known_methods(" , "), None);
    }
}
