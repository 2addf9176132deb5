use std::{borrow::Cow, cell::Cell, fmt, time::SystemTime};

use opentelemetry::{
    Key, KeyValue, StringValue, Value,
    trace::{SpanRef, Status},
};

use super::TextRules;

/// The attribute that the end of a request may still change.
pub(crate) const ROUTE: &str = "http.route";

/// What takes the attributes of a span one after the other, each with a new key.
pub(crate) trait AddAttributes {
    fn fixed(&mut self, key: &'static str, text: &'static str);

    /// A text that many spans share.
    fn shared(&mut self, key: &'static str, text: &StringValue);

    fn text(&mut self, key: &'static str, text: &str);

    fn number(&mut self, key: &'static str, number: i64);

    fn other(&mut self, attribute: KeyValue);

    /// Whether [`recurring`](Self::recurring) is quicker than adding the same again.
    fn keeps_recurring(&self) -> bool {
        false
    }

    /// The attributes that `add` makes of nothing but these texts, which recur together.
    fn recurring(&mut self, of: &[&str], add: &dyn Fn(&mut dyn AddAttributes));
}

/// Sets an attribute in place of an earlier one of the same key. Keys are unique in OTLP, but a span of
/// the SDK keeps each value that is set.
pub(crate) fn set(attributes: &mut Vec<KeyValue>, attribute: KeyValue) {
    let mut kept = attributes.iter_mut();
    match kept.find(|kept| kept.key == attribute.key) {
        Some(kept) => kept.value = attribute.value,
        None => attributes.push(attribute),
    }
}

/// The spans that are written down by the telemetry of the crate, without the SDK.
pub(crate) trait WrittenSpans: fmt::Debug + Send + Sync {
    /// Whether this can end spans: not while its thread ends.
    fn can_end(&self) -> bool;

    /// Ends a span, unless it has ended.
    fn end(&self, span: &SpanRef<'_>, end: SpanEnd<'_>);
}

/// What the owner of a span says at its end.
pub(crate) struct SpanEnd<'a> {
    pub(crate) at: SystemTime,
    /// `None`: as it began.
    pub(crate) name: Option<Cow<'static, str>>,
    /// With keys that the span does not have.
    pub(crate) last: &'a mut dyn Iterator<Item = KeyValue>,
    /// In place of the one that the span began with.
    pub(crate) route: Option<StringValue>,
    /// In place of others of the same keys.
    pub(crate) of_service: Vec<KeyValue>,
    pub(crate) status: Status,
    /// The attributes of the exception that the span ends with.
    pub(crate) exception: Option<Vec<KeyValue>>,
}

/// The attributes of a span that has begun, so that they can still be replaced until it ends.
#[derive(Debug, Default)]
pub(crate) enum SpanAttributes {
    /// The span does not record.
    #[default]
    None,
    Kept(Box<Kept>),
    Written(&'static dyn WrittenSpans),
}

/// The attributes of a span of the SDK, which has one value more of a key that is set twice.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Those of the attributes that the span began with. Their values stay, because its sampler saw them.
    seen: Vec<Key>,
    attributes: Vec<KeyValue>,
}

impl Kept {
    /// In memory that an ended span has left.
    fn new() -> Box<Self> {
        // The spare is missing while another span uses it, and while the thread ends.
        let spare = SPARE.try_with(Cell::take).unwrap_or_default();
        spare.unwrap_or_default()
    }

    fn set(&mut self, attribute: KeyValue) {
        if !self.seen.contains(&attribute.key) {
            set(&mut self.attributes, attribute);
        }
    }
}

/// Lists the attributes of a span of the SDK, cut as `texts` says.
pub(crate) struct Listed<'a> {
    attributes: &'a mut Vec<KeyValue>,
    /// The keys of those that a sampler sees.
    seen: Option<&'a mut Vec<Key>>,
    texts: &'a TextRules,
}

impl Listed<'_> {
    #[inline]
    fn add(&mut self, key: &'static str, value: impl FnOnce() -> Value) {
        if let Some(seen) = &mut self.seen {
            seen.push(Key::from_static_str(key));
        }
        // It is made in its place. A temporary one would be moved there at once, and the processor would stall on
        // reading what it has just written, at every attribute.
        let make = || KeyValue::new(key, value());
        self.attributes.extend(std::iter::once_with(make));
    }
}

