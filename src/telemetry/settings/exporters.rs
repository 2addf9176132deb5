//! Where each signal goes, and how.

use std::{fs, time::Duration};

use http::{HeaderName, HeaderValue};
#[cfg(feature = "_otlp")]
use rustls::crypto::ring;

#[cfg(feature = "_otlp")]
use super::credentials::Credentials;
use super::{
    code::Code,
    endpoint::{self, Rules, without_secrets},
    env::Variables,
    pairs,
    pem::Pem,
    protocol::Protocol,
    values::{Exporter, OtlpExporter},
};
use crate::telemetry::{error::SettingError, signal::Signal};

/// `OTEL_EXPORTER_OTLP_TRACES_x`, which comes before `OTEL_EXPORTER_OTLP_x`.
fn standard(signal: Signal, name: &str) -> [String; 2] {
    [
        format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.name()),
        format!("OTEL_EXPORTER_OTLP_{name}"),
    ]
}

/// Whether metrics or logs are asked for; traces always are.
pub(super) fn is_asked_for(vars: &mut Variables, code: &Code, signal: Signal) -> bool {
    let switch = match signal {
        Signal::Traces => Some(true),
        Signal::Metrics => code.metrics,
        Signal::Logs => code.logs,
    };
    let variable = vars.own(&format!("ENABLE_{}", signal.name()));
    let asked = vars.parse_bool(&[variable.as_str()]);
    // Naming an exporter asks for it too; the value `none` counts where exporters are chosen.
    let exporter = format!("OTEL_{}_EXPORTER", signal.name());
    switch
        .or(code.prints(signal).then_some(true))
        .or(asked)
        .unwrap_or_else(|| vars.get(&exporter).is_some())
}

pub(super) fn exporter(
    vars: &mut Variables,
    code: &Code,
    signal: Signal,
    enabled: bool,
) -> Exporter {
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
            let Some(feature) = missing_for_console(signal) else {
                return Exporter::Console;
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

/// The cargo feature that printing a signal needs, when the crate was compiled without it.
pub(super) const fn missing_for_console(signal: Signal) -> Option<&'static str> {
    match signal {
        _ if cfg!(not(feature = "console")) => Some("console"),
        Signal::Logs if cfg!(not(feature = "logs")) => Some("logs"),
        _ => None,
    }
}

/// The cargo feature that exporting a signal needs, when the crate was compiled without it.
pub(super) const fn missing_for_otlp(signal: Signal, protocol: Protocol) -> Option<&'static str> {
    match signal {
        Signal::Logs if cfg!(not(feature = "logs")) => Some("logs"),
        _ => protocol.missing_feature(),
    }
}

fn otlp(vars: &mut Variables, code: &Code, signal: Signal) -> Option<OtlpExporter> {
    let [own_variable, general_variable] = standard(signal, "ENDPOINT");
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
    let insecure = insecure(vars, code, signal);
    let [server_certificate, client_certificate, client_key] = credentials(vars, code, signal);
    let rules = Rules {
        protocol,
        insecure,
        certificate: [&server_certificate, &client_certificate, &client_key]
            .into_iter()
            .any(Option::is_some),
        append: (setting != own_variable).then_some(signal.path()),
    };
    let endpoint = endpoint::resolve(&text, rules).map_err(|expected| SettingError::Invalid {
        setting,
        value: without_secrets(&text),
        expected,
    });
    let exporter = OtlpExporter {
        headers: headers(vars, code, signal),
        timeout: timeout(vars, code, signal),
        gzip: gzip(vars, signal),
        server_certificate,
        client_certificate,
        client_key,
        ..OtlpExporter::new(vars.accept(endpoint)?, protocol)
    };
    #[cfg(feature = "_otlp")]
    if exporter.uses_tls() {
        // The transport reads the texts again, when it needs what is in them.
        vars.accept(Credentials::read(&exporter, &ring::default_provider()))?;
    }
    Some(exporter)
}

fn insecure(vars: &mut Variables, code: &Code, signal: Signal) -> Option<bool> {
    let crate_variable = vars.own("GRPC_INSECURE");
    let [own, general] = standard(signal, "INSECURE");
    let parsed = vars.parse_bool(&[crate_variable.as_str(), &own, &general]);
    code.insecure.or(parsed)
}

/// Server certificate, client certificate and client key.
fn credentials(vars: &mut Variables, code: &Code, signal: Signal) -> [Option<Pem>; 3] {
    [
        (&code.server_certificate, "SERVER_CERT", "CERTIFICATE"),
        (
            &code.client_certificate,
            "CLIENT_CERT",
            "CLIENT_CERTIFICATE",
        ),
        (&code.client_key, "CLIENT_KEY", "CLIENT_KEY"),
    ]
    .map(|(code, own, standard)| pem(vars, code, signal, own, standard))
}

/// Certificates and keys are text in the crate's own variables, and files in the standard ones.
fn pem(
    vars: &mut Variables,
    code: &Option<Pem>,
    signal: Signal,
    own: &str,
    standard_name: &str,
) -> Option<Pem> {
    if let Some(pem) = code {
        return Some(pem.clone());
    }
    let own = vars.own(own);
    if let Some(text) = vars.get(&own) {
        let text = text.replace("\\n", "\n");
        return Some(Pem::from_variable(&own, text));
    }
    let [per_signal, general] = standard(signal, standard_name);
    let (setting, path) = vars.first(&[per_signal.as_str(), &general])?;
    let (setting, path) = (setting.to_owned(), path.to_owned());
    let text = fs::read_to_string(&path).map_err(|error| {
        SettingError::unusable(
            &setting,
            format!("the file {path:?} cannot be read: {error}"),
        )
    });
    Some(Pem::from_variable(&setting, vars.accept(text)?))
}

fn protocol(vars: &mut Variables, code: &Code, signal: Signal) -> Option<Protocol> {
    let crate_variable = vars.own("PROTOCOL");
    let [own, general] = standard(signal, "PROTOCOL");
    let names = [crate_variable.as_str(), &own, &general];
    let protocol = match code.protocol {
        Some(protocol) => protocol,
        None if vars.first(&names).is_none() => Protocol::default(),
        None => vars.parse(&names, Protocol::EXPECTED, Protocol::from_name)?,
    };
    let Some(feature) = protocol.missing_feature() else {
        return Some(protocol);
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
    let [own, general] = standard(signal, "TIMEOUT");
    // All are read, so that a mistake in a variable that loses is found as well.
    let seconds = vars.parse_seconds(&[crate_variable.as_str()]);
    let millis = vars.parse_millis(&[own.as_str(), &general]);
    code.timeout
        .or(seconds)
        .or(millis)
        .unwrap_or(OtlpExporter::TIMEOUT)
}

fn gzip(vars: &mut Variables, signal: Signal) -> bool {
    let [own, general] = standard(signal, "COMPRESSION");
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
    let [own, general] = standard(signal, "HEADERS");
    let mut headers = Vec::new();
    if let Some((name, text)) = vars.first(&[own.as_str(), &general]) {
        match parse_headers(text) {
            Ok(parsed) => headers = parsed,
            Err(problem) => vars.refuse(SettingError::unusable(name, problem)),
        }
    }
    headers.retain(|(name, _)| code.headers.iter().all(|(own, _)| own != name));
    headers.extend(code.headers.iter().cloned());
    headers
}

fn parse_headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let expected = "expected name=value,name=value with percent-encoded values";
    pairs::parse(text)
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
