use std::{borrow::Cow, cell::Cell, mem, time::SystemTime};

use opentelemetry::{
    KeyValue,
    trace::{Event, Link, SpanBuilder, SpanContext, SpanId, SpanKind, Status},
};

use crate::telemetry::{
    otlp::encode::{Attributes, Recorded},
    pipeline::says_cancelled,
    settings::SpanLimits,
};

/// What a span knows from its beginning, and gathers until it ends, within the limits.
#[derive(Debug)]
pub(super) struct Data {
    parent: SpanId,
    parent_is_remote: bool,
    kind: SpanKind,
    pub(super) start: SystemTime,
    pub(super) name: Cow<'static, str>,
    attributes: Attributes,
    /// Whether the attributes may have keys that their owner does not know of.
    has_others: bool,
    dropped_attributes: u32,
    events: Vec<Event>,
    dropped_events: u32,
    links: Vec<Link>,
    dropped_links: u32,
    status: Status,
    pub(super) is_cancelled: bool,
}

thread_local! {
    /// Memory for one span after the other.
    static SPARE: Cell<Option<Box<Data>>> = const { Cell::new(None) };
}

/// More bytes of attributes than most spans have.
const MOST_SPARE: usize = 4096;

impl Data {
    /// In memory that ended spans have left, which is not moved until the span ends.
    pub(super) fn new(span: SpanBuilder, parent: &SpanContext, limits: &SpanLimits) -> Box<Self> {
        // The spare is missing while another span uses it, and while the thread ends.
        let spare = SPARE.try_with(Cell::take).unwrap_or_default();
        let mut data = spare.unwrap_or_else(|| Box::new(Self::empty(Attributes::default())));
        data.parent = parent.span_id();
        data.parent_is_remote = parent.is_valid() && parent.is_remote();
        data.kind = span.span_kind.unwrap_or(SpanKind::Internal);
        data.start = span.start_time.unwrap_or_else(SystemTime::now);
        data.name = span.name;
        for attribute in span.attributes.unwrap_or_default() {
            data.add(&attribute, limits);
        }
        data.events = span.events.unwrap_or_default();
        data.dropped_events = cut_events(&mut data.events, limits);
        data.links = span.links.unwrap_or_default();
        data.dropped_links = cut_links(&mut data.links, limits);
        data
    }

    /// Leaves the memory for the next span.
    pub(super) fn recycle(mut self: Box<Self>) {
        if self.attributes.capacity() > MOST_SPARE {
            return;
        }
        let mut attributes = mem::take(&mut self.attributes);
        attributes.clear();
        *self = Self::empty(attributes);
        let _ = SPARE.try_with(|place| place.set(Some(self)));
    }

    fn empty(attributes: Attributes) -> Self {
        Self {
            parent: SpanId::INVALID,
            parent_is_remote: false,
            kind: SpanKind::Internal,
            start: SystemTime::UNIX_EPOCH,
            name: Cow::Borrowed(""),
            attributes,
            has_others: false,
            dropped_attributes: 0,
            events: Vec::new(),
            dropped_events: 0,
            links: Vec::new(),
            dropped_links: 0,
            status: Status::Unset,
            is_cancelled: false,
        }
    }

