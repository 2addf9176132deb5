use bytes::Buf;
use http::{Response, StatusCode};
use opentelemetry::StringValue;

use super::Said;
use crate::{intern, semconv::content_length};

/// Whose span tells of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// How much of a response was passed on to its consumer. It decides, for both sides, whether a response
/// that is dropped was cancelled, and whether it was an error:
///
/// - An error status stays an error, whatever happens to the body.
/// - A server's response is cancelled when it is dropped before its end, whatever its status is: its
///   client has left, or something else is sent in its place.
/// - So is a client's, unless it is a redirect or an error: who wants the picture need not read these.
#[derive(Debug)]
pub(crate) struct Delivery {
    side: Side,
    /// `None` until the response is there.
    pub(crate) status: Option<StatusCode>,
    /// The bytes of the body, so far.
    pub(crate) bytes: u64,
    /// The bytes that the consumer of the body asks for at most; `u64::MAX` when that is unknown.
    announced: u64,
}

impl Delivery {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            status: None,
            bytes: 0,
            announced: u64::MAX,
        }
    }

    /// The response is there. Returns whether its head is all of it, as that of a `bodiless` one is.
    pub(crate) fn head<B>(&mut self, response: &Response<B>, body: Said, bodiless: bool) -> bool {
        self.status = Some(response.status());
        let length = || {
            body.exact_size
                .or_else(|| content_length(response.headers()))
        };
        self.announced = match bodiless {
            true => 0,
            false => length().unwrap_or(u64::MAX),
        };
        bodiless || body.is_end
    }

    /// The consumer reads on when it has all bytes, because trailers follow.
    pub(crate) fn awaits_trailers(&mut self) {
        self.announced = u64::MAX;
    }

    pub(crate) fn data(&mut self, data: &impl Buf) {
        self.bytes += data.remaining() as u64;
    }

    /// Whether a response that is dropped now was passed on as far as its consumer wants it.
    pub(crate) fn is_complete(&self) -> bool {
        // The consumer may not poll again when the announced length is out (hyper does not).
        let Some(status) = self.status else {
            return false;
        };
        self.bytes >= self.announced || (self.side == Side::Client && !status.is_success())
    }

    /// `error.type` of the status (semconv http-spans: Status).
    pub(crate) fn error_type(&self) -> Option<StringValue> {
        let is_error = |status: &StatusCode| match self.side {
            Side::Server => status.is_server_error(),
            Side::Client => status.is_client_error() || status.is_server_error(),
        };
        let error = self.status.filter(is_error)?;
        Some(intern::text(error.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // faults A3, F10
    #[test]
    fn an_error_stays_one_and_who_must_read_it_to_the_end() {
        for (status, server, client) in [
            (200, (false, None), (false, None)),
            (302, (false, None), (true, None)),
            (404, (false, None), (true, Some("404"))),
            (503, (false, Some("503")), (true, Some("503"))),
        ] {
            for (side, expected) in [(Side::Server, server), (Side::Client, client)] {
                let mut delivery = Delivery::new(side);
                assert!(!delivery.is_complete());
                let response = Response::builder().status(status).body(()).unwrap();
                assert!(!delivery.head(&response, Said::default(), false));
                let error = delivery.error_type();
                let error = error.as_ref().map(StringValue::as_str);
                assert_eq!(
                    (delivery.is_complete(), error),
                    expected,
                    "{side:?} {status}"
                );
            }
        }
    }
}
