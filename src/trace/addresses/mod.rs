//! Who asks, and what for: the addresses of a request (semconv http-spans, general/attributes).

mod forwarded;
mod networks;
mod peer;

use std::{fmt, net::SocketAddr};

use http::{Extensions, Request, Uri};
use opentelemetry::{KeyValue, StringValue};

use self::forwarded::{Client, Forwarded};
pub use self::{
    networks::{Networks, NetworksError},
    peer::PeerAddr,
};
use super::attributes::add;
use crate::intern;

type FindPeer = dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync;

/// Where a layer finds the addresses.
#[derive(Default)]
pub(super) struct AddressRules {
    /// In place of the extensions that are known here.
    pub(super) peer: Option<Box<FindPeer>>,
    /// The proxies whose word on the client is taken; nobody's without them.
    pub(super) proxies: Option<Networks>,
}

impl AddressRules {
    pub(super) fn peer(&self, extensions: &Extensions) -> Option<PeerAddr> {
        match &self.peer {
            Some(find) => find(extensions).map(PeerAddr::from),
            None => PeerAddr::of(extensions),
        }
    }
}

impl fmt::Debug for AddressRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressRules")
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

/// The addresses of one request.
#[derive(Debug)]
pub(super) struct Addresses<'a> {
    pub(super) scheme: &'static str,
    server: Option<(&'a str, Option<u16>)>,
    client: Option<StringValue>,
    peer: Option<PeerAddr>,
}

impl<'a> Addresses<'a> {
    pub(super) fn of<B>(
        rules: &AddressRules,
        request: &'a Request<B>,
        host: Option<&'a str>,
    ) -> Self {
        let uri = request.uri();
        let peer = rules.peer(request.extensions());
        let mut addresses = Self {
            scheme: scheme(uri.scheme_str()),
            server: server(uri, || host),
            client: peer.as_ref().map(PeerAddr::text),
            peer,
        };
        if let (Some(proxies), Some(peer)) = (&rules.proxies, &addresses.peer)
            && proxies.contains(peer.ip())
        {
            addresses.take(Forwarded::read(request.headers(), proxies));
        }
        addresses
    }

    fn take(&mut self, forwarded: Forwarded<'a>) {
        if forwarded.proto.is_some() {
            self.scheme = scheme(forwarded.proto);
        }
        self.server = forwarded.host.and_then(host_and_port).or(self.server);
        if let (Some((_, port)), Some(forwarded)) = (&mut self.server, forwarded.port) {
            *port = Some(forwarded);
        }
        self.client = match forwarded.client {
            None => self.client.take(),
            Some(Client::Hidden) => None,
            Some(Client::Address(address)) => Some(address.to_string().into()),
        };
    }

    pub(super) fn add_attributes(&self, attributes: &mut Vec<KeyValue>) {
        if let Some((host, port)) = self.server {
            let host = intern::text(host);
            add(attributes, || KeyValue::new("server.address", host));
            if let Some(port) = port {
                add(attributes, || KeyValue::new("server.port", i64::from(port)));
            }
        }
        if let Some(client) = &self.client {
            add(attributes, || {
                KeyValue::new("client.address", client.clone())
            });
        }
        if let Some(peer) = &self.peer {
            add(attributes, || {
                KeyValue::new("network.peer.address", peer.text())
            });
            add(attributes, || {
                KeyValue::new("network.peer.port", i64::from(peer.port()))
            });
        }
    }
}

/// Only `http` and `https`: over HTTP/1.1 a client may write any scheme into the request line.
pub(super) fn scheme(scheme: Option<&str>) -> &'static str {
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    }
}

/// Host and port that the client asked for: `:authority`, or the `Host` header (semconv http-spans:
/// server.address). The brackets of an IPv6 address are not part of it.
pub(crate) fn server<'a>(
    uri: &'a Uri,
    host: impl FnOnce() -> Option<&'a str>,
) -> Option<(&'a str, Option<u16>)> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => host()?,
    };
    host_and_port(authority)
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let is_mark = |byte| matches!(byte, b'@' | b':' | b'[');
    if !authority.bytes().any(is_mark) {
        return (!authority.is_empty()).then_some((authority, None));
    }
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    (!host.is_empty()).then(|| (host, port.and_then(|port| port.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_the_authority_or_else_the_host_header() {
        let cases = [
            ("/", "images.example", Some(("images.example", None))),
            (
                "/",
                "images.example:8080",
                Some(("images.example", Some(8080))),
            ),
            ("/", "[2001:db8::1]:8080", Some(("2001:db8::1", Some(8080)))),
            ("/", "[::1]", Some(("::1", None))),
            ("/", "[::1", None),
            ("/", ":80", None),
            ("/", "", None),
            ("/", "host:99999", Some(("host", None))),
            (
                "http://h2.example:8443/x",
                "ignored",
                Some(("h2.example", Some(8443))),
            ),
            (
                "http://user:pass@h2.example/x",
                "ignored",
                Some(("h2.example", None)),
            ),
        ];
        for (uri, host, expected) in cases {
            assert_eq!(
                server(&uri.parse().unwrap(), || Some(host)),
                expected,
                "{uri} {host}"
            );
        }
        assert_eq!(server(&"/".parse().unwrap(), || None), None);
    }

    #[test]
    fn a_scheme_from_the_request_line_is_not_taken_over() {
        for (uri, expected) in [
            ("/", "http"),
            ("https://a/", "https"),
            ("HTTPS://a/", "https"),
            ("gopher://a/", "http"),
        ] {
            assert_eq!(
                scheme(uri.parse::<Uri>().unwrap().scheme_str()),
                expected,
                "{uri}"
            );
        }
    }
}
