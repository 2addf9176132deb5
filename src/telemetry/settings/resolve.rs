//! From the variables and the code to [`Settings`]: precedence, units, and every mistake.

use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;

use super::{
    code::Code,
    env::{PREFIX, Variables, count},
    exporters::{exporter, is_asked_for},
    page::page,
    pairs,
    prometheus::{is_bound_as_imgproxy, prometheus},
    sampler::{self, Sampler},
    values::{
        BOUNDARIES, Batching, ExceptionSignal, Exporter, HistogramAggregation, SERIES_LIMIT,
        SERIES_LIMITS, Settings, SpanLimits, are_boundaries,
    },
    xray::{self, XrayRules},
};
#[cfg(feature = "_otlp")]
use crate::telemetry::keep::{
    EXPECTED as KEEPS, Keep, MAX_BYTES as KEEP_BYTES, accepts_bytes as accepts_keep_bytes,
};
use crate::{
    propagation::{Propagator, Propagators},
    telemetry::{
        error::{Consequence, SettingError, TelemetryError},
        id_generator::TraceIdGenerator,
        signal::Signal,
    },
};

impl Settings {
    /// The settings in the process environment.
    ///
    /// # Errors
    /// All mistakes in the crate's own variables together. Those in `OTEL_*` variables are
    /// [`warnings`](Self::warnings).
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::resolve(Variables::from_process(PREFIX), &Code::default())
    }

    /// The settings in `vars`, pairs of names and values; the process environment is not read.
    ///
    /// # Errors
    /// See [`from_env`](Self::from_env).
    pub fn from_vars(
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Self, TelemetryError> {
        Self::resolve(Variables::new(PREFIX, vars), &Code::default())
    }

    /// The order of precedence is `code`, the crate's own variables, the standard ones, the default.
    pub(crate) fn resolve(mut vars: Variables, code: &Code) -> Result<Self, TelemetryError> {
        let disabled = vars.parse_bool(None, &["OTEL_SDK_DISABLED"]) == Some(true);
        let asked_for = Signal::ALL.map(|signal| (signal, is_asked_for(&mut vars, code, signal)));
        let default = Self::default();
        let mut settings = Self {
            resource_attributes: resource_attributes(&mut vars, code),
            aws_resource: aws_resource(&mut vars, code),
            propagators: propagators(&mut vars, code),
            propagate_external: propagate_external(&mut vars, code),
            trace_id_generator: trace_id_generator(&mut vars, code),
            sampler: sampler(&mut vars, code),
            #[cfg(feature = "_otlp")]
            keep: keep(&mut vars, code),
            span_limits: span_limits(&mut vars, default.span_limits),
            span_batching: batching(&mut vars, "OTEL_BSP", default.span_batching),
            log_batching: batching(&mut vars, "OTEL_BLRP", default.log_batching),
            log_attribute_value_length: value_length(&mut vars, "LOGRECORD"),
            log_attributes: log_attributes(&mut vars).unwrap_or(default.log_attributes),
            console_summary: console_summary(&mut vars),
            max_queue_bytes: count(&mut vars, code.max_queue_bytes, "MAX_QUEUE_BYTES")
                .unwrap_or(default.max_queue_bytes),
            max_concurrent_exports: count(
                &mut vars,
                code.max_concurrent_exports,
                "MAX_CONCURRENT_EXPORTS",
            )
            .unwrap_or(default.max_concurrent_exports),
            metric_export_interval: vars
                .parse_interval("OTEL_METRIC_EXPORT_INTERVAL")
                .unwrap_or(default.metric_export_interval),
            metric_export_timeout: vars
                .parse_timeout(&["OTEL_METRIC_EXPORT_TIMEOUT"])
                .unwrap_or(default.metric_export_timeout),
            metric_temporality: temporality(&mut vars),
            histogram_buckets: histogram_buckets(&mut vars, code),
            histogram_aggregation: histogram_aggregation(&mut vars, code),
            series_limit: series_limit(&mut vars, code).unwrap_or(default.series_limit),
            ..default
        };
        settings.is_disabled = disabled;
        settings.service_version = code.service_version.clone();
        for (signal, is_asked_for) in asked_for {
            if is_asked_for && !disabled {
                *settings.exporter_mut(signal) = exporter(&mut vars, code, signal);
            }
        }
        settings.exception_signal = exception_signal(&mut vars, code, &settings.logs);
        let prometheus = prometheus(&mut vars, code, &settings.metrics);
        let as_imgproxy = is_bound_as_imgproxy(&vars, prometheus.as_ref());
        settings.imgproxy_metrics = code.imgproxy_metrics.unwrap_or(as_imgproxy);
        settings.prometheus = prometheus.filter(|_| !disabled);
        settings.trace_page = page(&mut vars, code).filter(|_| !disabled);
        let attributes = &mut settings.resource_attributes;
        if let Some(name) = service_name(&vars, code, attributes, as_imgproxy) {
            settings.service_name = name;
        }
        let (errors, warnings) = vars.into_mistakes();
        settings.warnings = warnings;
        match errors.is_empty() {
            true => Ok(settings),
            false => Err(TelemetryError::Settings(errors)),
        }
    }
}

