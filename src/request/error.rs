use std::{any::Any, borrow::Cow, error::Error, fmt, io};

use opentelemetry::{KeyValue, StringValue};

use crate::{attribute::ERROR_TYPE, redact::Redaction};

/// What went wrong: the `type` of `errors_total`, with imgproxy's names for the phases of an image
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `queue`: the request could not be queued, or waited too long.
    Queue,
    /// `download`: the source could not be fetched.
    Download,
    /// `processing`: the image could not be decoded, transformed or encoded.
    Processing,
    /// `streaming`: the result could not be sent.
    Streaming,
    /// `timeout`: the request took longer than the service allows.
    Timeout,
    /// `security`: a signature, source or option is not allowed.
    Security,
    /// `path_parsing`: the path or its options could not be read.
    PathParsing,
    /// Anything else. The name is a metric attribute: it must come from the code, never from a request.
    Other(&'static str),
}

impl ErrorKind {
    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Download => "download",
            Self::Processing => "processing",
            Self::Streaming => "streaming",
            Self::Timeout => "timeout",
            Self::Security => "security",
            Self::PathParsing => "path_parsing",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that can be recorded as an error: each [`Error`], and types that hold one without being
/// one, such as `Box<dyn Error + Send + Sync>` and `anyhow::Error`.
///
/// `Form` tells the two apart and is always inferred. The trait is sealed.
pub trait AsError<Form>: sealed::Sealed<Form> {
    /// The error, and the name of its type when that is known.
    fn as_error(&self) -> (&(dyn Error + 'static), Option<&'static str>);
}

/// The [`AsError`] form of a type that is an [`Error`].
#[derive(Debug)]
pub enum IsError {}

/// The [`AsError`] form of a type that holds an [`Error`].
#[derive(Debug)]
pub enum HoldsError {}

mod sealed {
    use std::error::Error;

    use super::{HoldsError, IsError};

    pub trait Sealed<Form> {}

