//! What the variables and the code together say, resolved and checked.

use std::fmt;
use std::str::FromStr;
#[cfg(feature = "_otlp")]
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_sdk::metrics::Temporality;

use super::endpoint::{self, Rules};
use super::env::Variables;
use super::error::{SettingError, TelemetryError};
use super::id_generator::TraceIdGenerator;
use super::resource;
use super::sampler::{self, Sampler};
#[cfg(feature = "_otlp")]
use super::tls::Tls;
use crate::propagation::{Propagator, Propagators};

/// The prefix imgproxy's own variables have.
pub(super) const PREFIX: &str = "IMGPROXY_";

/// The transports of OTLP, by the names imgproxy gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf (`http/protobuf`); the endpoint decides about TLS.
    Http,
    /// OTLP over HTTP with protobuf, with TLS.
    Https,
}

impl Protocol {
    const EXPECTED: &'static str = "grpc, http, https or http/protobuf";

    fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "grpc" => Some(Self::Grpc),
            "http" | "http/protobuf" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl FromStr for Protocol {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::from_name(text).ok_or_else(|| SettingError::Invalid {
            setting: "protocol".to_owned(),
            value: text.to_owned(),
            expected: Self::EXPECTED.to_owned(),
        })
    }
}

/// Where one signal goes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Exporter {
    /// Nowhere.
    #[default]
    None,
    /// To the terminal, as a waterfall.
    Console,
    /// To a collector.
    Otlp(OtlpExporter),
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("off"),
            Self::Console => f.write_str("to the terminal"),
            Self::Otlp(otlp) => otlp.fmt(f),
        }
    }
}

impl fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtlpExporter({self})")
    }
}

impl fmt::Display for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = without_secrets(&self.endpoint.to_string());
        write!(f, "to {endpoint} ({}, ", self.protocol)?;
        #[cfg(feature = "_otlp")]
        if let Some(tls) = &self.tls {
            return write!(f, "{tls})");
        }
        f.write_str("no TLS)")
    }
}

/// One signal's way to the collector; `Debug` and `Display` show nothing that may be secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct OtlpExporter {
    /// The full URL: for gRPC without a path, for HTTP the one posted to. `https` means TLS.
    pub endpoint: Uri,
    /// [`Protocol::Grpc`], or one of the two forms of HTTP.
    pub protocol: Protocol,
    /// Sent with each request; their values are not shown by `Debug`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one attempt may take, connecting included.
    pub timeout: Duration,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// Set when the endpoint is `https`.
    #[cfg(feature = "_otlp")]
    pub(super) tls: Option<Arc<Tls>>,
}

/// The queue between the requests and the exporter: `OTEL_BSP_*`, and `OTEL_BLRP_*` for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batching {
    /// How many items wait at most, those being sent included; what comes on top is dropped and counted.
    pub max_queue_size: usize,
    /// How many items go into one request at most.
    pub max_export_batch_size: usize,
    /// How long an item waits at most for a batch to fill.
    pub schedule_delay: Duration,
    /// How long a batch is retried before it is given up.
    pub export_timeout: Duration,
}

/// Limits of what one span records: `OTEL_SPAN_*_COUNT_LIMIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanLimits {
    /// Attributes a span.
    pub attributes: u32,
    /// Events a span.
    pub events: u32,
    /// Links a span.
    pub links: u32,
}