fn propagators(vars: &mut Variables, code: &Code) -> Propagators {
    let names: Vec<_> = Propagator::ALL.iter().map(|format| format.name()).collect();
    let expected = format!("{} or none", names.join(", "));
    let own = vars.own("PROPAGATORS");
    let parsed = match vars.get(&own) {
        Some(_) => {
            let expected = format!("a list of {expected}");
            vars.parse(&[&own], &expected, |list| list.parse().ok())
        }
        None => standard_propagators(vars, &expected),
    };
    code.propagators.clone().or(parsed).unwrap_or_default()
}

/// Of the standard variable, the known names are used.
fn standard_propagators(vars: &mut Variables, expected: &str) -> Option<Propagators> {
    let variable = "OTEL_PROPAGATORS";
    let list = vars.get(variable)?;
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let (known, unknown): (Vec<_>, Vec<_>) =
        names.partition(|name| name.parse::<Propagators>().is_ok());
    let (known, unknown) = (known.join(","), unknown.join(","));
    if !unknown.is_empty() {
        let error = SettingError::invalid(variable, &unknown, expected);
        vars.warn(
            error,
            match known.is_empty() {
                true => Consequence::Ignored,
                false => Consequence::OthersUsed,
            },
        );
    }
    known.parse().ok().filter(|_| !known.is_empty())
}

fn propagate_external(vars: &mut Variables, code: &Code) -> bool {
    let parsed = vars.parse_bool(Some("PROPAGATE_EXTERNAL"), &[]);
    code.propagate_external.or(parsed).unwrap_or(false)
}

