use std::{borrow::Cow, cell::Cell, sync::Arc, time::SystemTime};

use opentelemetry::{
    KeyValue, StringValue,
    trace::{self, Event, Link, SpanContext, SpanRef, Status},
};

use super::{
    Writing,
    data::{Data, Limited},
    runs::Runs,
};
use crate::{
    instrument::{AddAttributes, First, ROUTE, SpanEnd, TextRules, WrittenSpans},
    telemetry::{otlp::encode::Attributes, settings::SpanLimits},
};

/// A span that has begun and not ended.
#[derive(Debug)]
struct Open {
    writing: Arc<Writing>,
    data: Box<Data>,
}

impl Open {
    fn change(&mut self, change: impl FnOnce(&mut Data, &SpanLimits)) {
        change(&mut self.data, &self.writing.limits);
    }

    /// Whether its trace may be decided while it is written.
    fn is_decided(&self) -> bool {
        self.writing.keeper().is_some()
    }

    fn write(self, context: &SpanContext, end: SystemTime) {
        let recorded = self.data.recorded(context, end);
        self.writing.write(&recorded, self.data.is_cancelled, false);
        self.data.recycle();
    }
}

/// How a span comes from its context to its owner, who ends it. A context lends its span locked, and nothing
/// must be locked while a span is written: a closure of the service's may decide about its trace.
enum HandOver {
    No,
    Asked,
    Given(Open),
}

thread_local! {
    static HAND_OVER: Cell<HandOver> = const { Cell::new(HandOver::No) };
}

/// The owners of written spans.
#[derive(Debug)]
pub(super) struct Owner;

impl WrittenSpans for Owner {
    fn can_end(&self) -> bool {
        HAND_OVER.try_with(|_| ()).is_ok()
    }

    fn end(&self, span: &SpanRef<'_>, end: SpanEnd<'_>) {
        // Not `LocalKey::set`, which moves the value through memory.
        HAND_OVER.with(|place| place.set(HandOver::Asked));
        span.end_with_timestamp(end.at);
        let HandOver::Given(mut open) = HAND_OVER.replace(HandOver::No) else {
            return;
        };
        open.change(|data, limits| {
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
        let is_decided = open.is_decided();
        open.write(span.span_context(), end.at);
        if is_decided {
            span.end_with_timestamp(end.at);
        }
    }
}

/// Writes the attributes of the span's owner.
struct Adding<'a> {
    attributes: Limited<'a>,
    texts: &'a TextRules,
    runs: &'a Runs,
}

impl Adding<'_> {
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

/// A span in its context.
#[derive(Debug)]
pub(super) struct Span {
    context: SpanContext,
    /// `None`: it ends.
    open: Option<Open>,
    /// What begins on another thread while the trace is decided belongs to it, as below a span that records.
    has_ended: bool,
}

impl Span {
    /// A span that begins with what `first` adds.
    #[inline]
    pub(super) fn new(
        context: SpanContext,
        writing: &Arc<Writing>,
        mut data: Box<Data>,
        first: Option<First<'_>>,
    ) -> Self {
        if let Some(first) = first {
            (first.add)(&mut Adding {
                attributes: data.attributes(&writing.limits),
                texts: first.texts,
                runs: &writing.runs,
            });
        }
        Self {
            context,
            open: Some(Open {
                writing: Arc::clone(writing),
                data,
            }),
            has_ended: false,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Data, &SpanLimits)) {
        if let Some(open) = &mut self.open {
            open.change(change);
        }
    }
}

impl trace::Span for Span {
    fn span_context(&self) -> &SpanContext {
        &self.context
    }

    fn is_recording(&self) -> bool {
        !self.has_ended
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
        self.change(|data, limits| data.add_event(event, limits));
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        self.change(|data, limits| data.set(&attribute, limits));
    }

    fn set_status(&mut self, status: Status) {
        self.change(|data, _| data.set_status(status));
    }

    fn update_name<T>(&mut self, name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        self.change(|data, _| data.name = name.into());
    }

    fn add_link(&mut self, span_context: SpanContext, attributes: Vec<KeyValue>) {
        let link = Link::new(span_context, attributes, 0);
        self.change(|data, limits| data.add_link(link, limits));
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        let Some(open) = self.open.take() else {
            self.has_ended = true;
            return;
        };
        let asked = HAND_OVER.try_with(|place| place.replace(HandOver::No));
        if matches!(asked, Ok(HandOver::Asked)) {
            self.has_ended = !open.is_decided();
            HAND_OVER.with(|place| place.set(HandOver::Given(open)));
        } else {
            open.write(&self.context, timestamp);
            self.has_ended = true;
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.write(&self.context, SystemTime::now());
        }
    }
}
