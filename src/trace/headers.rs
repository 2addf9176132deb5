//! The recorded headers: those of an allow-list.

use std::{str::FromStr, sync::Arc};

use http::{HeaderMap, HeaderName, header};
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};

use crate::redact::Redaction;

/// Headers that carry credentials; they are never recorded.
const CREDENTIALS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
];

/// Names of headers that may be recorded, for
/// [`request_headers`](super::ImageTraceLayerBuilder::request_headers) and
/// [`response_headers`](super::ImageTraceLayerBuilder::response_headers).
///
/// ```
/// use tower_image_trace::{ImageTraceLayer, trace::HeaderAllowList};
///
/// let layer = ImageTraceLayer::builder()
///     .request_headers("accept, x-request-id".parse()?)
///     .response_headers(HeaderAllowList::new(["content-type"])?)
///     .build();
/// assert!("cookie".parse::<HeaderAllowList>().is_err());
/// # Ok::<(), tower_image_trace::trace::HeaderAllowListError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderAllowList(Vec<HeaderName>);

impl HeaderAllowList {
    /// A list of these names, in any case.
    ///
    /// # Errors
    ///
    /// An invalid name, and `authorization`, `proxy-authorization`, `cookie` and `set-cookie`.
    pub fn new(
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, HeaderAllowListError> {
        let names = names.into_iter().map(|name| {
            let name = name.as_ref();
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => Err(HeaderAllowListError::Invalid(name.to_owned())),
                Ok(header) if CREDENTIALS.contains(&header) => {
                    Err(HeaderAllowListError::Credentials(header))
                }
                Ok(header) => Ok(header),
            }
        });
        names.collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for HeaderAllowList {
    type Err = HeaderAllowListError;

    /// Names separated by commas; blanks are ignored.
    fn from_str(list: &str) -> Result<Self, HeaderAllowListError> {
        let names = list.split(',').map(str::trim);
        Self::new(names.filter(|name| !name.is_empty()))
    }
}

/// A name that a [`HeaderAllowList`] refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderAllowListError {
    /// No header can have this name.
    #[error("{0:?} is not a header name: expected a token such as x-request-id")]
    Invalid(String),
    /// The header carries credentials.
    #[error("header {0:?} carries credentials and is never recorded: leave it out")]
    Credentials(HeaderName),
}

/// The headers of one kind that a layer records.
#[derive(Debug)]
pub(super) struct RecordedHeaders(Vec<Recorded>);

#[derive(Debug)]
struct Recorded {
    name: HeaderName,
    http: Key,
    rpc: Key,
}

impl RecordedHeaders {
    /// `kind` is `request` or `response`.
    pub(super) fn new(kind: &str, list: HeaderAllowList) -> Option<Self> {
        let key = |key: String| Key::from(Arc::<str>::from(key));
        let recorded = list.0.into_iter().map(|name| Recorded {
            http: key(format!("http.{kind}.header.{name}")),
            rpc: key(format!("rpc.{kind}.metadata.{name}")),
            name,
        });
        let recorded: Vec<_> = recorded.collect();
        (!recorded.is_empty()).then_some(Self(recorded))
    }

    /// One attribute for each recorded header that is present: the array of its lines.
    pub(super) fn attributes(
        &self,
        headers: &HeaderMap,
        is_rpc: bool,
        redaction: &Redaction,
    ) -> impl Iterator<Item = KeyValue> {
        self.0.iter().filter_map(move |recorded| {
            let lines = headers.get_all(&recorded.name).into_iter();
            let lines: Vec<StringValue> = lines
                .map(|line| {
                    let line = String::from_utf8_lossy(line.as_bytes());
                    redaction.message(&line).into_owned().into()
                })
                .collect();
            let key = if is_rpc {
                &recorded.rpc
            } else {
                &recorded.http
            };
            (!lines.is_empty())
                .then(|| KeyValue::new(key.clone(), Value::Array(Array::String(lines))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_names_without_credentials() {
        let list: HeaderAllowList = "Accept, x-request-id,,".parse().unwrap();
        assert_eq!(
            list.0,
            [header::ACCEPT, HeaderName::from_static("x-request-id")]
        );
        for refused in [
            "Authorization",
            "proxy-authorization",
            "cookie",
            "Set-Cookie",
        ] {
            let error = HeaderAllowList::new(["accept", refused]).unwrap_err();
            assert!(matches!(error, HeaderAllowListError::Credentials(_)));
            assert!(
                error.to_string().contains(&refused.to_lowercase()),
                "{error}"
            );
        }
        assert_eq!(
            HeaderAllowList::new(["x y"]),
            Err(HeaderAllowListError::Invalid("x y".to_owned()))
        );
    }
}
