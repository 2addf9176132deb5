//! What the settings that code has built must hold to.

use std::time::Duration;

#[cfg(feature = "_otlp")]
use rustls::crypto::ring;

#[cfg(feature = "_otlp")]
use super::credentials::Credentials;
use super::{
    exporters::{missing_for_console, missing_for_otlp},
    prometheus::{LISTEN, NAMESPACE, is_listen, is_namespace},
    protocol::Protocol,
    pulled::PrometheusExporter,
    values::{
        BOUNDARIES, Batching, Exporter, OtlpExporter, SERIES_LIMIT, SERIES_LIMITS, Settings,
        are_boundaries,
    },
};
#[cfg(feature = "_otlp")]
use crate::telemetry::keep::Keep;
use crate::telemetry::{
    error::{SettingError, TelemetryError},
    shown::without_secrets,
    signal::Signal,
};

impl Settings {
    /// Holds for all settings that come from the environment; all mistakes are named together.
    pub(crate) fn check(&self) -> Result<(), TelemetryError> {
        let mut errors = Vec::new();
        for signal in Signal::ALL {
            exporter(signal, self.exporter(signal), &mut errors);
        }
        if let Some(prometheus) = &self.prometheus {
            pulled(prometheus, &mut errors);
        }
        if let Some(page) = &self.trace_page {
            page.check(&mut errors);
        }
        batching("span_batching", &self.span_batching, &mut errors);
        batching("log_batching", &self.log_batching, &mut errors);
        for (setting, count) in [
            ("max_queue_bytes", self.max_queue_bytes),
            ("max_concurrent_exports", self.max_concurrent_exports),
        ] {
            if count == 0 {
                errors.push(invalid(setting, count, "a number above 0"));
            }
        }
        for (setting, duration) in [
            ("metric_export_interval", self.metric_export_interval),
            ("metric_export_timeout", self.metric_export_timeout),
        ] {
            above_zero(setting, duration, &mut errors);
        }
        errors.extend(self.sampler.check());
        #[cfg(feature = "_otlp")]
        errors.extend(self.keep.iter().flat_map(Keep::mistakes));
        for (metric, boundaries) in &self.histogram_buckets {
            if !are_boundaries(boundaries) {
                let setting = format!("histogram_buckets of {metric}");
                errors.push(invalid(&setting, format!("{boundaries:?}"), BOUNDARIES));
            }
        }
        if !SERIES_LIMITS.contains(&self.series_limit) {
            errors.push(invalid("series_limit", self.series_limit, SERIES_LIMIT));
        }
        if self.aws_resource && cfg!(not(feature = "aws")) {
            errors.push(SettingError::feature("aws_resource", "true", "aws"));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(TelemetryError::Settings(errors)),
        }
    }
}

fn exporter(signal: Signal, exporter: &Exporter, errors: &mut Vec<SettingError>) {
    let setting = match signal {
        Signal::Traces => "traces",
        Signal::Metrics => "metrics",
        Signal::Logs => "logs",
    };
    let (value, feature) = match exporter {
        Exporter::None => return,
        Exporter::Console => ("console".to_owned(), missing_for_console(signal)),
        Exporter::Otlp(otlp) => (
            otlp.protocol.to_string(),
            missing_for_otlp(signal, otlp.protocol),
        ),
    };
    if let Some(feature) = feature {
        errors.push(SettingError::feature(setting, value, feature));
    } else if let Exporter::Otlp(exporter) = exporter {
        otlp(setting, exporter, errors);
    }
}

fn pulled(prometheus: &PrometheusExporter, errors: &mut Vec<SettingError>) {
    if cfg!(not(feature = "prometheus")) {
        errors.push(SettingError::feature("prometheus", "Some", "prometheus"));
    }
    if let Some(listen) = prometheus.listen.as_ref().filter(|text| !is_listen(text)) {
        errors.push(invalid("prometheus.listen", listen, LISTEN));
    }
    let namespace = prometheus.namespace.as_ref();
    if let Some(namespace) = namespace.filter(|text| !is_namespace(text)) {
        errors.push(invalid("prometheus.namespace", namespace, NAMESPACE));
    }
}

fn otlp(setting: &str, exporter: &OtlpExporter, errors: &mut Vec<SettingError>) {
    let endpoint = &exporter.endpoint;
    let grpc = exporter.protocol == Protocol::Grpc;
    let expected = match (endpoint.scheme_str(), exporter.credential()) {
        (Some("https" | "http"), _) if endpoint.host().is_none_or(str::is_empty) => FULL_URL.into(),
        (Some("https" | "http"), _) if grpc && !matches!(endpoint.path(), "" | "/") => {
            "a URL without a path, because OTLP over gRPC has none".into()
        }
        (Some("http"), _) if exporter.protocol == Protocol::Https => {
            "a URL that starts with https:// for the protocol https".into()
        }
        (Some("http"), Some(credential)) => {
            format!("a URL that starts with https://, because {credential} is set")
        }
        (Some("https" | "http"), _) => String::new(),
        _ => FULL_URL.into(),
    };
    if !expected.is_empty() {
        let shown = without_secrets(&endpoint.to_string());
        errors.push(invalid(&format!("{setting}.endpoint"), shown, &expected));
    }
    above_zero(&format!("{setting}.timeout"), exporter.timeout, errors);
    #[cfg(feature = "_otlp")]
    if let Err(error) = Credentials::read(exporter, &ring::default_provider())
        && !errors.contains(&error)
    {
        errors.push(error);
    }
}

const FULL_URL: &str = "a full URL that starts with http:// or https://";

fn batching(setting: &str, batching: &Batching, errors: &mut Vec<SettingError>) {
    let (queue, batch) = (batching.max_queue_size, batching.max_export_batch_size);
    if queue == 0 {
        let setting = format!("{setting}.max_queue_size");
        errors.push(invalid(&setting, queue, "a number above 0"));
    } else if !(1..=queue).contains(&batch) {
        let setting = format!("{setting}.max_export_batch_size");
        let expected = format!("a number from 1 to the queue size, {queue}");
        errors.push(invalid(&setting, batch, &expected));
    }
    let setting = format!("{setting}.export_timeout");
    above_zero(&setting, batching.export_timeout, errors);
}

fn above_zero(setting: &str, duration: Duration, errors: &mut Vec<SettingError>) {
    if duration.is_zero() {
        errors.push(invalid(setting, "0", "a time above 0"));
    }
}

fn invalid(setting: &str, value: impl ToString, expected: &str) -> SettingError {
    SettingError::invalid(setting, &value.to_string(), expected)
}