/// All settings of [`Telemetry`](super::Telemetry) as plain data, resolved and checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where spans go.
    pub traces: Exporter,
    /// Where metrics go.
    pub metrics: Exporter,
    /// Where the service's log goes.
    pub logs: Exporter,
    /// The `service.name` of the resource.
    pub service_name: String,
    /// The other attributes of the resource, percent-decoded.
    pub resource_attributes: Vec<(String, String)>,
    /// Whether AWS is asked for more attributes of the resource at the start, for at most a second.
    pub aws_resource: bool,
    /// The formats of the caller's context.
    pub propagators: Propagators,
    /// Whether the trace context is written into requests to image origins.
    pub propagate_external: bool,
    /// Whether requests are measured once more under imgproxy's names.
    pub imgproxy_metrics: bool,
    /// How trace ids are made.
    pub trace_id_generator: TraceIdGenerator,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// What one span may hold.
    pub span_limits: SpanLimits,
    /// The queue of spans.
    pub span_batching: Batching,
    /// The queue of log records.
    pub log_batching: Batching,
    /// How often metrics are sent.
    pub metric_export_interval: Duration,
    /// How long a metrics request is retried before it is given up.
    pub metric_export_timeout: Duration,
    /// Whether sums and histograms count from the start or from the last export.
    pub metric_temporality: Temporality,
}

impl Settings {
    /// The settings in the process environment.
    ///
    /// # Errors
    /// All wrong settings together.
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::resolve(Variables::from_process(PREFIX), &Code::default())
    }

    /// The settings in `vars`, pairs of names and values; the process environment is not read.
    ///
    /// # Errors
    /// All wrong settings together.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Self, TelemetryError> {
        Self::resolve(Variables::new(PREFIX, vars), &Code::default())
    }

    /// Whether any signal is exported.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        [&self.traces, &self.metrics, &self.logs]
            .iter()
            .any(|exporter| !matches!(exporter, Exporter::None))
    }

    /// What the line at the start says.
    pub(super) fn summary(&self) -> String {
        format!(
            "service {}, traces {}, metrics {}, logs {}, propagators {}, trace ids {}, sampler {}",
            self.service_name,
            self.traces,
            self.metrics,
            self.logs,
            self.propagators,
            self.trace_id_generator,
            self.sampler,
        )
    }

    /// The order of precedence is `code`, the crate's own variables, the standard ones, the default.
    pub(super) fn resolve(mut vars: Variables, code: &Code) -> Result<Self, TelemetryError> {
        let disabled = vars.parse_bool(&["OTEL_SDK_DISABLED"]).unwrap_or(false);
        let metrics_on = enabled(&mut vars, code.metrics, Signal::Metrics);
        let logs_on = enabled(&mut vars, code.logs, Signal::Logs);
        let mut settings = Self {
            traces: Exporter::None,
            metrics: Exporter::None,
            logs: Exporter::None,
            service_name: String::new(),
            resource_attributes: resource_attributes(&mut vars),
            aws_resource: aws_resource(&mut vars, code),
            propagators: propagators(&mut vars, code),
            propagate_external: propagate_external(&mut vars, code),
            imgproxy_metrics: code.imgproxy_metrics,
            trace_id_generator: trace_id_generator(&mut vars, code),
            sampler: sampler(&mut vars, code),
            span_limits: span_limits(&mut vars),
            span_batching: batching(&mut vars, "OTEL_BSP", 16_384, 5_000),
            log_batching: batching(&mut vars, "OTEL_BLRP", 2_048, 1_000),
            metric_export_interval: vars
                .parse_millis(&["OTEL_METRIC_EXPORT_INTERVAL"])
                .unwrap_or(Duration::from_secs(60)),
            metric_export_timeout: vars
                .parse_millis(&["OTEL_METRIC_EXPORT_TIMEOUT"])
                .unwrap_or(Duration::from_secs(30)),
            metric_temporality: temporality(&mut vars),
        };
        settings.service_name = service_name(&vars, code, &mut settings.resource_attributes);
        if !disabled {
            settings.traces = exporter(&mut vars, code, Signal::Traces, true);
            settings.metrics = exporter(&mut vars, code, Signal::Metrics, metrics_on);
            settings.logs = exporter(&mut vars, code, Signal::Logs, logs_on);
        }
        let errors = vars.into_errors();
        if errors.is_empty() {
            Ok(settings)
        } else {
            Err(TelemetryError::Settings(errors))
        }
    }
}

