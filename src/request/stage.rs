use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    trace::{Event, SpanBuilder, Status, TraceContextExt},
};

use super::{AsError, Attached, ErrorKind, ErrorReport, Interruption, RequestState, Run};
use crate::{attribute, redact::Redaction};

/// One stage of a request: a child span that ends when this guard is dropped.
///
/// As a guard it spans a scope, with [`run`](Self::run) a future, with
/// [`run_blocking`](Self::run_blocking) work on the blocking pool. It may move to another task or
/// thread, and may outlive its request: it is then still exported, with the right parent.
///
/// A stage is cancelled, and says so, when its future is dropped before it is ready, or when its
/// request is cancelled while it runs.
#[derive(Debug, Default)]
#[must_use = "a stage ends when it is dropped"]
pub struct Stage {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    request: Arc<RequestState>,
    name: &'static str,
    kind: ErrorKind,
    started: Instant,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    span: StageSpan,
    /// The first error: a span keeps one status, and later errors mostly follow from the first.
    error: Option<Box<ErrorReport>>,
}

impl Stage {
    pub(super) fn start(
        request: &Arc<RequestState>,
        name: &'static str,
        kind: ErrorKind,
        attributes: impl FnOnce(&Redaction) -> Vec<KeyValue>,
    ) -> Self {
        let started = Instant::now();
        let span = if request.recording {
            StageSpan::Noted(Notes {
                attributes: attributes(&request.config.redaction),
                events: Vec::new(),
            })
        } else {
            StageSpan::NotRecorded
        };
        request.live().stage_started(name);
        Self {
            running: Some(Running {
                request: Arc::clone(request),
                name,
                kind,
                started,
                record: Mutex::new(Record { span, error: None }),
            }),
        }
    }

    /// Sets an attribute of the stage's span. Set each key once.
    pub fn set_attribute(&self, attribute: KeyValue) {
        if let Some(running) = self
            .running
            .as_ref()
            .filter(|stage| stage.request.recording)
        {
            let attribute = running.request.config.redaction.attribute(attribute);
            running.record().span.set_attribute(attribute);
        }
    }

    /// Records an error: on the stage, which then ends with status `Error`, as an event on the
    /// root span, and in `errors_total`.
    pub fn record_error<Form>(&self, error: &(impl AsError<Form> + ?Sized)) {
        self.fail(|| ErrorReport::new(error));
    }

    /// Writes the stage's context into the headers of an outgoing request, so that the called
    /// service continues the trace. Does nothing unless propagation to others was asked for
    /// ([`propagate_external`](crate::trace::ImageTraceLayerBuilder::propagate_external)).
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(running) = &self.running {
            let config = &running.request.config;
            if config.propagate_external {
                config.propagation.inject(&running.context(), headers);
            }
        }
    }

    /// The context of the stage's span; the current context when there is no trace.
    #[must_use]
    pub fn context(&self) -> Context {
        match &self.running {
            Some(running) => running.context(),
            None => Context::current(),
        }
    }

    /// Runs a fallible future as this stage: the stage ends when the future is ready, an `Err` is
    /// recorded. The stage's context is current while the future is polled and dropped.
    pub fn run<F, T, E, Form>(self, future: F) -> Run<F, Form>
    where
        F: Future<Output = Result<T, E>>,
        E: AsError<Form>,
    {
        Run::new(self, future)
    }

    /// Runs a fallible closure as this stage on tokio's blocking pool: the stage ends with the
    /// closure, even if nobody waits for it any more, and an `Err` is recorded. The stage's
    /// context is current in the closure. A panic goes on in whoever awaits the result.
    ///
    /// Work that is still waiting for a thread when the returned future is dropped is not done.
    /// Outside a tokio runtime the closure runs at once, on the calling thread.
    #[cfg(feature = "tokio")]
    pub fn run_blocking<F, T, E, Form>(self, work: F) -> super::RunBlocking<T, E>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: AsError<Form> + Send + 'static,
    {
        super::RunBlocking::new(self, work)
    }

    /// Makes the stage's context current while `future` is polled and dropped. The stage goes on
    /// after it: for several futures in one stage, or to set attributes afterwards.
    pub fn attach<F: Future>(&self, future: F) -> Attached<F> {
        Attached::new(self.running.as_ref().map(Running::context), future)
    }

    /// Runs a closure with the stage's context current. The stage goes on after it.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _current = self
            .running
            .as_ref()
            .map(|running| running.context().attach());
        work()
    }

    /// Ends the stage, as dropping it does.
    pub fn end(self) {}

    pub(super) fn fail(&self, report: impl FnOnce() -> ErrorReport) {
        let Some(running) = &self.running else { return };
        if let Some(report) = running.request.record_error(running.kind, report) {
            let mut record = running.record();
            record.span.add_exception(&report);
            record.error.get_or_insert_with(|| Box::new(report));
        }
    }

    /// Ends the stage as one that was dropped before it was done.
    pub(super) fn cancel(mut self) {
        self.close(Some(Interruption::Cancelled));
    }

    fn close(&mut self, interruption: Option<Interruption>) {
        if self.running.is_some() && interruption == Some(Interruption::Panicked) {
            self.fail(ErrorReport::unwinding);
        }
        let Some(mut running) = self.running.take() else {
            return;
        };
        let elapsed = running.started.elapsed();
        let interruption = {
            let mut live = running.request.live();
            live.stage_ended(running.name);
            if running.request.config.added_headers.server_timing {
                live.stages_done.push((running.name, elapsed));
            }
            interruption.or(live.interruption)
        };
        if let Some(metrics) = &running.request.config.stage_metrics {
            metrics.stage(running.name, elapsed);
        }
        let record = running.record.get_mut();
        let record = record.unwrap_or_else(PoisonError::into_inner);
        let Record { mut span, error } = std::mem::take(record);
        let mut status = Status::Unset;
        if let Some(report) = error {
            span.set_attribute(report.type_attribute());
            status = Status::error(report.message.to_string());
        } else if interruption == Some(Interruption::Cancelled) {
            span.set_attribute(KeyValue::new(attribute::STAGE_CANCELLED, true));
        }
        span.end(&running, status, elapsed);
    }
}

