use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    trace::{Event, Link, SpanBuilder, SpanContext, Status, TraceContextExt},
};

use super::{
    AsError, Attached, Current, ErrorKind, ErrorReport, Interruption, Recording, RequestState, Run,
    RunInfallible, StageBody, current::with_current,
};
#[cfg(feature = "tokio")]
use crate::attribute::STAGE_CPU_TIME;
use crate::{
    attribute::STAGE_CANCELLED,
    instrument::{Level, TextRules, set},
    metrics::{Labels, PictureMetrics},
};

/// One stage of a request: a child span that ends when this guard is dropped.
///
/// As a guard it spans a scope, with [`run`](Self::run) a future, with
/// [`run_blocking`](Self::run_blocking) work on the blocking pool. It may move to another task or
/// thread, and may outlive its request: it is then still exported, with the right parent.
///
/// ```
/// use std::io;
/// use tower_image_trace::{RequestTrace, opentelemetry::KeyValue};
///
/// # async fn fetch(_: &str) -> io::Result<Vec<u8>> { Ok(Vec::new()) }
/// # fn resize(source: Vec<u8>) -> io::Result<Vec<u8>> { Ok(source) }
/// # fn watermark(_: &mut [u8]) {}
/// async fn thumbnail(trace: RequestTrace) -> io::Result<Vec<u8>> {
///     // A future: the stage ends with it, and has its error.
///     let source = trace.download("http://cdn.example/cat.jpg").run(fetch("cat.jpg")).await?;
///     // Work on tokio's blocking pool (feature `tokio`).
///     # #[cfg(feature = "tokio")]
///     let mut picture = trace.process("w:300").run_blocking(move || resize(source)).await?;
///     # #[cfg(not(feature = "tokio"))]
///     # let mut picture = trace.process("w:300").run_sync(move || resize(source))?;
///     // A scope: the stage ends where the guard does.
///     let stage = trace.stage("watermark");
///     stage.set_attribute(KeyValue::new("watermark.opacity", 0.5));
///     watermark(&mut picture);
///     drop(stage);
///     Ok(picture)
/// }
/// ```
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
    facts: Facts,
    record: Mutex<Record>,
    is_closed: bool,
}

/// What is known of a stage from its beginning.
#[derive(Debug)]
struct Facts {
    request: Arc<RequestState>,
    name: &'static str,
    kind: ErrorKind,
    /// The context of the span that this stage is a child of; `None`: the root's.
    parent: Option<Context>,
    /// The root span of another request, whose work this stage waits for.
    awaited: Option<Box<SpanContext>>,
    /// The stage began after its request had been interrupted.
    is_late: bool,
    started: Instant,
}

#[derive(Debug, Default)]
struct Record {
    span: StageSpan,
    /// The first error: a span has one status, and later errors mostly follow from the first.
    error: Option<Box<ErrorReport>>,
    /// Attributes of the service's own for the stage's measurements.
    labels: Labels,
}

impl Stage {
    pub(super) fn start(
        request: &Arc<RequestState>,
        name: &'static str,
        kind: ErrorKind,
        attributes: impl FnOnce(&TextRules) -> Vec<KeyValue>,
    ) -> Self {
        let started = Instant::now();
        let (parent, span) = if request.is_recording {
            let notes = Notes {
                attributes: attributes(&request.layer.recording().texts),
                events: Vec::new(),
            };
            (enclosing(request), StageSpan::Noted(notes))
        } else {
            (None, StageSpan::NotRecorded)
        };
        let is_late = request.live().stage_started(name, started);
        Self {
            running: Some(Running {
                facts: Facts {
                    request: Arc::clone(request),
                    name,
                    kind,
                    parent,
                    awaited: None,
                    is_late,
                    started,
                },
                record: Mutex::new(Record {
                    span,
                    error: None,
                    labels: Labels::default(),
                }),
                is_closed: false,
            }),
        }
    }

    /// Sets an attribute of the stage's span; a later value of the same key replaces it. URLs in its text
    /// are redacted, and long texts are cut.
    pub fn set_attribute(&self, attribute: KeyValue) {
        if let Some(running) = &self.running {
            let attribute = running.facts.recording().texts.attribute(attribute);
            if let Some(attributes) = running.record().span.attributes() {
                set(attributes, attribute);
            }
        }
    }

    /// Links the stage to the root span of the request that it waits for.
    pub(super) fn awaits(mut self, root: SpanContext) -> Self {
        if let Some(running) = &mut self.running {
            running.facts.awaited = Some(Box::new(root));
        }
        self
    }