fn aws_resource(vars: &mut Variables, code: &Code) -> bool {
    let parsed = vars.parse_bool(Some("AWS_RESOURCE"), &[]);
    let asked = code.aws_resource.or(parsed).unwrap_or(false);
    if asked && cfg!(not(feature = "aws")) {
        let variable = vars.own("AWS_RESOURCE");
        vars.refuse(SettingError::feature(variable, "true", "aws"));
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
    let name = vars.get("OTEL_TRACES_SAMPLER").map(str::to_ascii_lowercase);
    let argument = "OTEL_TRACES_SAMPLER_ARG";
    // The argument of another sampler is no ratio.
    let ratio = match name
        .as_deref()
        .is_none_or(|name| name.ends_with("traceidratio"))
    {
        true => vars.parse(&[argument], "a number from 0 to 1", Sampler::parse_ratio),
        false => None,
    };
    let rules = match name.as_deref() == Some("xray") && cfg!(feature = "xray") {
        true => vars.read(&[argument], |name, value| {
            let error = || SettingError::invalid(name, value, xray::ARGUMENT);
            XrayRules::parse(value).ok_or_else(error)
        }),
        false => None,
    };
    let parsed = vars.read(
        &["OTEL_TRACES_SAMPLER"],
        |variable, value| match Sampler::named(value, ratio) {
            Some(Sampler::Xray(_)) if cfg!(not(feature = "xray")) => {
                Err(SettingError::feature(variable, value, "xray"))
            }
            Some(Sampler::Xray(default)) => Ok(Sampler::Xray(rules.clone().unwrap_or(default))),
            Some(sampler) => Ok(sampler),
            None => Err(SettingError::invalid(variable, value, sampler::NAMES)),
        },
    );
    if let Some(error) = code.sampler.as_ref().and_then(Sampler::check) {
        vars.refuse(error);
    }
    code.sampler.clone().or(parsed).unwrap_or_default()
}

#[cfg(feature = "_otlp")]
fn keep(vars: &mut Variables, code: &Code) -> Option<Keep> {
    let variable = vars.own("KEEP");
    let parsed: Option<Keep> = vars.parse(&[&variable], KEEPS, |list| list.parse().ok());
    let variable = vars.own("KEEP_MAX_BYTES");
    let max_bytes = vars.parse(&[&variable], KEEP_BYTES, |bytes| {
        bytes
            .parse()
            .ok()
            .filter(|bytes| accepts_keep_bytes(*bytes))
    });
    if let Some(keep) = &code.keep {
        keep.mistakes().for_each(|error| vars.refuse(error));
        return Some(keep.clone());
    }
    parsed.map(|keep| match max_bytes {
        Some(bytes) => keep.max_bytes(bytes),
        None => keep,
    })
}

/// The limit of characters a text, by the variable of spans or log records or that of both.
fn value_length(vars: &mut Variables, of: &str) -> Option<usize> {
    let own = format!("OTEL_{of}_ATTRIBUTE_VALUE_LENGTH_LIMIT");
    let names = [own.as_str(), "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"];
    vars.parse(&names, "a whole number", |value| value.parse().ok())
}

fn log_attributes(vars: &mut Variables) -> Option<u32> {
    let names = [
        "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
    ];
    vars.parse(&names, "a whole number", |value| value.parse().ok())
}

/// Where logs are exported, an exception is one of them, so that no backend shows it twice.
fn exception_signal(vars: &mut Variables, code: &Code, logs: &Exporter) -> ExceptionSignal {
    let own = vars.own("EXCEPTION_SIGNAL");
    let parsed = vars.parse(&[&own], "spans, logs or logs/dup", |value| match value {
        "spans" => Some(ExceptionSignal::Spans),
        value => ExceptionSignal::opted_in(value),
    });
    let standard = ["OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"];
    let standard = vars.parse(&standard, "logs or logs/dup", ExceptionSignal::opted_in);
    let chosen = code.exception_signal.or(parsed).or(standard);
    chosen.unwrap_or(match logs {
        Exporter::None => ExceptionSignal::Spans,
        _ => ExceptionSignal::Logs,
    })
}

/// What counts as slow when nothing says it.
const SLOW: Duration = Duration::from_secs(1);

fn console_summary(vars: &mut Variables) -> Option<Duration> {
    let variable = vars.own("CONSOLE");
    let expected =
        "full, summary, or summary with what is slow, such as summary:500ms or summary:2s";
    let parsed = vars.parse(&[&variable], expected, |value| match value {
        "full" => Some(None),
        "summary" => Some(Some(SLOW)),
        value => {
            let slow = value.strip_prefix("summary:")?;
            let (number, unit) = match slow.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => (slow.strip_suffix('s')?, 1000),
            };
            let number = number.parse::<u32>().ok()?;
            Some(Some(Duration::from_millis(u64::from(number) * unit)))
        }
    });
    parsed.flatten()
}

fn span_limits(vars: &mut Variables, default: SpanLimits) -> SpanLimits {
    let mut limit = |names: &[&str], default| {
        vars.parse(names, "a whole number", |value| value.parse().ok())
            .unwrap_or(default)
    };
    SpanLimits {
        attributes: limit(
            &[
                "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
                "OTEL_ATTRIBUTE_COUNT_LIMIT",
            ],
            default.attributes,
        ),
        events: limit(&["OTEL_SPAN_EVENT_COUNT_LIMIT"], default.events),
        links: limit(&["OTEL_SPAN_LINK_COUNT_LIMIT"], default.links),
        attributes_per_event: limit(
            &["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"],
            default.attributes_per_event,
        ),
        attributes_per_link: limit(
            &["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"],
            default.attributes_per_link,
        ),
        attribute_value_length: value_length(vars, "SPAN"),
    }
}

