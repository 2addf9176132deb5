use http::Uri;

/// The host and port that the client asked for: `:authority`, or else the `Host` header (semconv
/// http-spans: `server.address`). The brackets of an IPv6 address are not part of it.
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

/// Host and port of an authority (RFC 3986 §3.2), without userinfo.
pub(crate) fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
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
}