impl AddAttributes for Listed<'_> {
    fn fixed(&mut self, key: &'static str, text: &'static str) {
        match self.texts.cut(text) {
            Cow::Borrowed(_) => self.add(key, || text.into()),
            Cow::Owned(cut) => self.add(key, || cut.into()),
        }
    }

    fn shared(&mut self, key: &'static str, text: &StringValue) {
        match self.texts.cut(text.as_str()) {
            Cow::Borrowed(_) => self.add(key, || text.clone().into()),
            Cow::Owned(cut) => self.add(key, || cut.into()),
        }
    }

    fn text(&mut self, key: &'static str, text: &str) {
        let text = self.texts.cut(text).into_owned();
        self.add(key, || text.into());
    }

    fn number(&mut self, key: &'static str, number: i64) {
        self.add(key, || number.into());
    }

    fn other(&mut self, mut attribute: KeyValue) {
        self.texts.cut_all(std::slice::from_mut(&mut attribute));
        if let Some(seen) = &mut self.seen {
            seen.push(attribute.key.clone());
        }
        self.attributes.push(attribute);
    }

    fn recurring(&mut self, _: &[&str], add: &dyn Fn(&mut dyn AddAttributes)) {
        add(self);
    }
}

thread_local! {
    /// Memory for one span after the other.
    static SPARE: Cell<Option<Box<Kept>>> = const { Cell::new(None) };
}

/// More attributes than most spans have.
const MOST_SPARE: usize = 64;

impl SpanAttributes {
    /// The attributes of a span of the SDK whose sampler saw none.
    pub(crate) fn unseen() -> Self {
        Self::Kept(Kept::new())
    }

    /// The attributes of a span of the SDK that begins with those that `add` adds to `attributes`, cut as `texts`
    /// says.
    pub(crate) fn seen(
        attributes: &mut Vec<KeyValue>,
        texts: &TextRules,
        add: impl FnOnce(&mut Listed<'_>),
    ) -> Self {
        let mut kept = Kept::new();
        add(&mut Listed {
            attributes,
            seen: Some(&mut kept.seen),
            texts,
        });
        Self::Kept(kept)
    }

    /// Adds attributes with new keys, cut as `texts` says.
    pub(crate) fn add(
        &mut self,
        span: &SpanRef<'_>,
        texts: &TextRules,
        add: impl Fn(&mut dyn AddAttributes),
    ) {
        match self {
            Self::None => {}
            Self::Kept(kept) => add(&mut Listed {
                attributes: &mut kept.attributes,
                seen: None,
                texts,
            }),
            Self::Written(_) => {
                let mut attributes = Vec::new();
                add(&mut Listed {
                    attributes: &mut attributes,
                    seen: None,
                    texts,
                });
                span.set_attributes(attributes);
            }
        }
    }

    /// Ends the span. What a sampler has seen is not replaced.
    pub(crate) fn end(self, span: &SpanRef<'_>, end: SpanEnd<'_>) {
        let mut kept = match self {
            Self::None => return,
            Self::Kept(kept) => kept,
            Self::Written(spans) if spans.can_end() => return spans.end(span, end),
            Self::Written(_) => Box::default(),
        };
        if end.status != Status::Unset {
            span.set_status(end.status);
        }
        if let Some(route) = end.route {
            kept.set(KeyValue::new(ROUTE, route));
        }
        if end.of_service.is_empty() {
            // By reference: moving an iterator costs more than its few attributes.
            span.set_attributes(kept.attributes.drain(..).chain(end.last).by_ref());
        } else {
            kept.attributes.extend(end.last);
            for attribute in end.of_service {
                kept.set(attribute);
            }
            span.set_attributes(kept.attributes.drain(..));
        }
        if let Some(name) = end.name {
            span.update_name(name);
        }
        if let Some(attributes) = end.exception {
            span.add_event_with_timestamp("exception", end.at, attributes);
        }
        span.end_with_timestamp(end.at);
        Self::Kept(kept).recycle();
    }

    /// Leaves the memory for the next span.
    pub(crate) fn recycle(self) {
        if let Self::Kept(mut kept) = self
            && kept.seen.capacity().max(kept.attributes.capacity()) <= MOST_SPARE
        {
            kept.seen.clear();
            kept.attributes.clear();
            let _ = SPARE.try_with(|spare| spare.set(Some(kept)));
        }
    }
}