    /// Sets attributes that need no redaction.
    pub(super) fn set_attributes<const N: usize>(&self, attributes: [KeyValue; N]) {
        if let Some(running) = &self.running
            && let Some(kept) = running.record().span.attributes()
        {
            attributes
                .into_iter()
                .for_each(|attribute| set(kept, attribute));
        }
    }

    /// Sets an attribute of the stage's duration, as
    /// [`RequestTrace::metric_attribute`](super::RequestTrace::metric_attribute) does for the request's.
    pub fn metric_attribute(&self, attribute: KeyValue) {
        if let Some(running) = &self.running
            && running.facts.recording().stage_metrics.is_some()
        {
            let attribute = running.facts.recording().texts.label(attribute);
            running.record().labels.set(attribute);
        }
    }

    pub(super) fn picture_metrics(&self) -> Option<&PictureMetrics> {
        self.running
            .as_ref()?
            .facts
            .recording()
            .picture_metrics
            .as_ref()
    }

    /// Says how much CPU time the stage's blocking work has taken.
    #[cfg(feature = "tokio")]
    pub(super) fn cpu_time(&self, time: Duration) {
        self.set_attributes([KeyValue::new(STAGE_CPU_TIME, time.as_secs_f64())]);
        if let Some(running) = &self.running
            && let Some(metrics) = &running.facts.recording().stage_metrics
        {
            let own = running.record().labels.clone();
            let of_request = running.facts.labels_of_request();
            metrics.cpu_time(
                running.facts.name,
                time,
                own.as_slice().iter().chain(of_request.as_slice()),
            );
        }
    }

    /// Records an error: on the stage, which then ends with status `Error`, as an event on the
    /// root span, and in `errors_total`.
    pub fn record_error<Form>(&self, error: &(impl AsError<Form> + ?Sized)) {
        self.fail(|texts| ErrorReport::new(error, texts));
    }

    /// Writes the stage's context into the headers of an outgoing request, so that the called
    /// service continues the trace. Does nothing unless propagation to others was asked for
    /// ([`propagate_external`](crate::trace::ImageTraceLayerBuilder::propagate_external)).
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(running) = &self.running {
            let recording = running.facts.recording();
            if recording.propagate_external {
                recording.propagation.inject(&running.context(), headers);
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
    /// closure, even when the returned future was dropped, and an `Err` is recorded. The stage's
    /// context is current in the closure. A panic continues where the result is awaited.
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
        self.run_blocking_with(move |_| work())
    }

    /// [`run_blocking`](Self::run_blocking) for a closure that says more about the stage.
    ///
    /// ```
    /// use tower_image_trace::{RequestTrace, request::Picture};
    ///
    /// # fn decode() -> std::io::Result<(u32, u32)> { Ok((4000, 3000)) }
    /// # async fn process(trace: RequestTrace) -> std::io::Result<()> {
    /// let work = trace.process("rs:fit:300:200").run_blocking_with(|stage| {
    ///     let (width, height) = decode()?;
    ///     stage.source_picture(&Picture { format: "jpeg", width, height, size: 2_500_000 });
    ///     std::io::Result::Ok(())
    /// });
    /// work.await
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub fn run_blocking_with<F, T, E, Form>(self, work: F) -> super::RunBlocking<T, E>
    where
        F: FnOnce(&Self) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: AsError<Form> + Send + 'static,
    {
        super::RunBlocking::new(self, work)
    }

    /// Runs a future that cannot fail, or whose result is no [`Result`], as this stage: the stage ends when
    /// the future is ready, and is cancelled when it is dropped before that.
    ///
    /// For a result that only looks like an error to the service, such as an HTTP response, say so on the
    /// way: [`attach`](Self::attach) runs the future and leaves the stage, for
    /// [`record_error`](Self::record_error).
    ///
    /// ```
    /// # use tower_image_trace::RequestTrace;
    /// # async fn handle(trace: RequestTrace) {
    /// let blurred = trace.stage("blur").run_infallible(async { vec![0_u8; 64] }).await;
    /// # drop(blurred);
    /// # }
    /// ```
    pub fn run_infallible<F: Future>(self, future: F) -> RunInfallible<F> {
        RunInfallible::new(self, future)
    }

    /// Sends a body as this stage: the stage ends with the body's last frame or its error, which is recorded,
    /// or when the body is dropped. It is cancelled if the request is cancelled by that.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http::Response;
    /// # use http_body_util::Full;
    /// use tower_image_trace::RequestTrace;
    ///
    /// # let (trace, picture) = (RequestTrace::default(), Full::<Bytes>::default());
    /// let response = Response::new(trace.stream().body(picture));
    /// # drop(response);
    /// ```
    pub fn body<B>(self, body: B) -> StageBody<B> {
        StageBody::new(self, body)
    }

    /// Makes the stage's context current while `future` is polled and dropped. The stage goes on after
    /// it, for more futures or for attributes that are known afterwards.
    pub fn attach<F: Future>(&self, future: F) -> Attached<F> {
        Attached::new(self.scope(), future)
    }

    /// Runs a closure with the stage's context current. The stage goes on after it.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _current = self.scope().map(|scope| scope.attach());
        work()
    }