    impl<E: Error + 'static> Sealed<IsError> for E {}
    impl<E: AsRef<dyn Error + Send + Sync>> Sealed<HoldsError> for E {}
    impl Sealed<IsError> for dyn Error + 'static {}
    impl Sealed<IsError> for dyn Error + Send + Sync + 'static {}
}

impl<E: Error + 'static> AsError<IsError> for E {
    fn as_error(&self) -> (&(dyn Error + 'static), Option<&'static str>) {
        (self, Some(std::any::type_name::<E>()))
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> AsError<HoldsError> for E {
    fn as_error(&self) -> (&(dyn Error + 'static), Option<&'static str>) {
        (self.as_ref(), None)
    }
}

impl AsError<IsError> for dyn Error + 'static {
    fn as_error(&self) -> (&(dyn Error + 'static), Option<&'static str>) {
        (self, None)
    }
}

impl AsError<IsError> for dyn Error + Send + Sync + 'static {
    fn as_error(&self) -> (&(dyn Error + 'static), Option<&'static str>) {
        (self, None)
    }
}

/// An error as it is written into spans.
#[derive(Clone, Debug)]
pub(crate) struct ErrorReport {
    /// Low-cardinality: the value of `error.type`.
    pub(crate) error_type: StringValue,
    /// The message, followed by the messages of its sources.
    pub(crate) message: StringValue,
}

impl ErrorReport {
    pub(crate) fn new<Form>(error: &(impl AsError<Form> + ?Sized)) -> Self {
        let (error, type_name) = error.as_error();
        Self::of(error, type_name)
    }

    /// The report on an error of a service or body, which need not be an [`Error`].
    pub(crate) fn of_any<E: fmt::Display + 'static>(error: &E) -> Self {
        let type_name = std::any::type_name::<E>();
        let any: &dyn Any = error;
        if let Some(error) = any.downcast_ref::<Box<dyn Error + Send + Sync>>() {
            Self::of(&**error, None)
        } else if let Some(error) = any.downcast_ref::<Box<dyn Error>>() {
            Self::of(&**error, None)
        } else if let Some(error) = any.downcast_ref::<io::Error>() {
            Self::of(error, Some(type_name))
        } else {
            Self {
                error_type: type_name.into(),
                message: error.to_string().into(),
            }
        }
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&'static str>() {
            Cow::Borrowed(*text)
        } else if let Some(text) = payload.downcast_ref::<String>() {
            Cow::Owned(text.clone())
        } else {
            Cow::Borrowed("panic")
        };
        Self {
            error_type: "panic".into(),
            message: message.into(),
        }
    }

    /// The report on a panic whose payload is out of reach.
    pub(crate) fn unwinding() -> Self {
        Self::panic(&"panic")
    }

    pub(crate) fn of(error: &(dyn Error + 'static), type_name: Option<&'static str>) -> Self {
        let error_type = match (error.downcast_ref::<io::Error>(), type_name) {
            (Some(io), _) => io_error_type(io.kind()).into(),
            (None, Some(name)) => StringValue::from(name),
            // Semconv registry, error.type: the fallback for unknown types.
            (None, None) => "_OTHER".into(),
        };
        Self {
            error_type,
            message: with_sources(error).into(),
        }
    }

    /// Redacts the URLs that messages of HTTP clients contain.
    pub(crate) fn redact(&mut self, redaction: &Redaction) {
        if let Cow::Owned(redacted) = redaction.message(self.message.as_str()) {
            self.message = redacted.into();
        }
    }

    /// The attributes of an `exception` event (semconv exceptions-spans).
    pub(crate) fn event_attributes(&self) -> Vec<KeyValue> {
        vec![
            KeyValue::new("exception.type", self.error_type.clone()),
            KeyValue::new("exception.message", self.message.clone()),
        ]
    }

    pub(crate) fn type_attribute(&self) -> KeyValue {
        KeyValue::new(ERROR_TYPE, self.error_type.clone())
    }
}

/// The message of an error and of what caused it: `outer: inner: innermost`.
fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Many errors already end with the text of their source.
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = error.source();
    }
    message
}

pub(crate) fn io_error_type(kind: io::ErrorKind) -> &'static str {
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
        _ => "io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot fetch the source")]
    struct Fetch(#[source] io::Error);

    fn fetch() -> Fetch {
        Fetch(io::Error::new(io::ErrorKind::TimedOut, "no answer in 5 s"))
    }

    #[test]
    fn a_message_ends_with_its_sources() {
        let report = ErrorReport::new(&fetch());
        assert_eq!(
            report.message.as_str(),
            "cannot fetch the source: no answer in 5 s"
        );
        assert!(report.error_type.as_str().ends_with("::Fetch"));
    }

    #[test]
    fn a_source_that_is_already_in_the_message_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("decode: {0}")]
        struct Decode(#[source] io::Error);
        let report = ErrorReport::new(&Decode(io::Error::other("bad header")));
        assert_eq!(report.message.as_str(), "decode: bad header");
    }

    #[test]
    fn boxed_errors_keep_their_sources() {
        let boxed: Box<dyn Error + Send + Sync> = Box::new(fetch());
        for report in [
            ErrorReport::new(&boxed),
            ErrorReport::of_any(&boxed),
            ErrorReport::new(&*boxed),
        ] {
            assert_eq!(
                report.message.as_str(),
                "cannot fetch the source: no answer in 5 s"
            );
            assert_eq!(report.error_type.as_str(), "_OTHER");
        }
    }

    #[test]
    fn io_errors_are_named_after_their_kind() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            ErrorReport::new(&error).error_type.as_str(),
            "connection_refused"
        );
        assert_eq!(
            ErrorReport::of_any(&error).error_type.as_str(),
            "connection_refused"
        );
    }

    #[test]
    fn panic_payloads_of_any_type_have_a_message() {
        let caught = std::panic::catch_unwind(|| std::panic::panic_any(7_u8)).expect_err("panics");
        assert_eq!(ErrorReport::panic(&*caught).message.as_str(), "panic");
        let text: Box<dyn Any + Send> = Box::new(String::from("index 4 of 3"));
        assert_eq!(ErrorReport::panic(&*text).message.as_str(), "index 4 of 3");
    }
}
