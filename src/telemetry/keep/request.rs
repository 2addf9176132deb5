use std::{cell::OnceCell, fmt, time::Duration};

use opentelemetry::Value;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value},
    trace::v1::Span,
};
use prost::Message;

use crate::telemetry::otlp::encode::Fields;

/// A request that has ended, for [`Keep::when`](super::Keep::when).
pub struct EndedRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) duration: Duration,
    pub(crate) failed: bool,
    pub(crate) cancelled: bool,
    /// The root span, encoded.
    pub(crate) entry: &'a [u8],
    pub(crate) decoded: OnceCell<Span>,
}

impl EndedRequest<'_> {
    /// The name of the root span: `{method} {route}`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// The route, as the attribute `http.route` has it.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        match self.attribute_value("http.route")? {
            any_value::Value::StringValue(route) => Some(route),
            _ => None,
        }
    }

    /// The status of the response; `None` if there was none, and for gRPC calls.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.attribute_value("http.response.status_code")? {
            any_value::Value::IntValue(status) => u16::try_from(*status).ok(),
            _ => None,
        }
    }

    /// How long it took, until the last byte of its response.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether its root span or one of its stages has ended with an error.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// Whether it was cancelled.
    #[must_use]
    pub const fn cancelled(&self) -> bool {
        self.cancelled
    }

    /// A text, number or truth value among the attributes of its root span.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<Value> {
        Some(match self.attribute_value(key)? {
            any_value::Value::StringValue(text) => text.clone().into(),
            any_value::Value::BoolValue(value) => (*value).into(),
            any_value::Value::IntValue(number) => (*number).into(),
            any_value::Value::DoubleValue(number) => (*number).into(),
            _ => return None,
        })
    }

    fn attribute_value(&self, key: &str) -> Option<&any_value::Value> {
        let span = self.decoded.get_or_init(|| {
            let message = Fields::new(self.entry).next();
            let message = message.map_or(&[][..], |field| field.value);
            Span::decode(message).unwrap_or_default()
        });
        let mut attributes = span.attributes.iter();
        let found = attributes.find(|attribute| attribute.key == key)?;
        let AnyValue { value } = found.value.as_ref()?;
        value.as_ref()
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
