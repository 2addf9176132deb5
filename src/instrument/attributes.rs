use std::{cell::Cell, mem};

use opentelemetry::{Key, KeyValue, trace::SpanRef};

/// Adds an attribute that is made in its place. A temporary one would be moved there at once, and the
/// processor would stall on reading what it has just written, at every attribute.
#[inline]
pub(crate) fn add(attributes: &mut Vec<KeyValue>, attribute: impl FnOnce() -> KeyValue) {
    attributes.extend(std::iter::once_with(attribute));
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

/// The attributes of a span that has begun, kept until it ends so that they can still be replaced.
#[derive(Debug, Default)]
pub(crate) struct SpanAttributes {
    /// The keys with which the span began, because its sampler saw the values. They stay.
    seen: Vec<Key>,
    kept: Vec<KeyValue>,
}

thread_local! {
    /// Memory for the attributes of one span after the other.
    static SPARE: Cell<(Vec<Key>, Vec<KeyValue>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// More attributes than most spans have.
const MOST_SPARE: usize = 64;

impl SpanAttributes {
    /// None yet, in the memory of an earlier span.
    pub(crate) fn none() -> Self {
        // The spare is only missing while the thread ends.
        let (seen, kept) = SPARE.try_with(Cell::take).unwrap_or_default();
        Self { seen, kept }
    }

    /// The span begins with these.
    pub(crate) fn saw(&mut self, attributes: &[KeyValue]) {
        let keys = attributes.iter().map(|attribute| attribute.key.clone());
        self.seen.extend(keys);
    }

    /// Where attributes with new keys are added.
    pub(crate) fn kept(&mut self) -> &mut Vec<KeyValue> {
        &mut self.kept
    }

    /// Sets an attribute in place of an earlier one of the same key. One that was seen stays.
    pub(crate) fn set(&mut self, attribute: KeyValue) {
        if !self.seen.contains(&attribute.key) {
            set(&mut self.kept, attribute);
        }
    }

    /// Gives the attributes to the span, with these in place of others of the same keys.
    pub(crate) fn give(mut self, span: &SpanRef<'_>, replacing: Vec<KeyValue>) {
        for attribute in replacing {
            self.set(attribute);
        }
        span.set_attributes(self.kept.drain(..));
    }
}

impl Drop for SpanAttributes {
    fn drop(&mut self) {
        let (mut seen, mut kept) = (mem::take(&mut self.seen), mem::take(&mut self.kept));
        if (1..=MOST_SPARE).contains(&seen.capacity().max(kept.capacity())) {
            seen.clear();
            kept.clear();
            let _ = SPARE.try_with(|spare| spare.set((seen, kept)));
        }
    }
}
