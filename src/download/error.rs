use std::fmt;

use crate::{
    instrument::{ErrorView, TextRules},
    request::{Class, ErrorReport, as_error, io_error_type},
};

/// The report on an error of the client, or of a response's body.
pub(super) fn report<E: fmt::Display + 'static>(
    error: &E,
    views: &[ErrorView],
    in_body: bool,
    texts: &TextRules,
) -> ErrorReport {
    let Some((error, name)) = as_error(error, views) else {
        let mut report = ErrorReport::of_text(error, texts);
        if in_body {
            report.error_type = "body".into();
        }
        return report;
    };
    let mut report = ErrorReport::of(error, name, texts);
    let error_type = match Class::of(error, true) {
        Some(Class::Timeout) => Some(Class::Timeout.as_str()),
        _ if in_body => Some("body"),
        Some(class) => Some(class.as_str()),
        None => io_error_type(error),
    };
    if let Some(error_type) = error_type {
        report.error_type = error_type.into();
    }
    report
}

#[cfg(test)]
mod tests {
    use std::{error::Error, io};

    use super::*;

    type BoxError = Box<dyn Error + Send + Sync>;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Because(&'static str, #[source] BoxError);

    fn because(text: &'static str, source: impl Into<BoxError>) -> BoxError {
        Because(text, source.into()).into()
    }

    #[test]
    fn the_cause_decides_wherever_it_is_in_the_chain() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let lookup = "failed to lookup address information: Name or service not known";
        for (error, in_head, in_body) in [
            (because("dns error", "no such name"), "dns", "body"),
            (because("connect", io::Error::other(lookup)), "dns", "body"),
            (
                because("connect", io(io::ErrorKind::ConnectionRefused)),
                "connect",
                "body",
            ),
            (
                io::Error::other(because("connect", io(io::ErrorKind::HostUnreachable))).into(),
                "connect",
                "body",
            ),
            (
                because("connect", io(io::ErrorKind::TimedOut)),
                "timeout",
                "timeout",
            ),
            (
                because("dns error", io(io::ErrorKind::TimedOut)),
                "timeout",
                "timeout",
            ),
            (
                because("load", tower::timeout::error::Elapsed::new()),
                "timeout",
                "timeout",
            ),
            (
                because("connect", "error:0A000086:SSL routines::verify failed"),
                "tls",
                "body",
            ),
            (
                because("read", io(io::ErrorKind::ConnectionReset)),
                "connection_reset",
                "body",
            ),
            // Not while connecting: a broken picture is no broken handshake.
            (
                because("decode", io(io::ErrorKind::InvalidData)),
                "invalid_data",
                "body",
            ),
            (because("strange", "really"), "_OTHER", "body"),
        ] {
            for (is_in_body, expected) in [(false, in_head), (true, in_body)] {
                let report = report(&error, &[], is_in_body, &TextRules::default());
                assert_eq!(report.error_type.as_str(), expected, "{error:?}");
            }
        }
    }

    #[test]
    fn errors_of_which_only_the_text_is_known_have_their_type() {
        let report = |in_body| report(&"broken", &[], in_body, &TextRules::default());
        assert_eq!(report(false).error_type.as_str(), "&str");
        assert_eq!(report(true).error_type.as_str(), "body");
        assert_eq!(report(true).message.as_str(), "broken");
    }
}
