//! Where each signal goes, and how.

use std::time::Duration;

use http::Uri;

#[cfg(feature = "_otlp")]
use super::{certificates, proxy::Proxy};
use super::{
    certificates::{Certificates, Origin},
    code::Code,
    endpoint::{self, EndpointText, Rules},
    env::{Variables, standard},
    headers::headers,
    protocol::Protocol,
    values::{Exporter, OtlpExporter},
};
use crate::telemetry::{
    error::{Consequence, SettingError},
    signal::Signal,
};

/// Whether metrics or logs are asked for; traces always are.
pub(super) fn is_asked_for(vars: &mut Variables, code: &Code, signal: Signal) -> bool {
    let switch = match signal {
        Signal::Traces => return true,
        Signal::Metrics => code.metrics,
        Signal::Logs => code.logs,
    };
    let name = format!("ENABLE_{}", signal.name());
    let asked = vars.parse_bool(Some(&name), &[]);
    if asked == Some(true) && signal == Signal::Logs && cfg!(not(feature = "logs")) {
        vars.refuse(SettingError::feature(vars.own(&name), "true", "logs"));
    }
    // Naming an exporter asks for it too; the value `none` counts where exporters are chosen.
    switch
        .or(code.prints(signal).then_some(true))
        .or(asked)
        .unwrap_or_else(|| named(vars, signal).is_some())
}

pub(super) fn exporter(vars: &mut Variables, code: &Code, signal: Signal) -> Exporter {
    match named(vars, signal) {
        _ if code.prints(signal) => Exporter::Console,
        Some(Named::Console) => Exporter::Console,
        Some(Named::None) => Exporter::None,
        Some(Named::Otlp) => otlp(vars, code, signal, true),
        None => otlp(vars, code, signal, false),
    }
}

/// Whether `OTEL_METRICS_EXPORTER` names `prometheus`: its value, and what happens when that one is
/// missing.
pub(super) fn names_prometheus(vars: &Variables) -> Option<(String, Consequence)> {
    let value = vars.get(&exporter_variable(Signal::Metrics))?;
    let (pushed, true) = without_prometheus(value) else {
        return None;
    };
    let consequence = match pushed.to_ascii_lowercase().as_str() {
        "" => Consequence::NotExported,
        "otlp" | "console" => Consequence::OthersUsed,
        _ => return None,
    };
    Some((value.to_owned(), consequence))
}

/// The rest of a list of exporters, and whether `prometheus` stands in it.
fn without_prometheus(list: &str) -> (&str, bool) {
    let is_prometheus = |name: &str| name.trim().eq_ignore_ascii_case("prometheus");
    match list.split_once(',') {
        None if is_prometheus(list) => ("", true),
        Some((first, rest)) if is_prometheus(rest) => (first.trim(), true),
        Some((first, rest)) if is_prometheus(first) => (rest.trim(), true),
        _ => (list, false),
    }
}

/// The values of `OTEL_TRACES_EXPORTER` and its siblings.
enum Named {
    Otlp,
    Console,
    None,
}

fn named(vars: &mut Variables, signal: Signal) -> Option<Named> {
    let variable = exporter_variable(signal);
    vars.read(&[variable.as_str()], |name, value| {
        let (pushed, is_pulled) = match signal {
            Signal::Metrics => without_prometheus(value),
            _ => (value, false),
        };
        let (named, missing) = match pushed.to_ascii_lowercase().as_str() {
            "otlp" => (Named::Otlp, missing_for_logs(signal)),
            "console" => (Named::Console, missing_for_console(signal)),
            "none" if !is_pulled => (Named::None, None),
            "" if is_pulled => (Named::None, None),
            _ => {
                let expected = match signal {
                    Signal::Metrics => "otlp, console, prometheus, two with a comma, or none",
                    _ => "otlp, console or none",
                };
                return Err(SettingError::invalid(name, value, expected));
            }
        };
        match missing {
            Some(feature) => Err(SettingError::feature(name, value, feature)),
            None => Ok(named),
        }
    })
}

fn exporter_variable(signal: Signal) -> String {
    format!("OTEL_{}_EXPORTER", signal.name())
}

