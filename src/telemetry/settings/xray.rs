//! Where the sampling rules of X-Ray come from, as plain data.

use std::{fmt, time::Duration};

use http::Uri;

use crate::telemetry::shown::without_secrets;

/// The service on a local address from which the sampling rules of X-Ray come:
/// [`Sampler::Xray`](super::Sampler::Xray).
///
/// ```
/// use std::time::Duration;
/// use tower_image_trace::telemetry::{Sampler, XrayRules};
///
/// let mut rules = XrayRules::default(); // http://127.0.0.1:2000, every 300 s
/// rules.polling_interval = Duration::from_secs(60);
/// let sampler = Sampler::Xray(rules);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct XrayRules {
    /// The X-Ray daemon, the CloudWatch agent, or a collector with the extension `awsproxy`: a URL that
    /// starts with `http://`.
    pub endpoint: Uri,
    /// How often the rules are asked for. The quotas of this process are asked for every 10 s, or as often
    /// as X-Ray says.
    pub polling_interval: Duration,
}

/// What the argument of the sampler may be.
pub(super) const ARGUMENT: &str =
    "endpoint=http://host:port,polling_interval=seconds, or one of the two";
/// What an endpoint has to be.
pub(super) const ENDPOINT: &str =
    "a URL that starts with http:// and has no user name, password or query";

impl XrayRules {
    /// The rules of the service at `endpoint`, asked for every 300 s.
    #[must_use]
    pub const fn new(endpoint: Uri) -> Self {
        Self {
            endpoint,
            polling_interval: Duration::from_secs(300),
        }
    }

    /// The form of `OTEL_TRACES_SAMPLER_ARG`. What is left out is the default.
    pub(super) fn parse(argument: &str) -> Option<Self> {
        let mut rules = Self::default();
        for part in argument.split(',').map(str::trim) {
            match part.split_once('=')? {
                ("endpoint", url) => rules.endpoint = url.parse().ok()?,
                ("polling_interval", seconds) => {
                    let seconds = seconds.parse::<u32>().ok()?;
                    rules.polling_interval = Duration::from_secs(seconds.into());
                }
                _ => return None,
            }
        }
        let is_valid = rules.has_valid_endpoint() && !rules.polling_interval.is_zero();
        is_valid.then_some(rules)
    }

    pub(super) fn has_valid_endpoint(&self) -> bool {
        let authority = self.endpoint.authority();
        self.endpoint.scheme_str() == Some("http")
            && authority.is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'))
            && self.endpoint.query().is_none()
    }
}

impl Default for XrayRules {
    fn default() -> Self {
        Self::new(Uri::from_static("http://127.0.0.1:2000"))
    }
}

impl fmt::Display for XrayRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = without_secrets(&self.endpoint.to_string());
        let seconds = self.polling_interval.as_secs();
        write!(f, "endpoint={endpoint},polling_interval={seconds}")
    }
}

impl fmt::Debug for XrayRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XrayRules({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_has_an_endpoint_an_interval_or_both() {
        for (argument, expected) in [
            (
                "endpoint=http://localhost:2000,polling_interval=360",
                "endpoint=http://localhost:2000/,polling_interval=360",
            ),
            (
                "polling_interval=5, endpoint=http://[::1]:2001",
                "endpoint=http://[::1]:2001/,polling_interval=5",
            ),
            (
                "polling_interval=10",
                "endpoint=http://127.0.0.1:2000/,polling_interval=10",
            ),
            (
                "endpoint=http://xray.internal",
                "endpoint=http://xray.internal/,polling_interval=300",
            ),
        ] {
            let rules = XrayRules::parse(argument).map(|rules| rules.to_string());
            assert_eq!(rules.as_deref(), Some(expected), "{argument}");
        }
        for argument in [
            "",
            "0.25",
            "http://localhost:2000",
            "endpoint=localhost:2000",
            "endpoint=https://localhost:2000",
            "endpoint=http://",
            "endpoint=http://user:secret@localhost:2000",
            "endpoint=http://localhost:2000?region=eu",
            "polling_interval=0",
            "polling_interval=-1",
            "polling_interval=10s",
            "polling_interval=99999999999",
            "endpoint=http://localhost:2000,",
            "endpoint=http://localhost:2000,rate=1",
        ] {
            assert_eq!(XrayRules::parse(argument), None, "{argument}");
        }
    }
}
