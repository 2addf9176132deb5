use std::cell::Cell;

use opentelemetry::{Key, KeyValue, trace::SpanRef};

use crate::intern::same;

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
pub(crate) struct SpanAttributes(Option<Box<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The first `seen` keys are those of this span. Keys of an earlier span may follow: they are left in
    /// place because the next span mostly has the same.
    keys: Vec<Key>,
    /// How many keys the span began with. Their values stay, because its sampler saw them.
    seen: usize,
    attributes: Vec<KeyValue>,
}

impl Kept {
    fn set(&mut self, attribute: KeyValue) {
        if !self.keys[..self.seen].contains(&attribute.key) {
            set(&mut self.attributes, attribute);
        }
    }
}

thread_local! {
    /// Memory for one span after the other.
    static SPARE: Cell<Option<Box<Kept>>> = const { Cell::new(None) };
}

/// More attributes than most spans have.
const MOST_SPARE: usize = 64;

impl SpanAttributes {
    /// The attributes of a span that begins with these.
    pub(crate) fn begun_with(attributes: &[KeyValue]) -> Self {
        // The spare is missing while another span uses it, and while the thread ends.
        let spare = SPARE.try_with(Cell::take).unwrap_or_default();
        let mut kept = spare.unwrap_or_default();
        let keys = &mut kept.keys;
        let known = attributes.iter().zip(&*keys);
        let known = known.take_while(|(new, old)| same(new.key.as_str(), old.as_str()));
        let known = known.count();
        if known < attributes.len() {
            keys.truncate(known);
            let new = attributes[known..].iter();
            keys.extend(new.map(|attribute| attribute.key.clone()));
        }
        kept.seen = attributes.len();
        Self(Some(kept))
    }

    /// Where attributes with new keys are added.
    pub(crate) fn kept(&mut self) -> &mut Vec<KeyValue> {
        &mut self.0.get_or_insert_default().attributes
    }

    /// Sets an attribute in place of an earlier one of the same key, unless a sampler has seen that.
    pub(crate) fn set(&mut self, attribute: KeyValue) {
        self.0.get_or_insert_default().set(attribute);
    }

    /// Gives the attributes to the span, then the `last` ones, which have new keys, and those of the
    /// service in place of others of the same keys.
    pub(crate) fn give(
        self,
        span: &SpanRef<'_>,
        last: impl Iterator<Item = KeyValue>,
        of_service: Vec<KeyValue>,
    ) {
        let mut kept = self.0.unwrap_or_default();
        if of_service.is_empty() {
            span.set_attributes(kept.attributes.drain(..).chain(last));
        } else {
            kept.attributes.extend(last);
            for attribute in of_service {
                kept.set(attribute);
            }
            span.set_attributes(kept.attributes.drain(..));
        }
        Self(Some(kept)).recycle();
    }

    /// Leaves the memory for the next span.
    pub(crate) fn recycle(self) {
        if let Some(mut kept) = self.0
            && kept.keys.capacity().max(kept.attributes.capacity()) <= MOST_SPARE
        {
            kept.attributes.clear();
            let _ = SPARE.try_with(|spare| spare.set(Some(kept)));
        }
    }
}
