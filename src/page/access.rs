//! Who may look.

use std::{fmt, net::IpAddr};

use http::{HeaderName, header::HOST, request::Parts};

use crate::trace::{Networks, PeerAddr};

/// Whether this is a header that proxies add to what they forward: `Forwarded`, `Via`, `X-Forwarded-Proto`,
/// Envoy's `X-Envoy-Attempt-Count`, `X-Original-URI`, and the client's address in `X-Real-IP`,
/// `CF-Connecting-IP` and others. Browsers send none of these.
fn is_of_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    let begins = ["x-forwarded", "x-envoy-", "x-original-"];
    ["forwarded", "via"].contains(&name)
        || begins.iter().any(|begin| name.starts_with(begin))
        || ["-ip", "-ipv6"].iter().any(|end| name.ends_with(end))
}

/// Decides which requests are answered.
#[derive(Default)]
pub(super) struct Access {
    pub(super) networks: Option<Networks>,
    pub(super) authorize: Option<Box<Authorize>>,
}

pub(super) type Authorize = dyn Fn(&Parts) -> bool + Send + Sync;

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("networks", &self.networks)
            .finish_non_exhaustive()
    }
}

const REFUSED: &str = "you are not allowed to see this page";
const UNKNOWN_PEER: &str = "this page is for this machine only, and the server does not say where the request comes \
     from: serve with axum's into_make_service_with_connect_info::<SocketAddr>(), put a PeerAddr into the request's \
     extensions, or decide with TracePageBuilder::authorize";
const FOREIGN_PEER: &str = "this page answers clients on its own machine only, unless TracePageBuilder::allow names their network";
const FOREIGN_HOST: &str = "this page answers under localhost, 127.0.0.1 and [::1] only, so that no other website can read it";
const PROXIED: &str =
    "this page does not answer through a proxy, unless TracePageBuilder::authorize says so";

impl Access {
    /// In one sentence why the request is refused.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), &'static str> {
        if let Some(authorize) = &self.authorize {
            return match authorize(parts) {
                true => Ok(()),
                false => Err(REFUSED),
            };
        }
        if parts.headers.keys().any(is_of_proxy) {
            return Err(PROXIED);
        }
        let peer = PeerAddr::of(&parts.extensions).ok_or(UNKNOWN_PEER)?.ip();
        let is_allowed = |networks: &Networks| networks.contains(peer);
        if !peer.is_loopback() && !self.networks.as_ref().is_some_and(is_allowed) {
            return Err(FOREIGN_PEER);
        }
        // No website has an address for its name.
        let is_good = match (host(parts), &self.networks) {
            (Some(Name::Loopback), _) | (Some(Name::Address), Some(_)) => true,
            (_, None | Some(_)) => false,
        };
        match is_good {
            true => Ok(()),
            false => Err(FOREIGN_HOST),
        }
    }
}

enum Name {
    Loopback,
    /// Another address, as it is.
    Address,
}

/// What the request calls this server; `None` for any other name, and for several.
fn host(parts: &Parts) -> Option<Name> {
    let authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let mut lines = parts.headers.get_all(HOST).iter();
            let line = lines.next()?;
            if lines.next().is_some() {
                return None;
            }
            line.to_str().ok()?.parse().ok()?
        }
    };
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Name::Loopback);
    }
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    match address.to_canonical().is_loopback() {
        true => Some(Name::Loopback),
        false => Some(Name::Address),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::Request;

    use super::*;

    fn check(
        access: &Access,
        peer: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<(), &'static str> {
        let mut request = Request::new(());
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        if let Some(peer) = peer {
            let address = SocketAddr::new(peer.parse().unwrap(), 1);
            request.extensions_mut().insert(PeerAddr::from(address));
        }
        access.check(&request.into_parts().0)
    }

    #[test]
    fn only_this_machine_looks_by_default() {
        let access = Access::default();
        for (peer, host, expected) in [
            (Some("127.0.0.1"), "localhost", Ok(())),
            (Some("127.0.0.1"), "LOCALHOST.:80", Ok(())),
            (Some("127.9.9.9"), "127.0.0.1:9411", Ok(())),
            (Some("::1"), "[::1]:9411", Ok(())),
            (Some("::ffff:127.0.0.1"), "localhost:1", Ok(())),
            (None, "localhost", Err(UNKNOWN_PEER)),
            (Some("10.0.0.1"), "localhost", Err(FOREIGN_PEER)),
            (Some("::2"), "localhost", Err(FOREIGN_PEER)),
            (Some("127.0.0.1"), "evil.example", Err(FOREIGN_HOST)),
            (
                Some("127.0.0.1"),
                "localhost.evil.example",
                Err(FOREIGN_HOST),
            ),
            (
                Some("127.0.0.1"),
                "127.0.0.1.evil.example",
                Err(FOREIGN_HOST),
            ),
            (
                Some("127.0.0.1"),
                "localhost@evil.example",
                Err(FOREIGN_HOST),
            ),
            (Some("127.0.0.1"), "10.0.0.1", Err(FOREIGN_HOST)),
            (Some("127.0.0.1"), "", Err(FOREIGN_HOST)),
        ] {
            assert_eq!(
                check(&access, peer, &[("host", host)]),
                expected,
                "{peer:?} {host}"
            );
        }
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(check(&access, Some("127.0.0.1"), &two), Err(FOREIGN_HOST));
        for name in [
            "forwarded",
            "via",
            "x-forwarded-for",
            // Envoy's and Istio's sidecars, which come from 127.0.0.6.
            "x-forwarded-proto",
            "x-envoy-attempt-count",
            "x-real-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "fastly-client-ip",
            "x-original-uri",
        ] {
            let headers = [("host", "localhost"), (name, "1.1.1.1")];
            assert_eq!(
                check(&access, Some("127.0.0.1"), &headers),
                Err(PROXIED),
                "{name}"
            );
        }
        for name in ["x-request-id", "user-agent", "ip", "sec-fetch-site"] {
            let headers = [("host", "localhost"), (name, "1")];
            assert_eq!(
                check(&access, Some("127.0.0.1"), &headers),
                Ok(()),
                "{name}"
            );
        }
    }

    #[test]
    fn networks_and_closures_open_the_page() {
        let access = Access {
            networks: Some("10.0.0.0/8".parse().unwrap()),
            authorize: None,
        };
        for (peer, host, expected) in [
            ("10.1.1.1", "10.0.0.7:9411", Ok(())),
            ("127.0.0.1", "localhost", Ok(())),
            ("10.1.1.1", "thumbs.example", Err(FOREIGN_HOST)),
            ("11.1.1.1", "10.0.0.7", Err(FOREIGN_PEER)),
        ] {
            let found = check(&access, Some(peer), &[("host", host)]);
            assert_eq!(found, expected, "{peer} {host}");
        }
        let access = Access {
            networks: None,
            authorize: Some(Box::new(|parts| parts.headers.contains_key("cookie"))),
        };
        assert_eq!(check(&access, None, &[("cookie", "a=b")]), Ok(()));
        assert_eq!(
            check(&access, Some("127.0.0.1"), &[("host", "localhost")]),
            Err(REFUSED)
        );
    }
}