/// What was set by the builder.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    pub(super) console: bool,
    pub(super) endpoint: Option<String>,
    pub(super) protocol: Option<Protocol>,
    pub(super) insecure: Option<bool>,
    pub(super) timeout: Option<Duration>,
    pub(super) service_name: Option<String>,
    pub(super) propagators: Option<Propagators>,
    pub(super) propagate_external: Option<bool>,
    pub(super) trace_id_generator: Option<TraceIdGenerator>,
    pub(super) sampler: Option<Sampler>,
    pub(super) metrics: Option<bool>,
    pub(super) imgproxy_metrics: bool,
    pub(super) logs: Option<bool>,
    pub(super) aws_resource: Option<bool>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) server_certificate: Option<Secret>,
    pub(super) client_certificate: Option<Secret>,
    pub(super) client_key: Option<Secret>,
}

/// PEM text, and the setting it comes from.
#[cfg_attr(not(feature = "_otlp"), allow(dead_code))]
pub(super) struct Pem {
    pub(super) setting: String,
    pub(super) text: String,
}

/// PEM text, which is not shown.
#[derive(Clone)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What telemetry consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// What its data are called in messages.
    pub(super) const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "data points",
            Self::Logs => "log records",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    /// The gRPC method that takes it.
    #[cfg(feature = "_otlp")]
    pub(super) const fn grpc_method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// `OTEL_EXPORTER_OTLP_TRACES_x`, which comes before `OTEL_EXPORTER_OTLP_x`.
    fn variables(self, name: &str) -> [String; 2] {
        [
            format!("OTEL_EXPORTER_OTLP_{}_{name}", self.name()),
            format!("OTEL_EXPORTER_OTLP_{name}"),
        ]
    }
}

fn exporter(vars: &mut Variables, code: &Code, signal: Signal, enabled: bool) -> Exporter {
    let variable = format!("OTEL_{}_EXPORTER", signal.name());
    let chosen = vars.parse(&[&variable], "otlp, console or none", |value| {
        let value = value.to_ascii_lowercase();
        matches!(value.as_str(), "otlp" | "console" | "none").then_some(value)
    });
    let chosen = match chosen.as_deref() {
        _ if !enabled => "none",
        _ if code.console && signal == Signal::Traces => "console",
        Some(name) => name,
        None => "otlp",
    };
    match chosen {
        "console" if signal != Signal::Traces => {
            vars.refuse(SettingError::Invalid {
                setting: variable,
                value: "console".to_owned(),
                expected: "otlp or none; the console shows traces only".to_owned(),
            });
            Exporter::None
        }
        "console" if cfg!(feature = "console") => Exporter::Console,
        "console" => {
            vars.refuse(SettingError::Feature {
                setting: variable,
                value: "console".to_owned(),
                feature: "console",
            });
            Exporter::None
        }
        "otlp" => otlp(vars, code, signal).map_or(Exporter::None, Exporter::Otlp),
        _ => Exporter::None,
    }
}

fn otlp(vars: &mut Variables, code: &Code, signal: Signal) -> Option<OtlpExporter> {
    let [own_variable, general_variable] = signal.variables("ENDPOINT");
    let crate_variable = vars.own("ENDPOINT");
    let names = [crate_variable.as_str(), &own_variable, &general_variable];
    let (setting, text) = match &code.endpoint {
        Some(text) => ("endpoint".to_owned(), text.clone()),
        None => vars
            .first(&names)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))?,
    };

    if signal == Signal::Logs && cfg!(not(feature = "logs")) {
        vars.refuse(SettingError::Feature {
            setting: "logs".to_owned(),
            value: "otlp".to_owned(),
            feature: "logs",
        });
        return None;
    }
    let protocol = protocol(vars, code, signal)?;
    let insecure_variable = vars.own("GRPC_INSECURE");
    let [own, general] = signal.variables("INSECURE");
    let insecure = code
        .insecure
        .or(vars.parse_bool(&[insecure_variable.as_str(), &own, &general]));
    let roots = pem(
        vars,
        &code.server_certificate,
        signal,
        "SERVER_CERT",
        "CERTIFICATE",
    );
    let certificate = pem(
        vars,
        &code.client_certificate,
        signal,
        "CLIENT_CERT",
        "CLIENT_CERTIFICATE",
    );
    let key = pem(vars, &code.client_key, signal, "CLIENT_KEY", "CLIENT_KEY");
    let rules = Rules {
        protocol,
        insecure,
        certificate: roots.is_some() || certificate.is_some() || key.is_some(),
        append: (setting != own_variable).then_some(signal.path()),
    };
    let endpoint = endpoint::resolve(&text, rules).map_err(|expected| SettingError::Invalid {
        setting,
        value: without_secrets(&text),
        expected,
    });
    #[cfg(feature = "_otlp")]
    let tls = match &endpoint {
        Ok(endpoint) if endpoint.scheme_str() == Some("https") => {
            Tls::new(roots, certificate, key).map(|tls| Some(Arc::new(tls)))
        }
        _ => Ok(None),
    };
    let exporter = OtlpExporter {
        endpoint: vars.accept(endpoint)?,
        protocol,
        headers: headers(vars, code, signal),
        timeout: timeout(vars, code, signal),
        gzip: gzip(vars, signal),
        #[cfg(feature = "_otlp")]
        tls: vars.accept(tls)?,
    };
    Some(exporter)
}