    pub(super) fn recorded<'a>(
        &'a self,
        context: &'a SpanContext,
        end: SystemTime,
    ) -> Recorded<'a> {
        Recorded {
            context,
            parent: self.parent,
            parent_is_remote: self.parent_is_remote,
            name: &self.name,
            kind: &self.kind,
            start: self.start,
            end,
            written: self.attributes.written(),
            attributes: &[],
            dropped_attributes: self.dropped_attributes,
            events: &self.events,
            dropped_events: self.dropped_events,
            links: &self.links,
            dropped_links: self.dropped_links,
            status: &self.status,
        }
    }

    pub(super) fn attributes<'a>(&'a mut self, limits: &SpanLimits) -> Limited<'a> {
        Limited {
            written: &mut self.attributes,
            dropped: &mut self.dropped_attributes,
            most: limits.attributes,
            value_limit: limits.attribute_value_length.unwrap_or(usize::MAX),
        }
    }

    /// Adds an attribute whose key its owner has not used before.
    pub(super) fn add(&mut self, attribute: &KeyValue, limits: &SpanLimits) {
        if self.has_others {
            self.attributes.remove(attribute.key.as_str());
        }
        self.is_cancelled |= says_cancelled(attribute);
        self.attributes(limits).push(attribute);
    }

    /// Sets an attribute in place of an earlier one of the same key.
    pub(super) fn set(&mut self, attribute: &KeyValue, limits: &SpanLimits) {
        self.has_others = true;
        self.add(attribute, limits);
    }

    pub(super) fn add_event(&mut self, mut event: Event, limits: &SpanLimits) {
        if self.events.len() >= limits.events as usize {
            self.dropped_events += 1;
            return;
        }
        cut_event(&mut event, limits);
        self.events.push(event);
    }

    pub(super) fn add_link(&mut self, mut link: Link, limits: &SpanLimits) {
        if self.links.len() >= limits.links as usize {
            self.dropped_links += 1;
            return;
        }
        cut_link(&mut link, limits);
        self.links.push(link);
    }

    /// `Ok` is final, and an error comes before none.
    pub(super) fn set_status(&mut self, status: Status) {
        if status > self.status {
            self.status = status;
        }
    }
}

/// Attributes that are written until there are `most`; further ones are counted.
pub(super) struct Limited<'a> {
    pub(super) written: &'a mut Attributes,
    pub(super) dropped: &'a mut u32,
    pub(super) most: u32,
    /// The most characters of a text.
    pub(super) value_limit: usize,
}

impl Limited<'_> {
    /// Whether all attributes of a run fit.
    pub(super) fn has_room(&self, run: &Attributes) -> bool {
        self.written.count() + run.count() <= self.most
    }

    fn room(&mut self) -> Option<&mut Attributes> {
        if self.written.count() < self.most {
            return Some(self.written);
        }
        *self.dropped += 1;
        None
    }

    #[inline]
    pub(super) fn text(&mut self, key: &str, text: &str) {
        let limit = self.value_limit;
        if let Some(written) = self.room() {
            written.text(key, text, limit);
        }
    }

    pub(super) fn number(&mut self, key: &str, number: i64) {
        if let Some(written) = self.room() {
            written.number(key, number);
        }
    }

    pub(super) fn push(&mut self, attribute: &KeyValue) {
        let limit = self.value_limit;
        if let Some(written) = self.room() {
            written.push(attribute, limit);
        }
    }
}

/// Keeps the first events that the limits allow; returns how many were dropped.
pub(super) fn cut_events(events: &mut Vec<Event>, limits: &SpanLimits) -> u32 {
    let dropped = cut(events, limits.events);
    for event in events {
        cut_event(event, limits);
    }
    dropped
}

fn cut_event(event: &mut Event, limits: &SpanLimits) {
    let most = limits.attributes_per_event;
    event.dropped_attributes_count += cut(&mut event.attributes, most);
}

/// Keeps the first links that the limits allow; returns how many were dropped.
pub(super) fn cut_links(links: &mut Vec<Link>, limits: &SpanLimits) -> u32 {
    let dropped = cut(links, limits.links);
    for link in links {
        cut_link(link, limits);
    }
    dropped
}

fn cut_link(link: &mut Link, limits: &SpanLimits) {
    let most = limits.attributes_per_link;
    link.dropped_attributes_count += cut(&mut link.attributes, most);
}

/// Keeps the first `most`; returns how many were dropped.
pub(super) fn cut<T>(list: &mut Vec<T>, most: u32) -> u32 {
    let dropped = list.len().saturating_sub(most as usize);
    list.truncate(most as usize);
    u32::try_from(dropped).unwrap_or(u32::MAX)
}
