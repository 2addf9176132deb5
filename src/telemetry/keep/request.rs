use std::{fmt, time::Duration};

use opentelemetry::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use prost::Message;

use crate::telemetry::otlp::encode::{Fields, message};

/// Fields of `Span` and `KeyValue`.
const ATTRIBUTES: u32 = 9;
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// A request that has ended, for [`Keep::when`](super::Keep::when).
pub struct EndedRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) duration: Duration,
    pub(crate) failed: bool,
    pub(crate) cancelled: bool,
    /// The span of the request, encoded.
    pub(crate) entry: &'a [u8],
}

impl EndedRequest<'_> {
    /// The name of its span: `{method} {route}`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// The route, as the attribute `http.route` has it.
    #[must_use]
    pub fn route(&self) -> Option<String> {
        match self.attribute_value("http.route")? {
            any_value::Value::StringValue(route) => Some(route),
            _ => None,
        }
    }

    /// The status of the response; `None` if there was none, and for gRPC calls.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.attribute_value("http.response.status_code")? {
            any_value::Value::IntValue(status) => u16::try_from(status).ok(),
            _ => None,
        }
    }

    /// How long it took, until the last byte of its response.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether its span, or any other that is decided with it, has ended with an error.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// Whether it was cancelled.
    #[must_use]
    pub const fn cancelled(&self) -> bool {
        self.cancelled
    }

    /// A text, number or truth value among the attributes of its span.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<Value> {
        Some(match self.attribute_value(key)? {
            any_value::Value::StringValue(text) => text.into(),
            any_value::Value::BoolValue(value) => value.into(),
            any_value::Value::IntValue(number) => number.into(),
            any_value::Value::DoubleValue(number) => number.into(),
            _ => return None,
        })
    }

    fn attribute_value(&self, key: &str) -> Option<any_value::Value> {
        let attributes =
            Fields::new(message(self.entry)).filter(|field| field.number == ATTRIBUTES);
        let mut values = attributes.filter_map(|attribute| {
            let find = |number| Fields::new(attribute.value).find(|field| field.number == number);
            let is_it = find(KEY).is_some_and(|found| found.value == key.as_bytes());
            is_it.then(|| find(VALUE)).flatten()
        });
        // Keys are unique.
        let value = values.next()?;
        AnyValue::decode(value.value).ok()?.value
    }
}

impl fmt::Debug for EndedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedRequest")
            .field("name", &self.name)
            .field("duration", &self.duration)
            .field("failed", &self.failed)
            .field("cancelled", &self.cancelled)
            .finish_non_exhaustive()
    }
}
