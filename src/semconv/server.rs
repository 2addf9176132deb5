use std::net::Ipv6Addr;

use http::{HeaderMap, Uri, header};

use crate::intern::{self, Table};

/// RFC 1035 §2.3.4: no name is longer.
const LONGEST_NAME: usize = 255;
const LONGEST_KNOWN: usize = LONGEST_NAME + ":65535".len();

/// Where a client says which server it asked for: in `:authority`, or else in the `Host` header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerText<'a> {
    Authority(&'a str),
    /// Empty: nowhere.
    Host(&'a str),
}

impl<'a> ServerText<'a> {
    pub(crate) fn of(uri: &'a Uri, host: impl FnOnce() -> Option<&'a str>) -> Self {
        match uri.authority() {
            Some(authority) => Self::Authority(authority.as_str()),
            None => Self::Host(host().unwrap_or_default()),
        }
    }

    /// The text, and a name of the place that it stands in.
    pub(crate) fn whole(self) -> (&'a str, &'static str) {
        match self {
            Self::Authority(text) => (text, "authority"),
            Self::Host(text) => (text, "host"),
        }
    }

    /// The [`parts`](Self::parts) of one of the first servers that were asked for.
    #[inline]
    pub(crate) fn known(self) -> Option<&'static Server> {
        Server::known(self.whole().0)
    }

    /// The host and port (semconv http-spans: `server.address`). The brackets of an IPv6 address are not
    /// part of it.
    pub(crate) fn parts(self) -> Option<(&'a str, Option<u16>)> {
        match self {
            Self::Authority(text) => {
                let without_userinfo = text.rsplit_once('@');
                host_and_port(without_userinfo.map_or(text, |(_, host)| host))
            }
            Self::Host(text) => host_and_port(text),
        }
    }
}

/// A server as clients name it: the text, and the host and the port in it.
#[derive(Debug)]
pub(crate) struct Server {
    text: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) port: Option<u16>,
}

/// The first servers that were asked for. A client may invent others, which are read each time.
static SERVERS: Table<Server, 512> = Table::new();

impl Server {
    fn known(text: &str) -> Option<&'static Self> {
        let is_it = |server: &Self| *server.text == *text;
        let hash = intern::hash(text);
        if let Some(known) = SERVERS.get(hash, is_it) {
            return Some(known);
        }
        // A user in front of the host, who may have a password there, is refused and not kept.
        let (host, port) = host_and_port(text).filter(|_| text.len() <= LONGEST_KNOWN)?;
        let make = || Self {
            text: text.into(),
            host: host.into(),
            port,
        };
        SERVERS.find(hash, is_it, make)
    }
}

/// The host and port that the client asked for.
pub(crate) fn server<'a>(
    uri: &'a Uri,
    host: impl FnOnce() -> Option<&'a str>,
) -> Option<(&'a str, Option<u16>)> {
    ServerText::of(uri, host).parts()
}

/// The one `Host` line. A request with several is to be refused (RFC 9112 §3.2), and names no server.
pub(crate) fn host(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::HOST).into_iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    line.to_str().ok()
}

/// The parts of `host [ ":" port ]` (RFC 9110 §7.2) where RFC 3986 §3.2 allows them. A port that is too
/// large is left out.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            (is_name(name).then_some(name)?, port)
        }
    };
    let digits = match port {
        "" => return Some((host, None)),
        port => port.strip_prefix(':')?,
    };
    let is_port = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then(|| (host, digits.parse().ok()))
}

/// RFC 3986 §3.2.2: `reg-name`, which IPv4 addresses are too, and never an empty one (RFC 9110 §4.2.1).
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let is_allowed = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            byte => IS_NAME[usize::from(byte)],
        };
        if !is_allowed {
            return false;
        }
    }
    (1..=LONGEST_NAME).contains(&name.len())
}

/// RFC 3986 §2.2, §2.3: unreserved characters and sub-delimiters.
const IS_NAME: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\''
                | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        byte += 1;
    }
    allowed
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    // faults F9
    #[test]
    fn a_host_that_rfc_3986_does_not_allow_is_no_address() {
        let long = "a".repeat(256);
        for refused in [
            "2001:db8::1",
            "::1",
            "[fe80::1%eth0]",
            "[fe80::1%25eth0]:80",
            "[v1.x]",
            "[]",
            "[::1]x",
            "[::1]80",
            "[127.0.0.1]",
            "user@host",
            "user:password@host:80",
            "host:+80",
            "host:80x",
            "host:80:80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "<script>",
            "kollektör",
            "a%2",
            "a%zz",
            &long,
        ] {
            assert_eq!(host_and_port(refused), None, "{refused:?}");
        }
        for (allowed, expected) in [
            ("my_host.internal", ("my_host.internal", None)),
            ("a%20b", ("a%20b", None)),
            ("127.0.0.1:8080", ("127.0.0.1", Some(8080))),
            ("host:", ("host", None)),
            ("host:0080", ("host", Some(80))),
            ("[::ffff:1.2.3.4]:1", ("::ffff:1.2.3.4", Some(1))),
        ] {
            assert_eq!(host_and_port(allowed), Some(expected), "{allowed:?}");
        }
    }

    proptest! {
        #[test]
        fn an_authority_of_rfc_3986_is_taken_apart(
            host in prop_oneof![
                "([a-zA-Z0-9._~!$&'()*+,;=-]|%[0-9a-fA-F]{2}){1,80}",
                any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
                any::<Ipv6Addr>().prop_map(|address| format!("[{address}]")),
            ],
            port in any::<Option<u16>>(),
        ) {
            let authority = match port {
                Some(port) => format!("{host}:{port}"),
                None => host.clone(),
            };
            let address = host.trim_start_matches('[').trim_end_matches(']');
            prop_assert_eq!(host_and_port(&authority), Some((address, port)));
        }

        #[test]
        fn any_text_is_refused_or_an_address(text in "\\PC{0,40}|[\\[\\]:@%0-9a-f.]{0,40}") {
            if let Some((host, _)) = host_and_port(&text) {
                let is_address = host.parse::<Ipv6Addr>().is_ok();
                prop_assert!(is_address || !host.contains([':', '@', '[', ']', '/', ' ']), "{}", host);
                prop_assert!(text.contains(host) && !host.is_empty());
            }
        }
    }
}
