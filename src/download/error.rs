//! Classifies an error of a client by the error and its sources.

use std::{any::Any, error::Error, fmt, io, iter};

use crate::{
    instrument::ErrorView,
    request::{ErrorReport, io_error_type},
};

type DynError = dyn Error + 'static;

/// Why a source could not be fetched, the most specific class last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Connect,
    Tls,
    Dns,
    Timeout,
}

impl Class {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Timeout => "timeout",
        }
    }
}

/// The report on an error of the client, or of a response's body.
pub(super) fn report<E: fmt::Display + 'static>(
    error: &E,
    views: &[ErrorView],
    in_body: bool,
) -> ErrorReport {
    let Some((error, name)) = as_error(error, views) else {
        let mut report = ErrorReport::of_any(error);
        if in_body {
            report.error_type = "body".into();
        }
        return report;
    };
    let mut report = ErrorReport::of(error, name);
    if let Some(error_type) = error_type(error, in_body) {
        report.error_type = error_type.into();
    }
    report
}

/// The error as an [`Error`], if its type is known, and the name of that type.
fn as_error<'a>(
    any: &'a dyn Any,
    views: &[ErrorView],
) -> Option<(&'a DynError, Option<&'static str>)> {
    if let Some((error, name)) = views.iter().find_map(|view| view(any)) {
        return Some((error, Some(name)));
    }
    #[cfg(feature = "hyper-client")]
    {
        if let Some(error) = any.downcast_ref::<hyper_util::client::legacy::Error>() {
            return Some((error, Some("hyper_util::client::legacy::Error")));
        }
        if let Some(error) = any.downcast_ref::<hyper::Error>() {
            return Some((error, Some("hyper::Error")));
        }
    }
    if let Some(error) = any.downcast_ref::<io::Error>() {
        return Some((error, None));
    }
    let boxed = any.downcast_ref::<Box<dyn Error + Send + Sync>>()?;
    Some((&**boxed, None))
}

/// The low-cardinality `error.type`, when there is a better one than the type's name.
fn error_type(error: &DynError, in_body: bool) -> Option<&'static str> {
    let connecting = chain(error).any(is_connect);
    let class = chain(error)
        .filter_map(|cause| classify(cause, connecting))
        .max();
    match class {
        Some(Class::Timeout) => Some(Class::Timeout.as_str()),
        _ if in_body => Some("body"),
        Some(class) => Some(class.as_str()),
        None => chain(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .last()
            .map(|io| io_error_type(io.kind())),
    }
}

/// The error and its sources. The source of an I/O error is the error in it, which `source()` skips.
fn chain(error: &DynError) -> impl Iterator<Item = &DynError> {
    iter::successors(Some(error), |&error| {
        let io = error.downcast_ref::<io::Error>();
        match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

fn classify(cause: &DynError, connecting: bool) -> Option<Class> {
    use io::ErrorKind::*;
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        match io.kind() {
            TimedOut => return Some(Class::Timeout),
            // A TCP connection begins without data, a TLS session does not.
            InvalidData | UnexpectedEof if connecting => return Some(Class::Tls),
            ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown
            | AddrNotAvailable => return Some(Class::Connect),
            _ => {}
        }
    }
    if is_timeout(cause) {
        return Some(Class::Timeout);
    }
    // These have no public type here: hyper-util's connect error is private, the resolver's is an
    // `io::Error` without a kind, and tower's, tokio's and native-tls's would need a dependency.
    match cause.to_string().as_str() {
        "request timed out" | "deadline has elapsed" | "operation timed out" => {
            Some(Class::Timeout)
        }
        "dns error" => Some(Class::Dns),
        text if text.starts_with("failed to lookup address information") => Some(Class::Dns),
        text if text.contains("SSL routines") => Some(Class::Tls),
        _ => is_connect(cause).then_some(Class::Connect),
    }
}

#[cfg(feature = "hyper-client")]
fn is_connect(cause: &DynError) -> bool {
    cause
        .downcast_ref::<hyper_util::client::legacy::Error>()
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
}

#[cfg(not(feature = "hyper-client"))]
fn is_connect(_: &DynError) -> bool {
    false
}

#[cfg(feature = "hyper-client")]
fn is_timeout(cause: &DynError) -> bool {
    cause
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_timeout)
}

#[cfg(not(feature = "hyper-client"))]
fn is_timeout(_: &DynError) -> bool {
    false
}

#[cfg(test)]
mod tests {
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
                let report = report(&error, &[], is_in_body);
                assert_eq!(report.error_type.as_str(), expected, "{error:?}");
            }
        }
    }

    #[test]
    fn errors_of_which_only_the_text_is_known_have_their_type() {
        let report = |in_body| report(&"broken", &[], in_body);
        assert_eq!(report(false).error_type.as_str(), "&str");
        assert_eq!(report(true).error_type.as_str(), "body");
        assert_eq!(report(true).message.as_str(), "broken");
    }
}
