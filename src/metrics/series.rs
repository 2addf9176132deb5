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
    pub(crate) active: ActiveSeries<'a>,
    pub(crate) protocol_version: &'static str,
    /// `None`: the request was never answered.
    pub(crate) status: Option<StatusCode>,
    pub(crate) route: Option<&'a StringValue>,
    pub(crate) error_type: Option<&'a StringValue>,
}

/// The attributes of a measurement, with those of the service. The service's do not replace others.
pub(crate) fn labelled(
    attributes: impl IntoIterator<Item = KeyValue>,
    labels: &[KeyValue],
) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(8 + labels.len());
    all.extend(attributes);
    let own = all.len();
    for label in labels {
        if all[..own].iter().all(|other| other.key != label.key) {
            all.push(label.clone());
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
    /// In one fixed order, which makes the SDK's lookup cheap.
    pub(super) fn attributes(&self) -> ArrayVec<KeyValue, 6> {
        let status = self.status.map(|status| i64::from(status.as_u16()));
        let mut attributes: ArrayVec<_, 6> = self.active.attributes().into_iter().collect();
        attributes.push(KeyValue::new(
            "network.protocol.version",
            self.protocol_version,
        ));
        attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
        attributes.extend(
            self.route
                .map(|route| KeyValue::new("http.route", route.clone())),
        );
        attributes.extend(
            self.error_type
                .map(|kind| KeyValue::new(ERROR_TYPE, kind.clone())),
        );
        attributes
    }
}
