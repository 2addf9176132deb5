use std::{fmt, str::FromStr};

use http::{Uri, uri::Authority};

use crate::{redact, semconv::default_port};

/// Scheme, host and port of a server (RFC 6454): `https://images.internal:8443`.
///
/// Two are equal when they mean the same: the host in any case, the port of the scheme (80, 443)
/// written or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// The text is not an [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an origin: http://host, https://host, or one of these with a port")]
pub struct OriginError(/* without secrets */ String);

impl Origin {
    /// The origin of an absolute `http` or `https` URI.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        Some(Self {
            port: port(uri.authority()?, scheme)?,
            scheme: scheme.to_owned(),
            host: uri.host()?.to_ascii_lowercase(),
        })
    }
}

/// The port that an authority means; `None` where no port has the number, such as 99999.
fn port(authority: &Authority, scheme: &str) -> Option<u16> {
    let without_userinfo = authority.as_str().rsplit('@').next()?;
    match without_userinfo.strip_prefix(authority.host())? {
        // RFC 3986 §6.2.3: an empty port is the default one, too.
        "" | ":" => default_port(scheme),
        _ => authority.port_u16(),
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri = text.parse::<Uri>().ok().filter(|uri| {
            let is_http = uri.scheme_str().and_then(default_port).is_some();
            let has_userinfo = uri.authority().is_some_and(|it| it.as_str().contains('@'));
            is_http && !has_userinfo && uri.path() == "/" && uri.query().is_none()
        });
        uri.as_ref()
            .and_then(Self::of)
            .ok_or_else(|| OriginError(redact::url(text).into_owned()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if default_port(&self.scheme) != Some(self.port) {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_origins() {
        for (text, expected) in [
            ("https://images.internal", Some("https://images.internal")),
            (
                "HTTPS://Images.Internal:443/",
                Some("https://images.internal"),
            ),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("http://images.internal:", Some("http://images.internal")),
            (
                "http://images.internal:65535",
                Some("http://images.internal:65535"),
            ),
            // Not the default port, which is another origin.
            ("http://images.internal:65536", None),
            ("http://[::1]:99999", None),
            ("http://images.internal:80x", None),
            ("https://images.internal/cats", None),
            ("https://images.internal?x", None),
            ("https://user:secret@images.internal", None),
            ("s3://bucket", None),
            ("images.internal", None),
            ("images.internal:8080", None),
            ("/", None),
            ("", None),
        ] {
            let origin = text.parse::<Origin>().ok().map(|it| it.to_string());
            assert_eq!(origin.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_error_names_the_value_without_its_password() {
        let error = "https://user:secret@images.internal".parse::<Origin>();
        assert_eq!(
            error.unwrap_err().to_string(),
            "\"https://REDACTED:REDACTED@images.internal\" is not an origin: \
             http://host, https://host, or one of these with a port"
        );
    }
}