const fn missing_for_logs(signal: Signal) -> Option<&'static str> {
    match signal {
        Signal::Logs if cfg!(not(feature = "logs")) => Some("logs"),
        _ => None,
    }
}

/// The cargo feature that printing a signal needs, when the crate was compiled without it.
pub(super) const fn missing_for_console(signal: Signal) -> Option<&'static str> {
    match cfg!(feature = "console") {
        true => missing_for_logs(signal),
        false => Some("console"),
    }
}

/// The cargo feature that exporting a signal needs, when the crate was compiled without it.
pub(super) const fn missing_for_otlp(signal: Signal, protocol: Protocol) -> Option<&'static str> {
    match missing_for_logs(signal) {
        None => protocol.missing_feature(),
        missing => missing,
    }
}

fn otlp(vars: &mut Variables, code: &Code, signal: Signal, named: bool) -> Exporter {
    let endpoints = endpoints(vars, code, signal, named);
    let Some(first) = endpoints.first() else {
        return Exporter::None;
    };
    let Some(protocol) = protocol(vars, code, signal, first) else {
        return Exporter::None;
    };
    // All are read, whatever comes of the endpoint, so that all mistakes are named.
    let (headers, timeout) = (headers(vars, code, signal), timeout(vars, code, signal));
    let gzip = gzip(vars, signal);
    let mut certificates = Certificates::read(vars, code, signal);
    let insecure = Insecure::read(vars, code, signal);
    let accepted = endpoints
        .iter()
        .find_map(|endpoint| endpoint.accept(vars, protocol, signal, insecure, &mut certificates));
    let Some(endpoint) = accepted else {
        return Exporter::None;
    };
    let mut exporter = OtlpExporter::new(endpoint, protocol);
    exporter.headers = headers;
    exporter.timeout = timeout;
    exporter.gzip = gzip;
    exporter.server_certificate = certificates.server_certificate;
    exporter.client_certificate = certificates.client_certificate;
    exporter.client_key = certificates.client_key;
    #[cfg(feature = "_otlp")]
    {
        exporter.proxy = Proxy::read(vars, &exporter.endpoint);
    }
    #[cfg(feature = "_otlp")]
    if !certificates::check(vars, &mut exporter) {
        return Exporter::None;
    }
    Exporter::Otlp(exporter)
}

/// One of the endpoints that a signal may have; the first usable one counts.
struct Endpoint {
    setting: String,
    text: EndpointText,
    origin: Origin,
    /// Nothing was set, and the specification has a default.
    is_default: bool,
}

/// What is set in code or in the crate's own variable comes alone; what comes later is looked at when
/// a standard variable holds a mistake.
fn endpoints(vars: &Variables, code: &Code, signal: Signal, named: bool) -> Vec<Endpoint> {
    let endpoint = |setting: &str, text: &str, origin, is_default| Endpoint {
        setting: setting.to_owned(),
        text: EndpointText(text.to_owned()),
        origin,
        is_default,
    };
    if let Some(EndpointText(text)) = &code.endpoint {
        return vec![endpoint("endpoint", text, Origin::Own, false)];
    }
    let own = vars.own("ENDPOINT");
    if let Some(text) = vars.get(&own) {
        return vec![endpoint(&own, text, Origin::Own, false)];
    }
    let mut endpoints = Vec::new();
    let names = standard(signal, "ENDPOINT");
    for (name, origin) in names.iter().zip([Origin::Signal, Origin::General]) {
        if let Some(text) = vars.get(name) {
            endpoints.push(endpoint(name, text, origin, false));
        }
    }
    if named {
        let variable = exporter_variable(signal);
        endpoints.push(endpoint(&variable, "localhost", Origin::General, true));
    }
    endpoints
}