/// Certificates and keys are text in the crate's own variables, and files in the standard ones.
fn pem(
    vars: &mut Variables,
    code: &Option<Secret>,
    signal: Signal,
    own: &str,
    standard: &str,
) -> Option<Pem> {
    if let Some(Secret(text)) = code {
        let setting = own.to_ascii_lowercase();
        return Some(Pem {
            setting,
            text: text.clone(),
        });
    }
    let own = vars.own(own);
    if let Some(text) = vars.get(&own) {
        let text = text.replace("\\n", "\n");
        return Some(Pem { setting: own, text });
    }
    let [per_signal, general] = signal.variables(standard);
    let (setting, path) = vars.first(&[per_signal.as_str(), &general])?;
    let (setting, path) = (setting.to_owned(), path.to_owned());
    let text = std::fs::read_to_string(&path).map_err(|error| SettingError::Unusable {
        problem: format!("the file {path:?} cannot be read: {error}"),
        setting: setting.clone(),
    });
    Some(Pem {
        text: vars.accept(text)?,
        setting,
    })
}

fn protocol(vars: &mut Variables, code: &Code, signal: Signal) -> Option<Protocol> {
    let crate_variable = vars.own("PROTOCOL");
    let [own, general] = signal.variables("PROTOCOL");
    let names = [crate_variable.as_str(), &own, &general];
    let protocol = match code.protocol {
        Some(protocol) => protocol,
        None if vars.first(&names).is_none() => Protocol::default(),
        None => vars.parse(&names, Protocol::EXPECTED, Protocol::from_name)?,
    };
    let feature = match protocol {
        Protocol::Grpc if cfg!(not(feature = "otlp-grpc")) => "otlp-grpc",
        Protocol::Http | Protocol::Https if cfg!(not(feature = "otlp-http")) => "otlp-http",
        _ => return Some(protocol),
    };
    vars.refuse(SettingError::Feature {
        setting: "protocol".to_owned(),
        value: protocol.to_string(),
        feature,
    });
    None
}

fn timeout(vars: &mut Variables, code: &Code, signal: Signal) -> Duration {
    let crate_variable = vars.own("CONNECTION_TIMEOUT");
    let [own, general] = signal.variables("TIMEOUT");
    // both are read, so that a mistake in the one that loses is found as well
    let seconds = vars.parse_seconds(&[crate_variable.as_str()]);
    let millis = vars.parse_millis(&[own.as_str(), &general]);
    code.timeout
        .or(seconds)
        .or(millis)
        .unwrap_or(Duration::from_secs(5))
}

fn gzip(vars: &mut Variables, signal: Signal) -> bool {
    let [own, general] = signal.variables("COMPRESSION");
    vars.parse(
        &[own.as_str(), &general],
        "gzip or none",
        |value| match value.to_ascii_lowercase().as_str() {
            "gzip" => Some(true),
            "none" => Some(false),
            _ => None,
        },
    )
    .unwrap_or(false)
}

