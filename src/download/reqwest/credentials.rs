//! Headers that are for the origin of a request only.

use http::HeaderMap;
use reqwest::ClientBuilder;

use super::ReqwestError;

/// Those that reqwest removes when a redirect leads to another origin.
const CREDENTIALS: [&str; 5] = [
    "authorization",
    "cookie",
    "cookie2",
    "proxy-authorization",
    "www-authenticate",
];

pub(super) fn remove(headers: &mut HeaderMap) {
    for name in CREDENTIALS {
        headers.remove(name);
    }
}

/// Keeps their values out of `Debug`.
pub(super) fn hide(headers: &mut HeaderMap) {
    for (name, value) in headers {
        if CREDENTIALS.contains(&name.as_str()) {
            value.set_sensitive(true);
        }
    }
}

/// Refuses a builder with credentials among its own default headers. reqwest adds those to every request, so
/// also to one that follows a redirect to another origin.
pub(super) fn refuse(builder: &ClientBuilder) -> Result<(), ReqwestError> {
    // A builder has no getters: only its `Debug` form tells.
    refuse_shown(&format!("{builder:#?}"))
}

fn refuse_shown(builder: &str) -> Result<(), ReqwestError> {
    // No value looks like a field or a header: line breaks in it are escaped, and what is nested deeper is
    // indented further.
    let mut lines = builder.lines();
    if !lines.any(|line| line.starts_with("    default_headers: {")) {
        return Err(ReqwestError::UnknownDefaultHeaders);
    }
    let headers = lines.map_while(|line| line.strip_prefix("        \""));
    let mut names = headers.filter_map(|header| Some(header.split_once("\": ")?.0));
    let found = names.find_map(|name| CREDENTIALS.into_iter().find(|known| *known == name));
    found.map_or(Ok(()), |header| {
        Err(ReqwestError::DefaultCredentials { header })
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(headers: &[(&'static str, HeaderValue)]) -> ClientBuilder {
        let headers = headers.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, value.clone())
        });
        reqwest::Client::builder().default_headers(headers.collect())
    }

    fn refused(builder: &ClientBuilder) -> Option<&'static str> {
        match refuse(builder) {
            Ok(()) => None,
            Err(ReqwestError::DefaultCredentials { header }) => Some(header),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn credentials_are_found_in_what_this_version_of_reqwest_shows() {
        let plain = HeaderValue::from_static("planted");
        let mut sensitive = plain.clone();
        sensitive.set_sensitive(true);
        for name in CREDENTIALS {
            for value in [&plain, &sensitive] {
                let accept = ("accept", HeaderValue::from_static("image/*"));
                let agent = ("user-agent", HeaderValue::from_static("thumbs"));
                let builder = with(&[accept, (name, value.clone()), agent]);
                assert_eq!(refused(&builder), Some(name));
            }
        }
        assert_eq!(refused(&reqwest::Client::builder()), None);
    }

    #[test]
    fn nothing_else_looks_like_credentials() {
        let looks = [
            r#"", "authorization": ""#,
            "\"cookie\": Sensitive,",
            "default_headers: { \"cookie\": x",
        ];
        for value in looks {
            let value = HeaderValue::from_static(value);
            let builder = with(&[("x-authorization", value.clone()), ("x-cookie", value)]);
            assert_eq!(refused(&builder), None);
        }
        let proxy = reqwest::Proxy::all("http://user:planted@proxy.example").expect("a proxy");
        let no_proxy = reqwest::NoProxy::from_string("\n    default_headers: {},\n");
        let proxy = proxy.no_proxy(no_proxy);
        let builder = with(&[("cookie", HeaderValue::from_static("planted"))]).proxy(proxy);
        assert_eq!(refused(&builder), Some("cookie"));
    }

    #[test]
    fn a_builder_that_does_not_show_its_default_headers_is_refused() {
        let without = "ClientBuilder {\n    accepts: Accepts,\n}";
        assert!(matches!(
            refuse_shown(without),
            Err(ReqwestError::UnknownDefaultHeaders)
        ));
        refuse_shown("ClientBuilder {\n    default_headers: {},\n}").expect("no credentials");
    }
}
