//! The proxy on the way to the collector.

use std::{fmt, str::FromStr, sync::Arc};

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::env::Variables;
use crate::{
    semconv::{default_port, number},
    telemetry::error::{Consequence, SettingError},
};

/// A proxy, of which `Debug` and `Display` show scheme, host and port, never the password.
///
/// `http://` and `https://` proxies forward plain HTTP and open tunnels for the rest; `socks4://`,
/// `socks4a://`, `socks5://` and `socks5h://` are those of SOCKS. A proxy is reached without TLS.
///
/// ```
/// # use tower_image_trace::telemetry::Proxy;
/// let proxy: Proxy = "http://user:secret@proxy.example:3128".parse()?;
/// assert_eq!(proxy.to_string(), "http://proxy.example:3128");
/// # Ok::<(), tower_image_trace::telemetry::SettingError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    uri: Uri,
    authorization: Option<HeaderValue>,
    credentials: Option<(String, String)>,
}

impl Proxy {
    /// The proxy that the variables name for an endpoint.
    pub(super) fn read(vars: &mut Variables, endpoint: &Uri) -> Option<Self> {
        // A program that a web server runs gets a request's `Proxy` header as HTTP_PROXY (httpoxy).
        let is_cgi = vars.get("REQUEST_METHOD").is_some();
        let names: &[&str] = match endpoint.scheme_str() {
            Some("https") => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
            _ if is_cgi => &["http_proxy", "ALL_PROXY", "all_proxy"],
            _ => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        let (name, value) = vars.first(names)?;
        let (name, value) = (name.to_owned(), value.to_owned());
        let except = vars.first(&["NO_PROXY", "no_proxy"]);
        let except = except.map_or_else(String::new, |(_, list)| list.to_owned());
        if let Err(problem) = Self::parse(&value) {
            vars.warn(SettingError::unusable(name, problem), Consequence::Ignored);
            return None;
        }
        let except = exceptions(&except, endpoint)?;
        let matcher = Matcher::builder().all(value).no(except).build();
        matcher.intercept(endpoint).map(Self::of)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "it is no proxy: expected http://host:port, with user:password@ before \
                                the host if needed, or a URL that starts with socks5://";
        // The matcher takes what it has parsed for any host.
        let matcher = Matcher::builder().all(text.to_owned()).build();
        let any = Uri::from_static("http://collector.example");
        matcher.intercept(&any).map(Self::of).ok_or(EXPECTED)
    }

    fn of(intercept: Intercept) -> Self {
        let credentials = intercept.raw_auth();
        Self(Arc::new(Parts {
            authorization: intercept.basic_auth().cloned(),
            credentials: credentials.map(|(user, password)| (user.to_owned(), password.to_owned())),
            uri: intercept.uri().clone(),
        }))
    }

    /// Without user and password.
    pub(crate) fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// The `Proxy-Authorization`, for proxies of HTTP.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        self.0.authorization.clone()
    }

    /// User and password, for SOCKS.
    pub(crate) fn credentials(&self) -> Option<(String, String)> {
        self.0.credentials.clone()
    }
}

/// The entries of `NO_PROXY` that count for an endpoint, in the forms that the matcher knows: addresses,
/// networks and domains. `None`: no proxy is on the way to the endpoint.
fn exceptions(list: &str, endpoint: &Uri) -> Option<String> {
    let of_scheme = || endpoint.scheme_str().and_then(default_port);
    let port = endpoint.port_u16().or_else(of_scheme).unwrap_or(80);
    let mut entries = Vec::new();
    for entry in list.split(',').map(str::trim) {
        if entry == "*" {
            return None;
        }
        let entry = match entry.rsplit_once(':') {
            // An IPv6 address has a port only behind brackets.
            Some((host, only)) if !host.contains(':') || host.ends_with(']') => {
                match number(only) == Some(port) {
                    true => host,
                    false => continue,
                }
            }
            _ => entry,
        };
        let entry = entry.trim_matches(['[', ']']);
        let is_domain = entry.starts_with("*.");
        entries.push(&entry[usize::from(is_domain)..]);
    }
    Some(entries.join(","))
}