fn headers(vars: &mut Variables, code: &Code, signal: Signal) -> Vec<(HeaderName, HeaderValue)> {
    let [own, general] = signal.variables("HEADERS");
    let mut headers = Vec::new();
    if let Some((name, text)) = vars.first(&[own.as_str(), &general]) {
        match parse_headers(text) {
            Ok(parsed) => headers = parsed,
            Err(problem) => {
                let setting = name.to_owned();
                vars.refuse(SettingError::Unusable { setting, problem });
            }
        }
    }
    headers.retain(|(name, _)| code.headers.iter().all(|(own, _)| own != name));
    headers.extend(code.headers.iter().cloned());
    headers
}

fn parse_headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let expected = "expected name=value,name=value with percent-encoded values";
    resource::parse_pairs(text)
        .ok_or_else(|| expected.to_owned())?
        .into_iter()
        .map(|(name, value)| {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| format!("the value of {name:?} is not a valid header value"))?;
            value.set_sensitive(true);
            let name = name
                .parse()
                .map_err(|_| format!("{name:?} is not a header name; {expected}"))?;
            Ok((name, value))
        })
        .collect()
}

/// Whether metrics or logs are asked for; traces always are.
fn enabled(vars: &mut Variables, code: Option<bool>, signal: Signal) -> bool {
    let variable = vars.own(&format!("ENABLE_{}", signal.name()));
    let asked = vars.parse_bool(&[variable.as_str()]);
    // naming an exporter asks for it too; `none` is looked at where exporters are chosen
    let exporter = format!("OTEL_{}_EXPORTER", signal.name());
    code.or(asked)
        .unwrap_or_else(|| vars.get(&exporter).is_some())
}

fn propagators(vars: &mut Variables, code: &Code) -> Propagators {
    let variable = vars.own("PROPAGATORS");
    let names: Vec<_> = Propagator::ALL.iter().map(|format| format.name()).collect();
    let expected = format!("a list of {} or none", names.join(", "));
    let parsed = vars.parse(
        &[variable.as_str(), "OTEL_PROPAGATORS"],
        &expected,
        |list| list.parse().ok(),
    );
    code.propagators.clone().or(parsed).unwrap_or_default()
}

fn propagate_external(vars: &mut Variables, code: &Code) -> bool {
    let variable = vars.own("PROPAGATE_EXTERNAL");
    let parsed = vars.parse_bool(&[variable.as_str()]);
    code.propagate_external.or(parsed).unwrap_or(false)
}

fn aws_resource(vars: &mut Variables, code: &Code) -> bool {
    let variable = vars.own("AWS_RESOURCE");
    let parsed = vars.parse_bool(&[variable.as_str()]);
    let asked = code.aws_resource.or(parsed).unwrap_or(false);
    if asked && cfg!(not(feature = "aws")) {
        vars.refuse(SettingError::Feature {
            setting: variable,
            value: "true".to_owned(),
            feature: "aws",
        });
    }
    asked
}

fn trace_id_generator(vars: &mut Variables, code: &Code) -> TraceIdGenerator {
    let variable = vars.own("TRACE_ID_GENERATOR");
    let parsed = vars.parse(&[variable.as_str()], "xray or random", |value| {
        value.parse().ok()
    });
    code.trace_id_generator.or(parsed).unwrap_or_default()
}

fn sampler(vars: &mut Variables, code: &Code) -> Sampler {
    let ratio = vars.parse(
        &["OTEL_TRACES_SAMPLER_ARG"],
        "a number from 0 to 1",
        Sampler::parse_ratio,
    );
    let expected = match vars.get("OTEL_TRACES_SAMPLER") {
        Some("xray") => sampler::NO_XRAY,
        _ => sampler::NAMES,
    };
    let parsed = vars.parse(&["OTEL_TRACES_SAMPLER"], expected, |name| {
        Sampler::named(name, ratio)
    });
    code.sampler.or(parsed).unwrap_or_default()
}