    /// Ends the stage as done. Dropping it does the same, except while the thread panics: then the panic is what the
    /// stage ended with.
    pub fn end(mut self) {
        self.close(None);
    }

    /// What is current while the stage's work is done, if there is a trace.
    pub(super) fn scope(&self) -> Option<Scope> {
        self.running.as_ref().map(|running| Scope {
            request: Arc::clone(&running.facts.request),
            context: running.context(),
        })
    }

    pub(super) fn fail(&self, report: impl FnOnce(&TextRules) -> ErrorReport) {
        if let Some(running) = &self.running {
            running.fail(report);
        }
    }

    /// Ends the stage as one that was dropped before it was done.
    pub(super) fn cancel(mut self) {
        self.close(Some(Interruption::Cancelled));
    }

    /// Ends the stage, unless it has ended. What it knows is not moved for that.
    fn close(&mut self, interruption: Option<Interruption>) {
        let running = self.running.as_mut();
        let Some(running) = running.filter(|running| !running.is_closed) else {
            return;
        };
        running.is_closed = true;
        if interruption == Some(Interruption::Panicked) {
            // A drop during unwinding cannot see the payload.
            running.fail(|texts| ErrorReport::panic(&"panic", texts));
        }
        let facts = &running.facts;
        let recording = facts.recording();
        let elapsed = facts.started.elapsed();
        let interruption = {
            let mut live = facts.request.live();
            live.stage_ended(facts.name);
            if recording.keeps_stages {
                live.stage_done(facts.name, elapsed);
            }
            interruption.or(live.interruption.filter(|_| !facts.is_late))
        };
        let record = running.record.get_mut();
        let Record {
            span,
            error,
            labels,
        } = record.unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &recording.stage_metrics {
            if labels.is_empty() && !recording.labelled.stages {
                metrics.stage(facts.name, elapsed);
            } else {
                let of_request = facts.labels_of_request();
                let labels = labels.as_slice().iter().chain(of_request.as_slice());
                metrics.labelled_stage(facts.name, elapsed, labels);
            }
        }
        let (mut status, mut last) = (Status::Unset, None);
        if let Some(report) = error {
            last = Some(report.type_attribute());
            status = Status::error(report.message.to_string());
        } else if interruption == Some(Interruption::Cancelled) {
            last = Some(KeyValue::new(STAGE_CANCELLED, true));
        }
        if let (Some(last), Some(attributes)) = (last, span.attributes())
            && attributes.iter().all(|set| set.key != last.key)
        {
            attributes.push(last);
        }
        span.end(facts, status, elapsed);
    }
}

impl Running {
    fn record(&self) -> MutexGuard<'_, Record> {
        // A panic elsewhere must not become one here; the data is whole after every statement.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self) -> Context {
        self.record().span.context(&self.facts)
    }

    fn fail(&self, report: impl FnOnce(&TextRules) -> ErrorReport) {
        let facts = &self.facts;
        if let Some(report) = facts.request.record_error(facts.kind, report) {
            let mut record = self.record();
            let exceptions = &facts.recording().exceptions;
            if exceptions.on_spans {
                record.span.add_exception(facts, &report);
            }
            // Only a span that has begun has ids.
            if exceptions.are_logged() {
                let (at, context) = (facts.request.clock.now(), record.span.context(facts));
                let event = ("image.stage.exception", Level::Warn);
                report.log(exceptions, event, at, &context);
            }
            record.error.get_or_insert_with(|| Box::new(report));
        }
    }
}

