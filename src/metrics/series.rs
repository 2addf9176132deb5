use std::time::Duration;

use arrayvec::ArrayVec;
use http::StatusCode;
use opentelemetry::{KeyValue, StringValue};

use super::active::ActiveSeries;
use crate::attribute::ERROR_TYPE;

/// The attributes of a finished request's measurements. None of them can be invented by a client: no
/// path, host, or unknown method.
#[derive(Debug)]
pub(crate) struct RequestSeries<'a> {
    pub(crate) active: ActiveSeries,
    pub(crate) protocol_version: &'static str,
    /// `None`: the request was never answered.
    pub(crate) status: Option<StatusCode>,
    pub(crate) route: Option<&'a StringValue>,
    pub(crate) error_type: Option<&'a StringValue>,
}

/// The attributes of a measurement, with those of the service. Of several with one key the first counts.
///
/// Attributes are in the order of their keys, and so is the result: in another order the SDK keeps a series
/// twice.
pub(crate) fn labelled<'a>(
    attributes: impl IntoIterator<Item = KeyValue>,
    labels: impl IntoIterator<Item = &'a KeyValue>,
) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(12);
    all.extend(attributes);
    for label in labels {
        if let Err(place) = all.binary_search_by(|other: &KeyValue| other.key.cmp(&label.key)) {
            all.insert(place, label.clone());
        }
    }
    all
}

/// What one finished request adds to the metrics.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) duration: Duration,
    /// Until the head of the response, if that is measured and there was one.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) request_body: Option<u64>,
    pub(crate) response_body: Option<u64>,
}

impl RequestSeries<'_> {
    /// In the order of their keys, which the SDK finds at once.
    pub(super) fn attributes(&self) -> ArrayVec<KeyValue, 6> {
        let status = self.status.map(|status| i64::from(status.as_u16()));
        let [method, scheme] = self.active.attributes();
        let mut attributes = ArrayVec::new();
        attributes.extend(
            self.error_type
                .map(|kind| KeyValue::new(ERROR_TYPE, kind.clone())),
        );
        attributes.push(method);
        attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
        attributes.extend(
            self.route
                .map(|route| KeyValue::new("http.route", route.clone())),
        );
        attributes.push(KeyValue::new(
            "network.protocol.version",
            self.protocol_version,
        ));
        attributes.push(scheme);
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SDK keeps a series twice whose attributes are in another order.
    #[test]
    fn attributes_are_in_the_order_of_their_keys() {
        let text = StringValue::from("text");
        let series = RequestSeries {
            active: ActiveSeries {
                method: "GET",
                scheme: "https",
            },
            protocol_version: "1.1",
            status: Some(StatusCode::OK),
            route: Some(&text),
            error_type: Some(&text),
        };
        let labels = [
            KeyValue::new("zone", "first"),
            KeyValue::new("http.route", "another"),
            KeyValue::new("tenant", "a"),
            KeyValue::new("zone", "second"),
        ];
        let all = labelled(series.attributes(), &labels);
        let all: Vec<_> = all
            .iter()
            .map(|it| (it.key.as_str(), it.value.as_str()))
            .collect();
        assert!(all.is_sorted_by_key(|(key, _)| *key), "{all:?}");
        assert_eq!(all.len(), 8, "{all:?}");
        for expected in [("zone", "first"), ("http.route", "text"), ("tenant", "a")] {
            let expected = (expected.0, expected.1.into());
            assert!(all.contains(&expected), "{expected:?} {all:?}");
        }
    }
}
