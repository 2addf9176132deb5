//! URLs without what must not be seen: credentials and signatures.

use std::borrow::Cow;

/// The query keys whose values semconv (registry `url.query`) redacts by default. Case-sensitive.
const SENSITIVE_KEYS: [&str; 5] = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "sig",
    "X-Goog-Signature",
];

const REDACTED: &str = "REDACTED";

/// A query string with the values of sensitive keys replaced.
pub(crate) fn query(query: &str) -> Cow<'_, str> {
    let sensitive = |pair: &str| {
        pair.split_once('=')
            .is_some_and(|(key, _)| SENSITIVE_KEYS.contains(&key))
    };
    if !query.split('&').any(sensitive) {
        return Cow::Borrowed(query);
    }
    let mut redacted = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            redacted.push('&');
        }
        match pair.split_once('=') {
            Some((key, _)) if SENSITIVE_KEYS.contains(&key) => {
                redacted.push_str(key);
                redacted.push('=');
                redacted.push_str(REDACTED);
            }
            _ => redacted.push_str(pair),
        }
    }
    Cow::Owned(redacted)
}

/// A URL with its userinfo and the values of sensitive query keys replaced, and without its fragment.
pub(crate) fn url(url: &str) -> Cow<'_, str> {
    let without_fragment = url.split_once('#').map_or(url, |(url, _)| url);
    let (before_query, query_string) = match without_fragment.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (without_fragment, None),
    };
    let (start, end) = authority(before_query).unwrap_or((0, 0));
    let userinfo = before_query[start..end].rfind('@');
    let query = query_string.map(query);
    if userinfo.is_none() && !matches!(query, Some(Cow::Owned(_))) {
        return Cow::Borrowed(without_fragment);
    }
    let mut redacted = String::with_capacity(url.len());
    match userinfo {
        Some(at) => {
            redacted.push_str(&before_query[..start]);
            // Semconv url.full: `https://REDACTED:REDACTED@host/`.
            redacted.push_str("REDACTED:REDACTED");
            redacted.push_str(&before_query[start + at..]);
        }
        None => redacted.push_str(before_query),
    }
    if let Some(query) = query {
        redacted.push('?');
        redacted.push_str(&query);
    }
    Cow::Owned(redacted)
}

/// `scheme://host[:port]` of an absolute URL.
pub(crate) fn origin(url: &str) -> Option<String> {
    let end_of_authority = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end_of_authority];
    let (start, end) = authority(url)?;
    let host = &url[start..end];
    let host = host.rfind('@').map_or(host, |at| &host[at + 1..]);
    (!host.is_empty()).then(|| format!("{}{host}", &url[..start]))
}

/// Where the authority of an absolute URL starts and ends (RFC 3986 §3.2).
fn authority(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + 3;
    let end = url[start..]
        .find('/')
        .map_or(url.len(), |length| start + length);
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_replaced_and_their_keys_kept() {
        let cases = [
            ("", ""),
            ("w=300&h=200", "w=300&h=200"),
            ("sig=abc", "sig=REDACTED"),
            ("w=1&sig=abc%3D&h=2", "w=1&sig=REDACTED&h=2"),
            (
                "X-Amz-Signature=a&X-Amz-Credential=b&X-Amz-Security-Token=c&X-Goog-Signature=d",
                "X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED&X-Goog-Signature=REDACTED",
            ),
            ("sig=a=b&sig=c", "sig=REDACTED&sig=REDACTED"),
            ("SIG=kept&design=kept&sig", "SIG=kept&design=kept&sig"),
        ];
        for (given, expected) in cases {
            assert_eq!(query(given), expected, "{given}");
        }
    }

    #[test]
    fn urls_lose_credentials_signatures_and_fragments() {
        let cases = [
            (
                "https://cdn.example/cat.jpg",
                "https://cdn.example/cat.jpg",
                Some("https://cdn.example"),
            ),
            (
                "https://user:pass@cdn.example:8443/cat.jpg?sig=x#frag",
                "https://REDACTED:REDACTED@cdn.example:8443/cat.jpg?sig=REDACTED",
                Some("https://cdn.example:8443"),
            ),
            (
                "http://a@b@[::1]:80?q=@",
                "http://REDACTED:REDACTED@[::1]:80?q=@",
                Some("http://[::1]:80"),
            ),
            (
                "s3://bucket/key@2x.png",
                "s3://bucket/key@2x.png",
                Some("s3://bucket"),
            ),
            ("local/cat.jpg?sig=x", "local/cat.jpg?sig=REDACTED", None),
            ("https:///nohost", "https:///nohost", None),
            ("?://", "?://", None),
            ("", "", None),
        ];
        for (given, expected, expected_origin) in cases {
            assert_eq!(url(given), expected, "{given}");
            assert_eq!(origin(given).as_deref(), expected_origin, "{given}");
        }
    }
}