fn span_limits(vars: &mut Variables) -> SpanLimits {
    let mut limit = |name| {
        vars.parse(&[name], "a whole number", |value| value.parse().ok())
            .unwrap_or(128)
    };
    SpanLimits {
        attributes: limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        events: limit("OTEL_SPAN_EVENT_COUNT_LIMIT"),
        links: limit("OTEL_SPAN_LINK_COUNT_LIMIT"),
    }
}

fn batching(vars: &mut Variables, family: &str, queue: usize, delay: u64) -> Batching {
    let name = |what| format!("{family}_{what}");
    let max_queue_size = vars
        .parse_count(&[name("MAX_QUEUE_SIZE").as_str()])
        .unwrap_or(queue);
    let batch_variable = name("MAX_EXPORT_BATCH_SIZE");
    let expected = format!("a whole number from 1 to the queue size, {max_queue_size}");
    let max_export_batch_size = vars.parse(&[batch_variable.as_str()], &expected, |value| {
        value
            .parse()
            .ok()
            .filter(|size| (1..=max_queue_size).contains(size))
    });
    let mut millis = |what, default| {
        vars.parse_millis(&[name(what).as_str()])
            .unwrap_or(Duration::from_millis(default))
    };
    Batching {
        max_queue_size,
        max_export_batch_size: max_export_batch_size.unwrap_or(max_queue_size.min(512)),
        schedule_delay: millis("SCHEDULE_DELAY", delay),
        export_timeout: millis("EXPORT_TIMEOUT", 30_000),
    }
}

fn temporality(vars: &mut Variables) -> Temporality {
    let variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    vars.parse(
        &[variable],
        "cumulative, delta or lowmemory",
        |value| match value.to_ascii_lowercase().as_str() {
            "cumulative" => Some(Temporality::Cumulative),
            "delta" => Some(Temporality::Delta),
            "lowmemory" => Some(Temporality::LowMemory),
            _ => None,
        },
    )
    .unwrap_or_default()
}

fn resource_attributes(vars: &mut Variables) -> Vec<(String, String)> {
    vars.parse(
        &["OTEL_RESOURCE_ATTRIBUTES"],
        "key=value,key=value with percent-encoded values",
        resource::parse_pairs,
    )
    .unwrap_or_default()
}

/// Takes `service.name` out of the resource attributes, where it counts less than its own variables.
fn service_name(vars: &Variables, code: &Code, attributes: &mut Vec<(String, String)>) -> String {
    let mut in_attributes = None;
    attributes.retain(|(key, value)| {
        let is_name = key == "service.name";
        if is_name && !value.is_empty() {
            in_attributes = Some(value.clone());
        }
        !is_name
    });
    let crate_variable = vars.own("SERVICE_NAME");
    let set = code.service_name.clone().or_else(|| {
        let (_, name) = vars.first(&[crate_variable.as_str(), "OTEL_SERVICE_NAME"])?;
        Some(name.to_owned())
    });
    set.or(in_attributes).unwrap_or_else(|| {
        let endpoint = vars.own("ENDPOINT");
        if endpoint.starts_with(PREFIX) && code.endpoint.is_none() && vars.get(&endpoint).is_some()
        {
            return "imgproxy".to_owned();
        }
        let executable = std::env::current_exe().ok();
        let executable = executable.as_deref().and_then(|path| path.file_name());
        match executable {
            Some(name) => format!("unknown_service:{}", name.to_string_lossy()),
            None => "unknown_service".to_owned(),
        }
    })
}

/// An endpoint as it may be shown: without user, password and query.
fn without_secrets(endpoint: &str) -> String {
    let (base, query) = match endpoint.split_once('?') {
        Some((base, _)) => (base, "?…"),
        None => (endpoint, ""),
    };
    match base.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            let separator = if scheme.is_empty() { "" } else { "://" };
            format!("{scheme}{separator}…@{host}{query}")
        }
        None => format!("{base}{query}"),
    }
}