impl Facts {
    /// The request's attributes for the stage's measurements, where the layer says so. The stage's own
    /// count before these.
    #[cold]
    fn labels_of_request(&self) -> Labels {
        let of_request = match self.recording().labelled.stages {
            true => self.request.changed(),
            false => None,
        };
        of_request
            .map(|live| live.labels.clone())
            .unwrap_or_default()
    }

    fn recording(&self) -> &Recording {
        self.request.layer.recording()
    }

    fn started_at(&self) -> SystemTime {
        self.request.clock.at(self.started)
    }

    fn parent(&self) -> &Context {
        self.parent.as_ref().unwrap_or(&self.request.context)
    }

    fn builder(&self, events: Vec<Event>) -> SpanBuilder {
        let mut span = SpanBuilder::from_name(self.name);
        span.start_time = Some(self.started_at());
        span.events = (!events.is_empty()).then_some(events);
        let awaited = self.awaited.as_deref();
        span.links = awaited.map(|root| vec![Link::with_context(root.clone())]);
        span
    }
}

/// The context of the current span, if that is a span of the same request below its root.
fn enclosing(request: &Arc<RequestState>) -> Option<Context> {
    if !with_current(|current| Arc::ptr_eq(current, request)) {
        return None;
    }
    let root = request.context.span();
    let root = root.span_context();
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        let is_below = span.trace_id() == root.trace_id() && span.span_id() != root.span_id();
        (is_below && !span.is_remote()).then(|| context.clone())
    })
}

/// A request and the context of one of its stages.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    request: Arc<RequestState>,
    context: Context,
}

impl Scope {
    pub(super) fn attach(&self) -> Current {
        Current::request(Arc::clone(&self.request), Some(&self.context))
    }
}

/// The span of a stage. The context of most stages is never asked for, and a span outside a context
/// needs no box and no lock: it begins and ends in one go at the stage's end.
#[derive(Debug, Default)]
enum StageSpan {
    #[default]
    NotRecorded,
    Noted(Notes),
    Begun {
        context: Context,
        /// Kept until the end, because a span would keep both values of a key that is set twice.
        attributes: Vec<KeyValue>,
    },
}

/// What a span that has not begun will hold.
#[derive(Debug, Default)]
struct Notes {
    attributes: Vec<KeyValue>,
    events: Vec<Event>,
}

/// With more events than this a stage begins its span, because the SDK bounds a span's events.
const MOST_EVENTS_NOTED: usize = 16;

impl StageSpan {
    fn context(&mut self, stage: &Facts) -> Context {
        if let Self::Noted(notes) = self {
            let Notes { attributes, events } = mem::take(notes);
            let tracer = &stage.recording().tracer;
            *self = Self::Begun {
                context: tracer.start(stage.builder(events), stage.parent()).context,
                attributes,
            };
        }
        match self {
            Self::Begun { context, .. } => context.clone(),
            _ => stage.parent().clone(),
        }
    }

    fn attributes(&mut self) -> Option<&mut Vec<KeyValue>> {
        match self {
            Self::NotRecorded => None,
            Self::Noted(Notes { attributes, .. }) | Self::Begun { attributes, .. } => {
                Some(attributes)
            }
        }
    }

    fn add_exception(&mut self, stage: &Facts, report: &ErrorReport) {
        let (now, attributes) = (stage.request.clock.now(), report.event_attributes());
        match self {
            Self::NotRecorded => {}
            Self::Noted(notes) => {
                notes
                    .events
                    .push(Event::new("exception", now, attributes, 0));
                if notes.events.len() > MOST_EVENTS_NOTED {
                    self.context(stage);
                }
            }
            Self::Begun { context, .. } => {
                let span = context.span();
                span.add_event_with_timestamp("exception", now, attributes);
            }
        }
    }

    /// Ends the span with the attributes, which it takes.
    fn end(&mut self, stage: &Facts, status: Status, elapsed: Duration) {
        match self {
            Self::NotRecorded => {}
            Self::Noted(notes) => {
                let mut span = stage.builder(mem::take(&mut notes.events));
                span.attributes = Some(mem::take(&mut notes.attributes));
                let tracer = &stage.recording().tracer;
                tracer.record(span, stage.parent(), status, elapsed);
            }
            Self::Begun {
                context,
                attributes,
            } => {
                let span = context.span();
                span.set_attributes(mem::take(attributes));
                span.set_status(status);
                span.end_with_timestamp(stage.started_at() + elapsed);
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.running.is_some() {
            let unwinding = std::thread::panicking().then_some(Interruption::Panicked);
            self.close(unwinding);
        }
    }
}
