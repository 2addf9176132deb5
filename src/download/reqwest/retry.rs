//! Which requests are sent again because the server has not processed them.

use h2::Reason;

use crate::instrument::chain;

/// Whether an HTTP/2 server says that it has not processed the request (RFC 9113 §8.7). After a GOAWAY that is so
/// for the requests that fail with it: the server still answers the others.
pub(super) fn is_unprocessed(error: &reqwest::Error) -> bool {
    let mut causes = chain(error).filter_map(|cause| cause.downcast_ref::<h2::Error>());
    causes.any(|error| {
        let expected = if error.is_go_away() {
            Reason::NO_ERROR
        } else {
            Reason::REFUSED_STREAM
        };
        error.is_remote() && error.reason() == Some(expected)
    })
}