impl Running {
    fn record(&self) -> MutexGuard<'_, Record> {
        // A panic elsewhere must not become one here; the data is whole after every statement.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self) -> Context {
        self.record().span.context(self)
    }

    fn started_at(&self) -> SystemTime {
        self.request.clock.at(self.started)
    }

    fn builder(&self, notes: Notes) -> SpanBuilder {
        let mut span = SpanBuilder::from_name(self.name);
        span.start_time = Some(self.started_at());
        span.attributes = Some(notes.attributes);
        span.events = (!notes.events.is_empty()).then_some(notes.events);
        span
    }
}

/// The span of a stage. Most stages end before anybody asked for their context, and a span that
/// is never in a context needs no box and no lock: it is begun and ended in one go at its end.
#[derive(Debug, Default)]
enum StageSpan {
    #[default]
    NotRecorded,
    Noted(Notes),
    Begun(Context),
}

/// What a span will have that is not begun yet.
#[derive(Debug, Default)]
struct Notes {
    attributes: Vec<KeyValue>,
    events: Vec<Event>,
}

impl StageSpan {
    fn context(&mut self, stage: &Running) -> Context {
        let request = &stage.request;
        if let Self::Noted(notes) = self {
            let span = stage.builder(std::mem::take(notes));
            let tracer = &request.config.tracer;
            *self = Self::Begun(tracer.start(span, &request.context, None).0);
        }
        match self {
            Self::Begun(context) => context.clone(),
            _ => request.context.clone(),
        }
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        match self {
            Self::NotRecorded => {}
            Self::Noted(notes) => notes.attributes.push(attribute),
            Self::Begun(context) => context.span().set_attribute(attribute),
        }
    }

    fn add_exception(&mut self, report: &ErrorReport) {
        let attributes = report.event_attributes();
        match self {
            Self::NotRecorded => {}
            Self::Noted(notes) => {
                let event = Event::new("exception", SystemTime::now(), attributes, 0);
                notes.events.push(event);
            }
            Self::Begun(context) => context.span().add_event("exception", attributes),
        }
    }

    fn end(self, stage: &Running, status: Status, elapsed: Duration) {
        let request = &stage.request;
        match self {
            Self::NotRecorded => {}
            Self::Noted(notes) => {
                let span = stage.builder(notes);
                let tracer = &request.config.tracer;
                tracer.record(span, &request.context, status, elapsed);
            }
            Self::Begun(context) => {
                let span = context.span();
                span.set_status(status);
                span.end_with_timestamp(stage.started_at() + elapsed);
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Without a running stage there is nothing to ask the thread for.
        if self.running.is_some() {
            let unwinding = std::thread::panicking().then_some(Interruption::Panicked);
            self.close(unwinding);
        }
    }
}
