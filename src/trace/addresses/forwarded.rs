//! The headers in which proxies describe the request that they pass on: `X-Forwarded-For`, `-Proto`,
//! `-Host` and `-Port`, or `Forwarded` (RFC 7239).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

use super::Networks;
use crate::semconv::number;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The header in which trusted proxies say who the client is. The other one is not read: a proxy passes
/// on what the client has written there. The two cases are exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The request as the outermost trusted proxy received it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded<'a> {
    /// `None`: no proxy said.
    pub(super) client: Option<Client>,
    pub(super) proto: Option<&'a str>,
    /// With its port, if it was written.
    pub(super) host: Option<&'a str>,
    pub(super) port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Address(IpAddr),
    /// `unknown`, an obfuscated identifier (RFC 7239 §6.3), or something unreadable.
    Hidden,
}

impl<'a> Forwarded<'a> {
    /// Reads the headers of a request whose peer is trusted. The client is the right-most hop that is
    /// not trusted: it may have written everything left of it.
    pub(super) fn read(
        headers: &'a HeaderMap,
        trusted: &Networks,
        owned: Option<ForwardedHeader>,
    ) -> Self {
        let owned = owned.unwrap_or_else(|| {
            let is_de_facto = |name: &HeaderName| name.as_str().starts_with("x-forwarded-");
            match headers.keys().any(is_de_facto) {
                true => ForwardedHeader::XForwarded,
                false => ForwardedHeader::Forwarded,
            }
        });
        match owned {
            ForwardedHeader::Forwarded => Self::standard(headers, trusted),
            ForwardedHeader::XForwarded => Self::de_facto(headers, trusted),
        }
    }

    fn standard(headers: &'a HeaderMap, trusted: &Networks) -> Self {
        let mut elements = Vec::new();
        for line in lines(headers, "forwarded") {
            parse_elements(line, &mut elements);
        }
        let mut forwarded = Self::default();
        for element in elements.iter().rev() {
            forwarded.proto = element.proto.or(forwarded.proto);
            forwarded.host = element.host.or(forwarded.host);
            let client = element.node.map_or(Client::Hidden, client);
            forwarded.client = Some(client);
            if !client.is_in(trusted) {
                break;
            }
        }
        forwarded
    }

    fn de_facto(headers: &'a HeaderMap, trusted: &Networks) -> Self {
        let hops = list(headers, X_FORWARDED_FOR);
        let mut client_hop = None;
        // The number of proxies between the outermost trusted one and this server.
        let mut proxies = 0;
        for (index, hop) in hops.iter().rev().enumerate() {
            let client = client(hop);
            client_hop = Some(client);
            proxies = index;
            if !client.is_in(trusted) {
                break;
            }
        }
        // A proxy either appends to these or replaces them.
        let said_by_the_outermost = |name| {
            let values = list(headers, name);
            let last = values.len().checked_sub(1)?;
            values.get(last.saturating_sub(proxies)).copied()
        };
        Self {
            client: client_hop,
            proto: said_by_the_outermost("x-forwarded-proto"),
            host: said_by_the_outermost("x-forwarded-host"),
            port: said_by_the_outermost("x-forwarded-port").and_then(number),
        }
    }
}

impl Client {
    fn is_in(self, networks: &Networks) -> bool {
        matches!(self, Self::Address(address) if networks.contains(address))
    }
}

/// An address with or without a port, IPv6 with or without brackets. What RFC 7239 §6 does not allow
/// hides the client.
fn client(node: &str) -> Client {
    address(node).map_or(Client::Hidden, |address| {
        Client::Address(address.to_canonical())
    })
}

fn address(node: &str) -> Option<IpAddr> {
    if let Ok(bare) = node.parse() {
        return Some(bare);
    }
    let (address, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let (address, port) = node.split_at(node.find(':')?);
            (IpAddr::V4(address.parse::<Ipv4Addr>().ok()?), port)
        }
    };
    is_port(port).then_some(address)
}

/// No port, or one after a colon, which may be obfuscated: `:_port`.
fn is_port(port: &str) -> bool {
    let is_of_port = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match port.strip_prefix(':') {
        Some(port) => port.bytes().all(is_of_port),
        None => port.is_empty(),
    }
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    // A line that is not text may hide a hop, so it counts as an unreadable one.
    let lines = headers.get_all(name).into_iter();
    lines.map(|line| line.to_str().unwrap_or("\u{0}"))
}

fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    lines(headers, name)
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect()
}

/// One `forwarded-element` (RFC 7239 §4), written by one proxy.
#[derive(Debug, Default)]
struct Element<'a> {
    node: Option<&'a str>,
    proto: Option<&'a str>,
    host: Option<&'a str>,
}

/// Reads the elements of a header line. A malformed element becomes an empty one. If it contains
/// quotes, so does the rest of the line, because it is unclear where the quotes end.
fn parse_elements<'a>(mut line: &'a str, elements: &mut Vec<Element<'a>>) {
    loop {
        line = line.trim_start_matches([' ', '\t', ',']);
        if line.is_empty() {
            return;
        }
        match parse_element(&mut line) {
            Some(element) => elements.push(element),
            None => {
                elements.push(Element::default());
                let (malformed, rest) = line.split_once(',').unwrap_or((line, ""));
                if malformed.contains('"') {
                    return;
                }
                line = rest;
            }
        }
    }
}

fn parse_element<'a>(line: &mut &'a str) -> Option<Element<'a>> {
    let mut element = Element::default();
    loop {
        // A name that is none ends the search, so that each byte of a line is looked at once.
        let end = line.find(['=', ',', ';', '"'])?;
        let (name, rest) = line.split_at(end);
        let rest = rest.strip_prefix('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find([';', ',']).unwrap_or(rest.len())),
        };
        let value = value.trim();
        // Neither nodes nor hosts have anything to escape.
        if value.contains(['\\', '"']) {
            return None;
        }
        let name = name.trim();
        let slot = match name {
            _ if name.eq_ignore_ascii_case("for") => &mut element.node,
            _ if name.eq_ignore_ascii_case("proto") => &mut element.proto,
            _ if name.eq_ignore_ascii_case("host") => &mut element.host,
            _ if name.contains(' ') => return None,
            _ => &mut None,
        };
        // RFC 7239 §4: each parameter at most once.
        if slot.replace(value).is_some() {
            return None;
        }
        *line = rest.trim_start();
        match line.strip_prefix(';') {
            Some(rest) => *line = rest,
            None if line.is_empty() || line.starts_with(',') => return Some(element),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn read(
        headers: &[(&'static str, &str)],
    ) -> (String, Option<String>, Option<String>, Option<u16>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted = "10.0.0.0/8, fd00::/8".parse().unwrap();
        let read = Forwarded::read(&map, &trusted, None);
        let client = match read.client {
            None => "-".to_owned(),
            Some(Client::Hidden) => "hidden".to_owned(),
            Some(Client::Address(address)) => address.to_string(),
        };
        (
            client,
            read.proto.map(str::to_owned),
            read.host.map(str::to_owned),
            read.port,
        )
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_is_not_trusted() {
        let cases: &[(&str, &str, &str)] = &[
            // RFC 7239 §4, §6 and §7.4.
            (
                "forwarded",
                "for=192.0.2.60;proto=http;by=203.0.113.43",
                "192.0.2.60",
            ),
            ("forwarded", "for=\"_gazonk\"", "hidden"),
            (
                "forwarded",
                "For=\"[2001:db8:cafe::17]:4711\"",
                "2001:db8:cafe::17",
            ),
            (
                "forwarded",
                "for=192.0.2.43, for=198.51.100.17",
                "198.51.100.17",
            ),
            ("forwarded", "for=192.0.2.43, for=10.0.0.1", "192.0.2.43"),
            ("forwarded", "for=10.0.0.2, for=10.0.0.1", "10.0.0.2"),
            ("forwarded", "for=unknown, for=10.0.0.1", "hidden"),
            ("forwarded", "for=192.0.2.43:_port", "192.0.2.43"),
            ("forwarded", "for=\"[2001:db8::1]:_port\"", "2001:db8::1"),
            ("forwarded", "for=6.6.6.6, by=10.0.0.1", "hidden"),
            // Forged: an open quote, garbage, the same parameter twice.
            ("forwarded", "for=10.9.9.9;x=\", for=192.0.2.43", "hidden"),
            (
                "forwarded",
                "for=10.9.9.9;x=\", for=\"[2001:db8::1]\"",
                "hidden",
            ),
            ("forwarded", "for=6.6.6.6;for=10.0.0.1", "hidden"),
            ("forwarded", "for=6.6.6.6;host=\"a\\\"", "hidden"),
            ("forwarded", "garbage, for=192.0.2.43", "192.0.2.43"),
            ("forwarded", "for=192.0.2.43, garbage", "hidden"),
            ("forwarded", ",, for=192.0.2.43 ,", "192.0.2.43"),
            ("x-forwarded-for", "192.0.2.43", "192.0.2.43"),
            (
                "x-forwarded-for",
                "6.6.6.6, 192.0.2.43, 10.1.1.1",
                "192.0.2.43",
            ),
            ("x-forwarded-for", "10.2.2.2, 10.1.1.1", "10.2.2.2"),
            ("x-forwarded-for", "192.0.2.43:51234", "192.0.2.43"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("x-forwarded-for", "[2001:db8::1]:443", "2001:db8::1"),
            (
                "x-forwarded-for",
                "::ffff:192.0.2.43, fd00::1",
                "192.0.2.43",
            ),
            ("x-forwarded-for", "6.6.6.6, unknown", "hidden"),
            ("x-forwarded-for", "6.6.6.6, <script>", "hidden"),
            // Neither ports nor addresses.
            ("x-forwarded-for", "6.6.6.6, 192.0.2.43:80 x", "hidden"),
            ("x-forwarded-for", "6.6.6.6, [2001:db8::1]x", "hidden"),
            ("x-forwarded-for", "6.6.6.6, [192.0.2.43]", "hidden"),
            ("x-forwarded-for", "6.6.6.6, [fe80::1%5]:80", "hidden"),
            // Not text: it may hide any address.
            ("x-forwarded-for", "6.6.6.6, 192.0.2.43, é", "hidden"),
            ("forwarded", "for=é", "hidden"),
            ("x-forwarded-for", "", "-"),
        ];
        for (name, value, expected) in cases {
            assert_eq!(read(&[(name, value)]).0, *expected, "{name}: {value}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        for name in ["forwarded", "x-forwarded-for"] {
            let hop = |address: &str| match name {
                "forwarded" => format!("for={address}"),
                _ => address.to_owned(),
            };
            for (last, expected) in [("192.0.2.43", "192.0.2.43"), ("é", "hidden")] {
                let (client, ..) = read(&[(name, &hop("6.6.6.6")), (name, &hop(last))]);
                assert_eq!(client, expected, "{name}");
            }
        }
    }

    #[test]
    fn scheme_host_and_port_are_those_of_the_outermost_trusted_proxy() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(&[(
                "forwarded",
                "for=6.6.6.6;proto=gopher;host=evil, for=192.0.2.43;proto=https;host=\"a.example:8443\", for=10.0.0.1;proto=http"
            )]),
            (
                "192.0.2.43".to_owned(),
                text("https"),
                text("a.example:8443"),
                None
            )
        );
        assert_eq!(
            read(&[
                ("x-forwarded-for", "6.6.6.6, 192.0.2.43, 10.0.0.1"),
                ("x-forwarded-proto", "gopher, https, http"),
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-port", "8443"),
            ]),
            (
                "192.0.2.43".to_owned(),
                text("https"),
                text("a.example"),
                Some(8443)
            )
        );
        assert_eq!(
            read(&[("x-forwarded-proto", "https")]),
            ("-".to_owned(), text("https"), None, None)
        );
    }

    // faults A5
    #[test]
    fn only_the_header_that_the_proxy_owns_is_read() {
        let headers = HeaderMap::from_iter([
            (
                http::header::FORWARDED,
                HeaderValue::from_static("for=6.6.6.6;host=evil.example;proto=https"),
            ),
            (
                http::HeaderName::from_static(X_FORWARDED_FOR),
                HeaderValue::from_static("192.0.2.1"),
            ),
        ]);
        let trusted = "10.0.0.0/8".parse().unwrap();
        let client = |owned| {
            let read = Forwarded::read(&headers, &trusted, owned);
            (read.client, read.host)
        };
        let by_x = Client::Address([192, 0, 2, 1].into());
        assert_eq!(client(None), (Some(by_x), None));
        // Nor does it count where the proxy only says how it was asked.
        let forged = read(&[
            ("forwarded", "for=6.6.6.6;proto=http"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!((&*forged.0, forged.1.as_deref()), ("-", Some("https")));
        assert_eq!(
            client(Some(ForwardedHeader::XForwarded)),
            (Some(by_x), None)
        );
        let standard = Client::Address([6, 6, 6, 6].into());
        assert_eq!(
            client(Some(ForwardedHeader::Forwarded)),
            (Some(standard), Some("evil.example"))
        );
    }

    #[test]
    fn a_port_is_digits() {
        for (written, port) in [
            ("443", Some(443)),
            ("+443", None),
            ("-1", None),
            ("70000", None),
        ] {
            assert_eq!(read(&[("x-forwarded-port", written)]).3, port, "{written}");
        }
    }

    /// Where each element costs a look at all the others, this takes minutes.
    #[test]
    fn a_long_line_without_any_parameter_is_read() {
        let line = "a,".repeat(500_000);
        assert_eq!(read(&[("forwarded", &line)]).0, "hidden");
    }

    /// An address, as `X-Forwarded-For` and as `Forwarded` have it.
    fn hop() -> impl Strategy<Value = (IpAddr, String, String)> {
        let port = prop_oneof![
            Just(String::new()),
            any::<u16>().prop_map(|port| format!(":{port}")),
            "[a-zA-Z0-9._-]{1,8}".prop_map(|name| format!(":_{name}")),
        ];
        (any::<IpAddr>(), port, any::<bool>()).prop_map(|(address, port, quoted)| {
            let node = match address {
                IpAddr::V4(address) => format!("{address}{port}"),
                IpAddr::V6(address) => format!("[{address}]{port}"),
            };
            let value = match quoted || node.contains(':') {
                true => format!("\"{node}\""),
                false => node.clone(),
            };
            (address, node, value)
        })
    }

    proptest! {
        /// Whatever the client has written, the hop that a trusted proxy adds is the client.
        #[test]
        fn the_hop_of_a_trusted_proxy_counts(
            forged in vec("[ -~]{0,60}", 0..4),
            (address, node, value) in hop(),
            more in prop_oneof![Just(""), Just(";proto=https;host=a.example"), Just(" ; by=\"_x\"")],
            trusted in 0_usize..3,
            own_line in any::<bool>(),
        ) {
            let trusted_networks: Networks = "10.0.0.0/8".parse().unwrap();
            prop_assume!(!trusted_networks.contains(address));
            for (header, own, proxy) in [
                (ForwardedHeader::XForwarded, node, "10.0.0.1"),
                (ForwardedHeader::Forwarded, format!("FOR={value}{more}"), "for=10.0.0.1;proto=http"),
            ] {
                let name = match header {
                    ForwardedHeader::XForwarded => "x-forwarded-for",
                    ForwardedHeader::Forwarded => "forwarded",
                };
                let hops = [vec![own.as_str()], vec![proxy; trusted]].concat();
                let mut lines = forged.clone();
                match lines.last_mut() {
                    Some(last) if !own_line => *last = format!("{last}, {}", hops.join(", ")),
                    _ => lines.extend(hops.iter().map(|hop| (*hop).to_owned())),
                }
                let lines = lines.iter().map(|line| HeaderValue::from_str(line).unwrap());
                let headers: HeaderMap = lines.map(|line| (HeaderName::from_static(name), line)).collect();
                let read = Forwarded::read(&headers, &trusted_networks, Some(header));
                let found = read.client;
                let expected = Client::Address(address.to_canonical());
                // After an open quote in the same line nothing can be told.
                let is_unclear = !own_line
                    && header == ForwardedHeader::Forwarded
                    && forged.last().is_some_and(|line| line.contains(['"', '=']));
                if is_unclear {
                    prop_assert!(found == Some(expected) || found == Some(Client::Hidden), "{found:?}");
                } else {
                    prop_assert_eq!(found, Some(expected));
                }
            }
        }
    }
}
