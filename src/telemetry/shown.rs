//! Settings as errors and the line at the start show them.

use std::borrow::Cow;

/// An endpoint as it may be shown: without user, password, query and fragment, and of its path only
/// what OTLP itself prescribes. Tokens of collectors stand in any of these.
///
/// Text that is not an endpoint may be a secret in the wrong place, so only what looks like a scheme
/// and a host is shown.
pub(crate) fn without_secrets(endpoint: &str) -> String {
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            (format!("{scheme}://"), rest)
        }
        Some(_) => return "…".to_owned(),
        None => (String::new(), endpoint),
    };
    // A password may hold every character, so nothing beside an `@` is certain.
    if rest.contains('@') {
        return format!("{scheme}…");
    }
    let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    let host = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if !authority.bytes().all(host) {
        return format!("{scheme}…");
    }
    let prescribed = ["", "/", "/v1/traces", "/v1/metrics", "/v1/logs"];
    let path = match path {
        path if prescribed.contains(&path) => path,
        _ => "/…",
    };
    format!("{scheme}{authority}{path}")
}

/// A value that is not accepted, as errors show it: a URL in it without secrets. It may be the value of
/// another setting in the wrong place.
pub(super) fn value(value: &str) -> Cow<'_, str> {
    // Only a URL has a user or a query.
    if value.contains(['@', '?']) {
        return "…".into();
    }
    let Some(scheme_end) = value.find("://") else {
        return value.into();
    };
    let start = value[..scheme_end].rfind('=').map_or(0, |at| at + 1);
    let (before, url) = value.split_at(start);
    format!("{before}{}", without_secrets(url)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // faults C16, F13
    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (endpoint, shown) in [
            ("collector:4317", "collector:4317"),
            (
                "http://collector:4318/v1/traces",
                "http://collector:4318/v1/traces",
            ),
            ("ftp://collector", "ftp://collector"),
            ("http://[::1]:4318/", "http://[::1]:4318/"),
            ("https://c/s3cret/v1/traces", "https://c/…"),
            ("https://c/v1/traces?key=s3cret", "https://c/…"),
            ("https://c?key=s3cret", "https://c/…"),
            ("https://c#key=s3cret", "https://c/…"),
            ("https://user:s3cret@c", "https://…"),
            ("https://user:s3?cret@c", "https://…"),
            ("https://user:s3/cret@c", "https://…"),
            ("https://c?mail=s3cret@s3cret", "https://…"),
            ("user:s3cret@c:4317", "…"),
            ("s3cret s3cret=", "…"),
            ("Bearer s3cret://c", "…"),
        ] {
            assert_eq!(without_secrets(endpoint), shown, "{endpoint}");
        }
    }

    // faults C16, F13
    #[test]
    fn a_url_in_a_value_shows_no_secret() {
        for (given, shown) in [
            ("0.25", "0.25"),
            (
                "xray=endpoint=https://c:2000",
                "xray=endpoint=https://c:2000",
            ),
            ("endpoint=http://c/s3cret,rate=1", "endpoint=http://c/…"),
            ("endpoint=http://c,token=s3cret", "endpoint=http://…"),
            ("endpoint=http://c/?token=s3cret", "…"),
            ("endpoint=http://user:s3cret@c", "…"),
            ("user:s3cret@c", "…"),
            ("https://c/…", "https://c/…"),
            ("https://…", "https://…"),
        ] {
            assert_eq!(value(given), shown, "{given}");
        }
    }
}
