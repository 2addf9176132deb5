//! What the variables and the code say of how metrics are pulled.

use http::uri::Authority;

use super::{
    code::Code,
    env::Variables,
    exporters::names_prometheus,
    pulled::{HOST_AND_PORT, PrometheusExporter},
    values::Exporter,
};
use crate::telemetry::error::SettingError;

pub(super) const LISTEN: &str = "host:port, or :port for all addresses, such as 0.0.0.0:9464";
pub(super) const NAMESPACE: &str =
    "letters, digits, underscores and colons, of which the first is no digit";

/// `pushed` is where metrics go beside; what is asked for in code and goes nowhere is pulled.
pub(super) fn prometheus(
    vars: &mut Variables,
    code: &Code,
    pushed: &Exporter,
) -> Option<PrometheusExporter> {
    // All are read, so that all mistakes are named.
    let (bind_variable, namespace_variable) = (
        vars.of_service("PROMETHEUS_BIND"),
        vars.of_service("PROMETHEUS_NAMESPACE"),
    );
    let is_bound = vars.get(&bind_variable).is_some();
    let bind = vars.parse(&[bind_variable.as_str()], LISTEN, |value| {
        is_listen(value).then(|| value.to_owned())
    });
    let parsed = vars.parse(&[namespace_variable.as_str()], NAMESPACE, |value| {
        is_namespace(value).then(|| value.to_owned())
    });
    for (setting, value, is_accepted, expected) in [
        (
            "prometheus_listen",
            &code.prometheus_listen,
            is_listen as fn(&str) -> bool,
            LISTEN,
        ),
        (
            "prometheus_namespace",
            &code.prometheus_namespace,
            is_namespace,
            NAMESPACE,
        ),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !is_accepted(value)) {
            vars.refuse(SettingError::invalid(setting, value, expected));
        }
    }
    let namespace = code.prometheus_namespace.clone().or(parsed);
    let named = names_prometheus(vars);
    let is_off = code.metrics == Some(false);
    let in_code = code.prometheus.unwrap_or(
        code.prometheus_listen.is_some()
            || code.metrics == Some(true) && *pushed == Exporter::None && !is_switched_off(vars),
    );
    let by_variable = code.prometheus.is_none() && !is_off && (is_bound || named.is_some());
    if !in_code && !by_variable {
        return None;
    }
    if cfg!(not(feature = "prometheus")) {
        if code.prometheus == Some(true) || code.prometheus_listen.is_some() {
            vars.refuse(SettingError::feature("prometheus", "true", "prometheus"));
        }
        if by_variable && let Some(bind) = bind.clone().filter(|_| is_bound) {
            vars.refuse(SettingError::feature(bind_variable, bind, "prometheus"));
        } else if by_variable && let Some((value, consequence)) = named {
            let error = SettingError::feature("OTEL_METRICS_EXPORTER", value, "prometheus");
            vars.warn(error, consequence);
        }
        return None;
    }
    let (listen, variable) = match (&code.prometheus_listen, bind, named) {
        (Some(listen), _, _) => (Some(listen.clone()), None),
        (None, bind, _) if is_bound => (bind, Some(bind_variable)),
        (None, _, Some(_)) => {
            let [host, port] = HOST_AND_PORT;
            let (address, variable) = standard(vars, host, port);
            (Some(address), Some(variable.to_owned()))
        }
        (None, _, None) => (None, None),
    };
    Some(PrometheusExporter {
        listen,
        namespace,
        without_scope: code.prometheus_without_scope,
        variable,
    })
}

/// Whether metrics are pulled as imgproxy's are.
pub(super) fn is_bound_as_imgproxy(
    vars: &Variables,
    prometheus: Option<&PrometheusExporter>,
) -> bool {
    let variable = prometheus.and_then(|prometheus| prometheus.variable.as_deref());
    variable.is_some_and(|variable| {
        variable.starts_with(super::PREFIX) && variable == vars.of_service("PROMETHEUS_BIND")
    })
}

/// `OTEL_METRICS_EXPORTER=none`.
fn is_switched_off(vars: &Variables) -> bool {
    let exporter = vars.get("OTEL_METRICS_EXPORTER");
    exporter.is_some_and(|exporter| exporter.eq_ignore_ascii_case("none"))
}

/// The address by the standard variables, and the one that errors name.
fn standard<'a>(vars: &mut Variables, host: &'a str, port: &'a str) -> (String, &'a str) {
    let given = vars.parse(&[host], "a host name or an IP address", |value| {
        let host = value.trim_matches(['[', ']']);
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        is_listen(&format!("{host}:0")).then_some(host)
    });
    let number: Option<u16> = vars.parse(&[port], "a port from 0 to 65535", |value| {
        value.parse().ok()
    });
    let variable = if given.is_some() { host } else { port };
    let given = given.unwrap_or_else(|| "localhost".to_owned());
    (format!("{given}:{}", number.unwrap_or(9464)), variable)
}

/// `host:port` or `:port`.
pub(super) fn is_listen(text: &str) -> bool {
    let text = match text.strip_prefix(':') {
        Some(port) => format!("localhost:{port}"),
        None => text.to_owned(),
    };
    let port = text.rsplit_once(':').map(|(_, port)| port);
    let is_number = port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let authority = text.parse::<Authority>().ok().filter(|_| is_number);
    authority.is_some_and(|authority| authority.port_u16().is_some() && !text.contains('@'))
}

/// Whether the names of metrics can begin with it.
pub(super) fn is_namespace(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    text.bytes().all(is_letter) && text.starts_with(|first: char| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_have_a_port_and_namespaces_are_names() {
        for (text, is) in [
            ("localhost:9464", true),
            ("0.0.0.0:0", true),
            (":8081", true),
            ("[::1]:80", true),
            ("localhost", false),
            (":", false),
            ("localhost:", false),
            ("localhost:http", false),
            ("localhost:+1", false),
            ("localhost:70000", false),
            ("http://localhost:80", false),
            ("user@localhost:80", false),
            ("::1:80", false),
            ("", false),
        ] {
            assert_eq!(is_listen(text), is, "{text}");
        }
        for (text, is) in [
            ("imgproxy", true),
            ("a:b_1", true),
            ("", false),
            ("1a", false),
            ("a-b", false),
            ("ü", false),
        ] {
            assert_eq!(is_namespace(text), is, "{text}");
        }
    }
}
