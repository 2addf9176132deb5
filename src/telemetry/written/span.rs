use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{self, Event, Link, SpanBuilder, SpanContext, Status},
};

use super::{
    Writing,
    data::{Data, Limited, Origin},
    runs::Runs,
};
use crate::{
    instrument::{AddAttributes, First, ROUTE, SpanEnd, TextRules, WrittenSpan},
    telemetry::{otlp::encode::Attributes, settings::SpanLimits},
};

/// A span that has begun, for its owner and for those who find it in a context.
pub(super) struct Open {
    writing: Arc<Writing>,
    origin: Origin,
    /// `None`: the span has ended.
    data: Mutex<Option<Box<Data>>>,
    /// Whether it has ended, known without the lock.
    has_ended: AtomicBool,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("data", &*self.data())
            .finish_non_exhaustive()
    }
}

impl Open {
    /// A span that begins with what `first` adds.
    #[inline]
    pub(super) fn new(
        writing: &Arc<Writing>,
        parent: &Context,
        span: SpanBuilder,
        first: Option<First<'_>>,
    ) -> Self {
        let origin = Origin::of(&span, parent);
        let mut data = Data::new(span, &writing.limits);
        if let Some(first) = first {
            (first.add)(&mut Adding::of(&mut data, writing, first.texts));
        }
        Self {
            origin,
            data: Mutex::new(Some(data)),
            writing: Arc::clone(writing),
            has_ended: AtomicBool::new(false),
        }
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    fn data(&self) -> MutexGuard<'_, Option<Box<Data>>> {
        // The data is whole after every statement.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Data, &SpanLimits)) {
        if let Some(data) = &mut *self.data() {
            change(data, &self.writing.limits);
        }
    }

    /// Ends the span after a last change, unless it has ended.
    fn end_after(
        &self,
        context: &SpanContext,
        at: SystemTime,
        change: impl FnOnce(&mut Data, &SpanLimits),
    ) {
        let taken = self.data().take();
        // Nothing is locked while the span is written: a closure of the service's may decide about its trace.
        if let Some(mut data) = taken {
            change(&mut data, &self.writing.limits);
            self.writing
                .write(&data.recorded(context, &self.origin, at), data.is_cancelled);
            data.recycle();
            self.has_ended.store(true, Ordering::Release);
        }
    }
}

impl WrittenSpan for Open {
    fn add(&self, texts: &TextRules, add: &mut dyn FnMut(&mut dyn AddAttributes)) {
        if let Some(data) = &mut *self.data() {
            add(&mut Adding::of(data, &self.writing, texts));
        }
    }

    fn end(&self, context: &SpanContext, end: SpanEnd<'_>) {
        self.end_after(context, end.at, |data, limits| {
            data.set_status(end.status);
            if let Some(route) = end.route {
                data.set(&KeyValue::new(ROUTE, route), limits);
            }
            for attribute in end.last {
                data.add(&attribute, limits);
            }
            for attribute in end.of_service {
                data.set(&attribute, limits);
            }
            if let Some(name) = end.name {
                data.name = name;
            }
            if let Some(attributes) = end.exception {
                data.add_event(Event::new("exception", end.at, attributes, 0), limits);
            }
        });
    }
}

/// Writes the attributes of the span's owner.
struct Adding<'a> {
    attributes: Limited<'a>,
    texts: &'a TextRules,
    runs: &'a Runs,
}

impl<'a> Adding<'a> {
    fn of(data: &'a mut Data, writing: &'a Writing, texts: &'a TextRules) -> Self {
        Self {
            attributes: data.attributes(&writing.limits),
            texts,
            runs: &writing.runs,
        }
    }

    #[inline]
    fn write(&mut self, key: &'static str, text: &str) {
        self.attributes.text(key, &self.texts.cut(text));
    }
}

impl AddAttributes for Adding<'_> {
    fn fixed(&mut self, key: &'static str, text: &'static str) {
        self.write(key, text);
    }

    fn shared(&mut self, key: &'static str, text: &StringValue) {
        self.write(key, text.as_str());
    }

    fn text(&mut self, key: &'static str, text: &str) {
        self.write(key, text);
    }

    fn number(&mut self, key: &'static str, number: i64) {
        self.attributes.number(key, number);
    }

    fn other(&mut self, mut attribute: KeyValue) {
        self.texts.cut_all(std::slice::from_mut(&mut attribute));
        self.attributes.push(&attribute);
    }

    fn keeps_recurring(&self) -> bool {
        true
    }

    fn recurring(&mut self, of: &[&str], add: &dyn Fn(&mut dyn AddAttributes)) {
        let (texts, runs) = (self.texts, self.runs);
        let value_limit = self.attributes.value_limit;
        let write = || {
            let (mut run, mut dropped) = (Attributes::default(), 0);
            add(&mut Adding {
                attributes: Limited {
                    written: &mut run,
                    dropped: &mut dropped,
                    most: u32::MAX,
                    value_limit,
                },
                texts,
                runs,
            });
            run
        };
        match runs
            .find(of, texts, write)
            .filter(|run| self.attributes.has_room(run))
        {
            Some(run) => self.attributes.written.append(run),
            None => add(self),
        }
    }
}

/// The span as others see it.
#[derive(Debug)]
pub(super) struct Span {
    context: SpanContext,
    open: Arc<Open>,
}

impl Span {
    pub(super) fn new(context: SpanContext, open: Arc<Open>) -> Self {
        Self { context, open }
    }
}

impl trace::Span for Span {
    fn span_context(&self) -> &SpanContext {
        &self.context
    }

    fn is_recording(&self) -> bool {
        !self.open.has_ended()
    }

    fn add_event_with_timestamp<T>(
        &mut self,
        name: T,
        timestamp: SystemTime,
        attributes: Vec<KeyValue>,
    ) where
        T: Into<Cow<'static, str>>,
    {
        let event = Event::new(name, timestamp, attributes, 0);
        self.open
            .change(|data, limits| data.add_event(event, limits));
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        self.open
            .change(|data, limits| data.set(&attribute, limits));
    }

    fn set_status(&mut self, status: Status) {
        self.open.change(|data, _| data.set_status(status));
    }

    fn update_name<T>(&mut self, name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        self.open.change(|data, _| data.name = name.into());
    }

    fn add_link(&mut self, span_context: SpanContext, attributes: Vec<KeyValue>) {
        let link = Link::new(span_context, attributes, 0);
        self.open.change(|data, limits| data.add_link(link, limits));
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        self.open.end_after(&self.context, timestamp, |_, _| {});
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.open.has_ended() {
            self.open
                .end_after(&self.context, SystemTime::now(), |_, _| {});
        }
    }
}
