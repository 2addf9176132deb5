//! From the variables and the code to [`Settings`]: precedence, units, and every mistake.

use std::fmt;
#[cfg(feature = "_otlp")]
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use opentelemetry_sdk::metrics::Temporality;

use super::endpoint::{self, Rules};
use super::env::Variables;
use super::error::{SettingError, TelemetryError};
use super::id_generator::TraceIdGenerator;
use super::resource;
use super::sampler::{self, Sampler};
use super::settings::{
    Batching, Exporter, OtlpExporter, PREFIX, Protocol, Settings, Signal, SpanLimits,
    without_secrets,
};
#[cfg(feature = "_otlp")]
use super::tls::Tls;
use crate::propagation::{Propagator, Propagators};

impl Settings {
    /// The order of precedence is `code`, the crate's own variables, the standard ones, the default.
    pub(super) fn resolve(mut vars: Variables, code: &Code) -> Result<Self, TelemetryError> {
        let disabled = vars.parse_bool(&["OTEL_SDK_DISABLED"]).unwrap_or(false);
        let metrics_on = enabled(&mut vars, code, code.metrics, Signal::Metrics);
        let logs_on = enabled(&mut vars, code, code.logs, Signal::Logs);
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
    pub(super) console_metrics: bool,
    pub(super) console_logs: bool,
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

impl Code {
    const fn prints(&self, signal: Signal) -> bool {
        match signal {
            Signal::Traces => self.console,
            Signal::Metrics => self.console_metrics,
            Signal::Logs => self.console_logs,
        }
    }
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

fn exporter(vars: &mut Variables, code: &Code, signal: Signal, enabled: bool) -> Exporter {
    let variable = format!("OTEL_{}_EXPORTER", signal.name());
    let chosen = vars.parse(&[&variable], "otlp, console or none", |value| {
        let value = value.to_ascii_lowercase();
        matches!(value.as_str(), "otlp" | "console" | "none").then_some(value)
    });
    let chosen = match chosen.as_deref() {
        _ if !enabled => "none",
        _ if code.prints(signal) => "console",
        Some(name) => name,
        None => "otlp",
    };
    match chosen {
        "console" => {
            let feature = match signal {
                _ if cfg!(not(feature = "console")) => "console",
                Signal::Logs if cfg!(not(feature = "logs")) => "logs",
                _ => return Exporter::Console,
            };
            vars.refuse(SettingError::Feature {
                setting: variable,
                value: "console".to_owned(),
                feature,
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
fn enabled(vars: &mut Variables, code: &Code, switch: Option<bool>, signal: Signal) -> bool {
    let variable = vars.own(&format!("ENABLE_{}", signal.name()));
    let asked = vars.parse_bool(&[variable.as_str()]);
    // naming an exporter asks for it too; `none` is looked at where exporters are chosen
    let exporter = format!("OTEL_{}_EXPORTER", signal.name());
    switch
        .or(code.prints(signal).then_some(true))
        .or(asked)
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
