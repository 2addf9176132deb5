//! Finds the `error.type` of an error: it is named after its cause, anywhere in the chain of sources.

use std::{any::Any, error::Error, io};

use crate::instrument::{DynError, ErrorView, chain, text};

/// Why something could not be fetched, the most specific class last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Connect,
    Tls,
    Dns,
    Timeout,
}

impl Class {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Timeout => "timeout",
        }
    }

    /// The class of an error by the error and its sources.
    ///
    /// `fetching`: the error comes from an HTTP client, so that I/O errors such as "connection refused" are
    /// of class [`Connect`](Self::Connect). Elsewhere they keep the name of their kind.
    pub(crate) fn of(error: &DynError, fetching: bool) -> Option<Self> {
        let connecting = chain(error).any(is_connect);
        let classes = chain(error).filter_map(|cause| classify(cause, connecting, fetching));
        classes.max()
    }
}

/// The error in a value of any type, if that type is known, and the name of the type.
pub(crate) fn as_error<'a>(
    any: &'a dyn Any,
    views: &[ErrorView],
) -> Option<(&'a DynError, Option<&'static str>)> {
    if let Some((error, name)) = views.iter().find_map(|view| view(any)) {
        return Some((error, Some(name)));
    }
    if let Some(boxed) = any.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        return Some((&**boxed, None));
    }
    if let Some(boxed) = any.downcast_ref::<Box<dyn Error>>() {
        return Some((&**boxed, None));
    }
    let known = of_type::<io::Error>(any, "std::io::Error");
    #[cfg(feature = "axum")]
    let known = known.or_else(|| of_type::<axum::Error>(any, "axum::Error"));
    #[cfg(feature = "hyper-client")]
    let known = known
        .or_else(|| {
            use hyper_util::client::legacy::Error;
            of_type::<Error>(any, "hyper_util::client::legacy::Error")
        })
        .or_else(|| of_type::<hyper::Error>(any, "hyper::Error"));
    #[cfg(feature = "reqwest")]
    let known = known.or_else(|| of_type::<reqwest::Error>(any, "reqwest::Error"));
    known.map(|(error, name)| (error, Some(name)))
}

fn of_type<'a, E: Error + 'static>(
    any: &'a dyn Any,
    name: &'static str,
) -> Option<(&'a DynError, &'static str)> {
    let error = any.downcast_ref::<E>()?;
    Some((error, name))
}

/// The name of the I/O error in the chain that is nearest to the cause.
pub(crate) fn io_error_type(error: &DynError) -> Option<&'static str> {
    let io = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.last().map(|io| io_kind(io.kind()))
}

/// The name of I/O errors of all other kinds.
pub(crate) const IO: &str = "io";

fn io_kind(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::ConnectionRefused => "connection_refused",
        io::ErrorKind::ConnectionReset => "connection_reset",
        io::ErrorKind::ConnectionAborted => "connection_aborted",
        io::ErrorKind::BrokenPipe => "broken_pipe",
        io::ErrorKind::UnexpectedEof => "unexpected_eof",
        io::ErrorKind::NotFound => "not_found",
        io::ErrorKind::PermissionDenied => "permission_denied",
        io::ErrorKind::InvalidData => "invalid_data",
        _ => IO,
    }
}

fn classify(cause: &DynError, connecting: bool, fetching: bool) -> Option<Class> {
    use io::ErrorKind::*;
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        match io.kind() {
            TimedOut => return Some(Class::Timeout),
            // A TCP connection begins without data, a TLS session does not.
            InvalidData | UnexpectedEof if connecting => return Some(Class::Tls),
            ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown
            | AddrNotAvailable
                if fetching =>
            {
                return Some(Class::Connect);
            }
            _ => {}
        }
    }
    if is_timeout(cause) {
        return Some(Class::Timeout);
    }
    // These have no public type here: hyper-util's connect error is private, the resolver's is an
    // `io::Error` without a kind, and tower's, tokio's and native-tls's would need a dependency.
    match text(cause, 1024).as_str() {
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
