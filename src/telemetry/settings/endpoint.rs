//! From what people write as an endpoint to the one URL that requests go to.

use std::fmt;

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::protocol::Protocol;
use crate::telemetry::shown::without_secrets;

/// An endpoint as it was written, of which `Debug` and `Display` show nothing that may be secret.
#[derive(Clone)]
pub(crate) struct EndpointText(pub(crate) String);

impl fmt::Debug for EndpointText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

/// What decides about an endpoint besides its own text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) protocol: Protocol,
    /// `GRPC_INSECURE`; `None` when it is not set.
    pub(super) insecure: Option<bool>,
    /// A certificate or key is set, which means TLS for `host:port`.
    pub(super) certificate: bool,
    /// For HTTP: appended to the path (`/v1/traces`), or `None` to take the URL as it is.
    pub(super) append: Option<&'static str>,
}

/// The URL for `endpoint`, which always has a scheme, an authority and a path; `https` means TLS.
///
/// An error says what is expected.
pub(super) fn resolve(endpoint: &str, rules: Rules) -> Result<Uri, &'static str> {
    let grpc = rules.protocol == Protocol::Grpc;
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, endpoint),
    };
    let tls = match scheme.map(str::to_ascii_lowercase).as_deref() {
        Some("https") => true,
        Some("http") if rules.protocol == Protocol::Https => {
            return Err("a URL that starts with https://, because the protocol is https");
        }
        Some("http") => false,
        Some(_) => return Err("host:port or a URL that starts with http:// or https://"),
        None => {
            rules.protocol == Protocol::Https || rules.certificate || rules.insecure == Some(false)
        }
    };

    let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    if authority.contains('@') {
        return Err(
            "an endpoint without a user name or password, which a header can carry: \
                    OTEL_EXPORTER_OTLP_HEADERS=authorization=…",
        );
    }
    let authority = authority_with_port(authority, scheme.is_none(), grpc)?;
    let path = path_of(path, grpc, rules.append)?;

    Uri::builder()
        .scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| HOST)
}

const HOST: &str = "host:port or a URL, for example collector:4317";

fn authority_with_port(text: &str, add_port: bool, grpc: bool) -> Result<Authority, &'static str> {
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return Err("an IPv6 address in brackets, for example [::1]:4317");
    }
    let authority: Authority = text.parse().map_err(|_| HOST)?;
    let host = authority.host();
    if host.is_empty() || !is_host(host) {
        return Err(HOST);
    }
    // Only a port may follow the host; `Authority` accepts `host:` and `host:port` too.
    match &text[host.len()..] {
        "" if add_port => {
            let port = if grpc { 4317 } else { 4318 };
            format!("{text}:{port}").parse().map_err(|_| HOST)
        }
        "" => Ok(authority),
        port if matches!(authority.port_u16(), Some(1..)) && port.len() > 1 => Ok(authority),
        _ => Err("a port between 1 and 65535 after the host"),
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
    }
}

