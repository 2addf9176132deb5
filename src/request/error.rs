use std::{any::Any, borrow::Cow, error::Error, fmt, io, time::SystemTime};

use opentelemetry::{Context, KeyValue, StringValue, trace::TraceContextExt};

use super::error_type::{Class, IO, as_error, io_error_type};
use crate::{
    attribute::ERROR_TYPE,
    instrument::{DynError, ErrorView, Exception, Exceptions, Level, TextRules, message, text},
};

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
///
/// A `Box<dyn Error>` that is not `Send` is recorded as `&*error`. For texts and responses see the
/// methods that the compiler names.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be recorded as an error",
    label = "neither a `std::error::Error` nor a box of one that is `Send + Sync`",
    note = "a text: `.map_err(std::io::Error::other)`, or a type of your own that implements `Error`",
    note = "a `Box<dyn Error>`: make it `Box<dyn Error + Send + Sync>`",
    note = "a response, or no error at all: `stage.run_infallible(future)`; or `stage.attach(future)`, then `stage.record_error(&error)`"
)]
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

/// An error as it is written into spans: redacted, and of bounded length.
#[derive(Clone, Debug)]
pub(crate) struct ErrorReport {
    /// Low-cardinality: the value of `error.type`.
    pub(crate) error_type: StringValue,
    /// The message, followed by the messages of its sources.
    pub(crate) message: StringValue,
}

impl ErrorReport {
    pub(crate) fn new<Form>(error: &(impl AsError<Form> + ?Sized), texts: &TextRules) -> Self {
        let (error, type_name) = error.as_error();
        Self::of(error, type_name, texts)
    }

    /// The report on an error of a service or body, which need not be an [`Error`].
    pub(crate) fn of_any<E: fmt::Display + 'static>(
        error: &E,
        views: &[ErrorView],
        texts: &TextRules,
    ) -> Self {
        match as_error(error, views) {
            Some((error, type_name)) => Self::of(error, type_name, texts),
            None => Self::of_text(error, texts),
        }
    }

    /// The report on an error of which only the text is known.
    pub(crate) fn of_text<E: fmt::Display>(error: &E, texts: &TextRules) -> Self {
        Self {
            error_type: std::any::type_name::<E>().into(),
            message: written(&text(error, texts.most_of_a_message()), texts),
        }
    }

    pub(crate) fn panic(payload: &(dyn Any + Send), texts: &TextRules) -> Self {
        let message: &str = if let Some(text) = payload.downcast_ref::<&'static str>() {
            text
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text
        } else {
            "panic"
        };
        Self {
            error_type: "panic".into(),
            message: written(message, texts),
        }
    }

    pub(crate) fn of(error: &DynError, type_name: Option<&'static str>, texts: &TextRules) -> Self {
        // The type's name says more than an I/O error of no specific kind somewhere in the chain.
        let tells = |kind: &&str| *kind != IO || error.is::<io::Error>();
        let error_type = Class::of(error, false)
            .map(Class::as_str)
            .or_else(|| io_error_type(error).filter(tells))
            .or(type_name)
            // Semconv registry, error.type: the fallback for unknown types.
            .unwrap_or("_OTHER");
        Self {
            error_type: error_type.into(),
            message: written(&message(error, texts.most_of_a_message()), texts),
        }
    }

    /// Applies further rules to the message.
    pub(crate) fn restrict(&mut self, texts: &TextRules) {
        if let Cow::Owned(message) = texts.message(self.message.as_str()) {
            self.message = message.into();
        }
    }

    /// Writes a log record with the ids of the span in `context`, if exceptions are log records.
    pub(crate) fn log(
        &self,
        exceptions: &Exceptions,
        (event_name, level): (&'static str, Level),
        at: SystemTime,
        context: &Context,
    ) {
        if exceptions.are_logged() {
            exceptions.log(&Exception {
                event_name,
                level,
                at,
                span: context.span().span_context(),
                error_type: &self.error_type,
                message: &self.message,
            });
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

fn written(message: &str, texts: &TextRules) -> StringValue {
    texts.message(message).into_owned().into()
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

    fn new<Form>(error: &(impl AsError<Form> + ?Sized)) -> ErrorReport {
        ErrorReport::new(error, &TextRules::default())
    }

    fn of_any<E: fmt::Display + 'static>(error: &E) -> ErrorReport {
        ErrorReport::of_any(error, &[], &TextRules::default())
    }

    #[test]
    fn a_message_ends_with_its_sources() {
        let report = new(&fetch());
        assert_eq!(
            report.message.as_str(),
            "cannot fetch the source: no answer in 5 s"
        );
    }

    #[test]
    fn a_source_that_is_already_in_the_message_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("decode: {0}")]
        struct Decode(#[source] io::Error);
        let report = new(&Decode(io::Error::other("bad header")));
        assert_eq!(report.message.as_str(), "decode: bad header");
        assert!(report.error_type.as_str().ends_with("::Decode"));
    }

    #[test]
    fn boxed_errors_keep_their_sources() {
        let boxed: Box<dyn Error + Send + Sync> = Box::new(fetch());
        for report in [new(&boxed), of_any(&boxed), new(&*boxed)] {
            assert_eq!(
                report.message.as_str(),
                "cannot fetch the source: no answer in 5 s"
            );
            assert_eq!(report.error_type.as_str(), "timeout");
        }
        let unknown: Box<dyn Error + Send + Sync> = "strange".into();
        assert_eq!(new(&unknown).error_type.as_str(), "_OTHER");
    }

    // faults G16
    #[test]
    fn an_error_is_named_after_its_cause_wherever_that_is() {
        #[derive(Debug, thiserror::Error)]
        #[error("service")]
        struct Service(#[source] Box<dyn Error + Send + Sync>);
        let service = |cause: io::ErrorKind| Service(Box::new(Fetch(cause.into())));
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, "connection_refused"),
            (io::ErrorKind::TimedOut, "timeout"),
            (io::ErrorKind::InvalidData, "invalid_data"),
        ] {
            let plain = io::Error::from(kind);
            assert_eq!(new(&plain).error_type.as_str(), expected);
            assert_eq!(of_any(&plain).error_type.as_str(), expected);
            let wrapped = service(kind);
            assert_eq!(new(&wrapped).error_type.as_str(), expected);
            let hidden = io::Error::other(service(kind));
            assert_eq!(new(&hidden).error_type.as_str(), expected);
            let boxed: Box<dyn Error + Send + Sync> = Box::new(service(kind));
            assert_eq!(of_any(&boxed).error_type.as_str(), expected);
            #[cfg(feature = "axum")]
            {
                let body = axum::Error::new(service(kind));
                assert_eq!(of_any(&body).error_type.as_str(), expected);
                assert!(of_any(&body).message.as_str().contains("the source"));
            }
        }
        assert_eq!(new(&io::Error::other("x")).error_type.as_str(), IO);
        let elapsed = Service(Box::new(tower::timeout::error::Elapsed::new()));
        assert_eq!(new(&elapsed).error_type.as_str(), "timeout");
    }

    #[test]
    fn panic_payloads_of_any_type_have_a_message() {
        let message = |payload: &(dyn Any + Send)| {
            let report = ErrorReport::panic(payload, &TextRules::default());
            report.message.to_string()
        };
        let caught = std::panic::catch_unwind(|| std::panic::panic_any(7_u8)).expect_err("panics");
        assert_eq!(message(&*caught), "panic");
        assert_eq!(message(&String::from("index 4 of 3")), "index 4 of 3");
        assert_eq!(message(&"x".repeat(1 << 20)).len(), 4096, "faults F3");
    }
}