impl Endpoint {
    /// The URL, or `None` and a mistake noted.
    fn accept(
        &self,
        vars: &mut Variables,
        protocol: Protocol,
        signal: Signal,
        insecure: Insecure,
        certificates: &mut Certificates,
    ) -> Option<Uri> {
        let rules = Rules {
            protocol,
            // The specification's default is not encrypted, whatever its variables say.
            insecure: match self.is_default {
                true => insecure.own,
                false => insecure.own.or(insecure.standard),
            },
            certificate: match self.is_default {
                true => certificates.any_own,
                false => certificates.any,
            },
            append: (self.origin != Origin::Signal).then_some(signal.path()),
        };
        let accepted = endpoint::resolve(&self.text.0, rules).and_then(|endpoint| {
            certificates.only_with_tls(vars, &endpoint, self.origin, signal)?;
            Ok(endpoint)
        });
        accepted
            .map_err(|expected| {
                let shown = format!("{:?}", self.text);
                let error = SettingError::invalid(&self.setting, &shown, expected);
                vars.mistake(&self.setting, error);
            })
            .ok()
    }
}

/// Whether an endpoint without a scheme is reached without TLS.
#[derive(Clone, Copy)]
struct Insecure {
    /// By code or by the crate's own variable.
    own: Option<bool>,
    /// By the standard variables.
    standard: Option<bool>,
}

impl Insecure {
    fn read(vars: &mut Variables, code: &Code, signal: Signal) -> Self {
        let names = standard(signal, "INSECURE");
        let own = vars.parse_bool(Some("GRPC_INSECURE"), &[]);
        Self {
            own: code.insecure.or(own),
            standard: vars.parse_bool(None, &names.each_ref().map(String::as_str)),
        }
    }
}

/// What code or the variables say, and otherwise gRPC if it was compiled in.
fn protocol(
    vars: &mut Variables,
    code: &Code,
    signal: Signal,
    endpoint: &Endpoint,
) -> Option<Protocol> {
    let own = vars.own("PROTOCOL");
    let [per_signal, general] = standard(signal, "PROTOCOL");
    let parsed = vars.read(&[own.as_str(), &per_signal, &general], |name, value| {
        let protocol = Protocol::from_name(value)
            .ok_or_else(|| SettingError::invalid(name, value, Protocol::EXPECTED))?;
        match protocol.missing_feature() {
            Some(feature) => Err(SettingError::feature(name, value, feature)),
            None => Ok(protocol),
        }
    });
    if let Some(protocol) = code.protocol {
        let Some(feature) = protocol.missing_feature() else {
            return Some(protocol);
        };
        vars.refuse(SettingError::feature(
            "protocol",
            protocol.to_string(),
            feature,
        ));
        return None;
    }
    if parsed.is_some() || vars.get(&own).is_some() {
        return parsed;
    }
    let compiled = [Protocol::Grpc, Protocol::Http];
    let default = compiled
        .into_iter()
        .find(|protocol| protocol.missing_feature().is_none());
    if default.is_none() {
        let shown = format!("{:?}", endpoint.text);
        let error = SettingError::feature(&endpoint.setting, shown, "otlp-grpc");
        match vars.is_standard(&endpoint.setting) {
            true => vars.warn(error, Consequence::NotExported),
            false => vars.refuse(error),
        }
    }
    default
}

fn timeout(vars: &mut Variables, code: &Code, signal: Signal) -> Duration {
    let own = vars.own("CONNECTION_TIMEOUT");
    let names = standard(signal, "TIMEOUT");
    // All are read, so that a mistake in a variable that loses is found as well.
    let seconds = vars.parse_seconds(&own);
    let millis = vars.parse_timeout(&names.each_ref().map(String::as_str));
    if code.timeout.is_some_and(|timeout| timeout.is_zero()) {
        vars.refuse(SettingError::invalid("timeout", "0", "a time above 0"));
    }
    code.timeout
        .or(seconds)
        .or(millis)
        .unwrap_or(OtlpExporter::TIMEOUT)
}

fn gzip(vars: &mut Variables, signal: Signal) -> bool {
    let names = standard(signal, "COMPRESSION");
    let names = names.each_ref().map(String::as_str);
    vars.parse(&names, "gzip or none", |value| {
        match value.to_ascii_lowercase().as_str() {
            "gzip" => Some(true),
            "none" => Some(false),
            _ => None,
        }
    })
    .unwrap_or(false)
}