fn path_of(path: &str, grpc: bool, append: Option<&str>) -> Result<PathAndQuery, &'static str> {
    if path.contains('#') {
        return Err("an endpoint without a fragment (#…)");
    }
    let path = match append {
        _ if grpc && matches!(path, "" | "/") => "/".to_owned(),
        _ if grpc => {
            return Err(
                "host:port for OTLP over gRPC, which has no path; OTLP over HTTP needs the \
                        protocol http",
            );
        }
        Some(_) if path.contains('?') => {
            return Err(
                "an endpoint without a query (?…), which only a per-signal one such as \
                        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT may have",
            );
        }
        Some(append) => format!("{}{append}", path.trim_end_matches('/')),
        None if path.starts_with('/') => path.to_owned(),
        None => format!("/{path}"),
    };
    path.parse().map_err(|_| "a valid path in the URL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Grpc, Http, Https};

    const TRACES: Option<&str> = Some("/v1/traces");

    /// Endpoint, protocol, `GRPC_INSECURE`, whether a certificate is set, what is appended; the URL or
    /// a part of the message.
    type Row = (
        &'static str,
        Protocol,
        Option<bool>,
        bool,
        Option<&'static str>,
        Result<&'static str, &'static str>,
    );

    #[rustfmt::skip]
    const TABLE: &[Row] = &[
        // host and port, gRPC
        ("collector:4317",           Grpc,  None,        false, TRACES, Ok("http://collector:4317/")),
        ("collector:4317",           Grpc,  Some(true),  false, TRACES, Ok("http://collector:4317/")),
        ("collector:4317",           Grpc,  Some(false), false, TRACES, Ok("https://collector:4317/")),
        ("collector:4317",           Grpc,  None,        true,  TRACES, Ok("https://collector:4317/")),
        ("collector:4317",           Grpc,  Some(true),  true,  TRACES, Ok("https://collector:4317/")),
        ("collector:4317/",          Grpc,  None,        false, TRACES, Ok("http://collector:4317/")),
        ("collector",                Grpc,  None,        false, TRACES, Ok("http://collector:4317/")),
        ("10.0.0.1:4317",            Grpc,  None,        false, TRACES, Ok("http://10.0.0.1:4317/")),
        ("my_collector.ns.svc:4317", Grpc,  None,        false, TRACES, Ok("http://my_collector.ns.svc:4317/")),
        ("[::1]:4317",               Grpc,  None,        false, TRACES, Ok("http://[::1]:4317/")),
        ("[fe80::1]",                Grpc,  None,        false, TRACES, Ok("http://[fe80::1]:4317/")),
        // host and port, HTTP
        ("collector:4318",           Http,  None,        false, TRACES, Ok("http://collector:4318/v1/traces")),
        ("collector:4318",           Http,  Some(true),  false, TRACES, Ok("http://collector:4318/v1/traces")),
        ("collector:4318",           Http,  Some(false), false, TRACES, Ok("https://collector:4318/v1/traces")),
        ("collector:4318",           Http,  None,        true,  TRACES, Ok("https://collector:4318/v1/traces")),
        ("collector:4318",           Https, None,        false, TRACES, Ok("https://collector:4318/v1/traces")),
        ("collector:4318",           Https, Some(true),  false, TRACES, Ok("https://collector:4318/v1/traces")),
        ("collector",                Http,  None,        false, TRACES, Ok("http://collector:4318/v1/traces")),
        ("collector:4318/",          Http,  None,        false, TRACES, Ok("http://collector:4318/v1/traces")),
        ("collector:4318/otlp",      Http,  None,        false, TRACES, Ok("http://collector:4318/otlp/v1/traces")),
        ("[::1]:4318",               Http,  None,        false, TRACES, Ok("http://[::1]:4318/v1/traces")),
        // URLs: the scheme decides
        ("http://collector:4317",    Grpc,  None,        false, TRACES, Ok("http://collector:4317/")),
        ("http://collector:4317",    Grpc,  Some(false), false, TRACES, Ok("http://collector:4317/")),
        ("https://collector:4317",   Grpc,  Some(true),  false, TRACES, Ok("https://collector:4317/")),
        ("https://collector:4317/",  Grpc,  None,        true,  TRACES, Ok("https://collector:4317/")),
        ("HTTP://collector:4317",    Grpc,  None,        false, TRACES, Ok("http://collector:4317/")),
        ("https://collector",        Grpc,  None,        false, TRACES, Ok("https://collector/")),
        ("http://[::1]:4318",        Http,  None,        false, TRACES, Ok("http://[::1]:4318/v1/traces")),
        ("http://collector",         Http,  None,        false, TRACES, Ok("http://collector/v1/traces")),
        ("http://collector:4318/",   Http,  None,        false, TRACES, Ok("http://collector:4318/v1/traces")),
        ("http://collector/otlp",    Http,  None,        false, TRACES, Ok("http://collector/otlp/v1/traces")),
        ("http://collector/otlp/",   Http,  None,        false, TRACES, Ok("http://collector/otlp/v1/traces")),
        ("https://collector:4318",   Http,  None,        false, TRACES, Ok("https://collector:4318/v1/traces")),
        ("https://collector:4318",   Https, None,        false, TRACES, Ok("https://collector:4318/v1/traces")),
        // per-signal endpoints are taken as they are
        ("http://c:4318/v1/traces",  Http,  None,        false, None,   Ok("http://c:4318/v1/traces")),
        ("http://c:4318/other",      Http,  None,        false, None,   Ok("http://c:4318/other")),
        ("http://c:4318",            Http,  None,        false, None,   Ok("http://c:4318/")),
        ("http://c:4318/?key=1",     Http,  None,        false, None,   Ok("http://c:4318/?key=1")),
        ("https://c?key=1",          Http,  None,        false, None,   Ok("https://c/?key=1")),
        ("c:4317",                   Grpc,  None,        false, None,   Ok("http://c:4317/")),
        // contradictions
        ("http://collector:4318",    Https, None,        false, TRACES, Err("because the protocol is https")),
        ("http://collector:4317",    Grpc,  None,        true,  TRACES, Ok("http://collector:4317/")),
        ("http://c:4318/v1/traces",  Grpc,  None,        false, TRACES, Err("has no path")),
        ("c:4317/v1/traces",         Grpc,  None,        false, None,   Err("has no path")),
        ("http://c:4318?key=1",      Http,  None,        false, TRACES, Err("per-signal")),
        // not an endpoint
        ("http://user:pw@c:4318",    Http,  None,        false, TRACES, Err("user name or password")),
        ("user@c:4317",              Grpc,  None,        false, TRACES, Err("user name or password")),
        ("grpc://collector:4317",    Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("unix:///var/run/otlp",     Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("://collector:4317",        Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("http://",                  Http,  None,        false, TRACES, Err("host:port or a URL")),
        ("http:///v1/traces",        Http,  None,        false, TRACES, Err("host:port or a URL")),
        ("//collector:4318",         Http,  None,        false, TRACES, Err("host:port or a URL")),
        (":4317",                    Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("4317:",                    Grpc,  None,        false, TRACES, Err("port between 1 and 65535")),
        ("collector:",               Grpc,  None,        false, TRACES, Err("port between 1 and 65535")),
        ("collector:0",              Grpc,  None,        false, TRACES, Err("port between 1 and 65535")),
        ("collector:99999",          Grpc,  None,        false, TRACES, Err("port between 1 and 65535")),
        ("collector:http",           Grpc,  None,        false, TRACES, Err("port between 1 and 65535")),
        ("collector:4317:4318",      Grpc,  None,        false, TRACES, Err("brackets")),
        ("::1:4317",                 Grpc,  None,        false, TRACES, Err("brackets")),
        ("[::1:4317",                Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("[collector]:4317",         Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("two words:4317",           Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("kollektör:4317",           Grpc,  None,        false, TRACES, Err("host:port or a URL")),
        ("http://c:4318/a b",        Http,  None,        false, None,   Err("a valid path in the URL")),
        ("http://c:4318/#top",       Http,  None,        false, None,   Err("fragment")),
    ];

    // faults D5: "is not accepted: expected expected host:port".
    #[test]
    fn each_reason_reads_on_after_the_word_expected() {
        for &(endpoint, protocol, insecure, certificate, append, _) in TABLE {
            let rules = Rules {
                protocol,
                insecure,
                certificate,
                append,
            };
            if let Err(expected) = resolve(endpoint, rules) {
                assert!(expected.starts_with(['a', 'h']), "{endpoint}: {expected}");
                assert!(!expected.contains("expected"), "{endpoint}: {expected}");
            }
        }
    }

    #[test]
    fn each_endpoint_has_one_url_or_one_reason() {
        for row in TABLE {
            let &(endpoint, protocol, insecure, certificate, append, expected) = row;
            let rules = Rules {
                protocol,
                insecure,
                certificate,
                append,
            };
            let resolved = resolve(endpoint, rules);
            match (&resolved, expected) {
                (Ok(uri), Ok(expected)) => assert_eq!(uri.to_string(), expected, "{row:?}"),
                (Err(message), Err(expected)) => {
                    assert!(message.contains(expected), "{row:?}: {message}");
                }
                _ => panic!("{row:?}: {resolved:?}"),
            }
        }
    }
}