fn batching(vars: &mut Variables, family: &str, default: Batching) -> Batching {
    let name = |what| format!("{family}_{what}");
    let max_queue_size = vars
        .parse_count(&name("MAX_QUEUE_SIZE"))
        .unwrap_or(default.max_queue_size);
    let expected = format!("a whole number from 1 to the queue size, {max_queue_size}");
    let batch_variable = name("MAX_EXPORT_BATCH_SIZE");
    let max_export_batch_size = vars.parse(&[&batch_variable], &expected, |value| {
        value
            .parse()
            .ok()
            .filter(|size| (1..=max_queue_size).contains(size))
    });
    Batching {
        max_queue_size,
        max_export_batch_size: max_export_batch_size
            .unwrap_or(max_queue_size.min(default.max_export_batch_size)),
        schedule_delay: vars
            .parse_delay(&name("SCHEDULE_DELAY"))
            .unwrap_or(default.schedule_delay),
        export_timeout: vars
            .parse_timeout(&[&name("EXPORT_TIMEOUT")])
            .unwrap_or(default.export_timeout),
    }
}

fn series_limit(vars: &mut Variables, code: &Code) -> Option<usize> {
    let variable = vars.own("SERIES_LIMIT");
    let accepted = |limit: &usize| SERIES_LIMITS.contains(limit);
    let parsed = vars.parse(&[variable.as_str()], SERIES_LIMIT, |value| {
        value.parse().ok().filter(accepted)
    });
    if let Some(limit) = code.series_limit.filter(|limit| !accepted(limit)) {
        let limit = limit.to_string();
        vars.refuse(SettingError::invalid("series_limit", &limit, SERIES_LIMIT));
    }
    code.series_limit.or(parsed)
}

fn histogram_buckets(vars: &mut Variables, code: &Code) -> Vec<(String, Vec<f64>)> {
    for (metric, boundaries) in &code.histogram_buckets {
        if !are_boundaries(boundaries) {
            let setting = format!("histogram_buckets of {metric}");
            let shown = format!("{boundaries:?}");
            vars.refuse(SettingError::invalid(setting, &shown, BOUNDARIES));
        }
    }
    code.histogram_buckets.clone()
}

fn histogram_aggregation(vars: &mut Variables, code: &Code) -> HistogramAggregation {
    let variable = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    let expected = "explicit_bucket_histogram or base2_exponential_bucket_histogram";
    let parsed = vars.parse(&[variable], expected, |value| {
        match value.to_ascii_lowercase().as_str() {
            "explicit_bucket_histogram" => Some(HistogramAggregation::ExplicitBuckets),
            "base2_exponential_bucket_histogram" => Some(HistogramAggregation::Base2Exponential),
            _ => None,
        }
    });
    code.histogram_aggregation.or(parsed).unwrap_or_default()
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

fn resource_attributes(vars: &mut Variables, code: &Code) -> Vec<(String, String)> {
    let parsed = vars.parse(&["OTEL_RESOURCE_ATTRIBUTES"], pairs::EXPECTED, |text| {
        pairs::parse(text).collect::<Result<Vec<_>, _>>().ok()
    });
    let mut attributes = parsed.unwrap_or_default();
    for (key, value) in &code.resource_attributes {
        attributes.retain(|(other, _)| other != key);
        attributes.push((key.clone(), value.clone()));
    }
    attributes
}

/// Takes `service.name` out of the resource attributes, where it counts less than its own variables.
fn service_name(
    vars: &Variables,
    code: &Code,
    attributes: &mut Vec<(String, String)>,
    is_bound_as_imgproxy: bool,
) -> Option<String> {
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
    // Telemetry that is switched on as imgproxy's is shows the service under imgproxy's name.
    let as_imgproxy = || {
        let endpoint = vars.own("ENDPOINT");
        let switched_on = code.endpoint.is_none() && vars.get(&endpoint).is_some();
        let as_imgproxy = switched_on && endpoint.starts_with(PREFIX) || is_bound_as_imgproxy;
        as_imgproxy.then(|| "imgproxy".to_owned())
    };
    set.or(in_attributes).or_else(as_imgproxy)
}