impl FromStr for Proxy {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::parse(text).map_err(|problem| SettingError::unusable("proxy", problem))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri().scheme_str().unwrap_or("http");
        let authority = self
            .uri()
            .authority()
            .map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(vars: &[(&str, &str)], endpoint: &'static str) -> Option<Proxy> {
        let mut vars = Variables::new("", vars.iter().copied());
        Proxy::read(&mut vars, &Uri::from_static(endpoint))
    }

    // faults C14
    #[test]
    fn the_environment_names_the_proxy_of_an_endpoint() {
        let vars = [
            ("HTTP_PROXY", "http://user:secret@proxy.example:3128"),
            ("https_proxy", "socks5h://user:secret@socks.example"),
            ("NO_PROXY", "localhost, .internal"),
        ];
        let http = proxy(&vars, "http://collector:4318/v1/traces").unwrap();
        assert_eq!(http.to_string(), "http://proxy.example:3128");
        let basic = http.authorization().unwrap();
        assert_eq!(basic, "Basic dXNlcjpzZWNyZXQ=");
        let https = proxy(&vars, "https://collector:4317").unwrap();
        assert_eq!(https.to_string(), "socks5h://socks.example");
        let user = ("user".to_owned(), "secret".to_owned());
        assert_eq!(https.credentials(), Some(user));
        for proxy in [http, https] {
            assert!(!format!("{proxy:?}").contains("secret"));
        }
        assert_eq!(proxy(&vars, "http://localhost:4318"), None);
        assert_eq!(proxy(&vars, "https://otel.internal:4317"), None);
        let all = [("ALL_PROXY", "proxy.example:3128")];
        assert!(proxy(&all, "https://collector").is_some());
        let in_cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil")];
        assert_eq!(proxy(&in_cgi, "http://collector"), None);
    }

    // faults C14
    #[test]
    fn no_proxy_names_hosts_networks_domains_and_ports() {
        for (list, endpoint, is_used) in [
            ("", "http://10.0.0.1:4318", true),
            ("*", "http://10.0.0.1:4318", false),
            ("a, *", "http://collector", false),
            ("10.0.0.1", "http://10.0.0.1:4318", false),
            ("10.0.0.1:4318", "http://10.0.0.1:4318", false),
            ("10.0.0.1:4317", "http://10.0.0.1:4318", true),
            ("10.0.0.0/8", "http://10.0.0.1:4318", false),
            ("collector:4318", "http://collector:4318", false),
            ("collector:4318", "http://otel.collector:4318", false),
            ("collector:4317", "http://collector:4318", true),
            ("collector:80", "http://collector", false),
            ("collector:443", "https://collector", false),
            ("collector:http", "http://collector", true),
            ("collector:", "http://collector", true),
            ("collector:+80", "http://collector", true),
            ("*.internal", "http://otel.internal:4318", false),
            ("*.internal:4318", "http://otel.internal:4318", false),
            ("*.internal", "http://internal.example", true),
            (".INTERNAL", "http://otel.internal", false),
            ("2001:db8::1", "http://[2001:db8::1]:4318", false),
            ("[2001:db8::1]", "http://[2001:db8::1]:4318", false),
            ("[2001:db8::1]:4318", "http://[2001:db8::1]:4318", false),
            ("[2001:db8::1]:4317", "http://[2001:db8::1]:4318", true),
            ("2001:db8::/32", "http://[2001:db8::1]:4318", false),
            // This machine is no exception.
            ("", "http://localhost:4318", true),
            ("", "http://127.0.0.1:4318", true),
        ] {
            let vars = [("ALL_PROXY", "proxy.example:3128"), ("NO_PROXY", list)];
            assert_eq!(
                proxy(&vars, endpoint).is_some(),
                is_used,
                "{list}: {endpoint}"
            );
        }
    }

    #[test]
    fn what_is_no_proxy_is_ignored_with_a_warning_that_shows_nothing() {
        let pairs = [("HTTP_PROXY", "ftp://user:s3cret@proxy")];
        let mut vars = Variables::new("", pairs);
        let endpoint = Uri::from_static("http://collector:4318");
        assert_eq!(Proxy::read(&mut vars, &endpoint), None);
        let (errors, warnings) = vars.into_mistakes();
        assert!(errors.is_empty());
        let warning = warnings[0].to_string();
        assert!(
            warning.starts_with("HTTP_PROXY: it is no proxy"),
            "{warning}"
        );
        assert!(!warning.contains("s3cret"), "{warning}");
    }
}
