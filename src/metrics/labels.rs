use opentelemetry::KeyValue;

use crate::instrument::set;

/// Attributes of the service's own for measurements. Most requests and stages have none, so that these are
/// one word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(Option<Box<Kept>>);

#[derive(Clone, Debug, Default)]
struct Kept {
    attributes: Vec<KeyValue>,
}

impl Labels {
    /// Sets an attribute in place of an earlier one of the same key.
    pub(crate) fn set(&mut self, attribute: KeyValue) {
        set(&mut self.0.get_or_insert_default().attributes, attribute);
    }

    pub(crate) fn as_slice(&self) -> &[KeyValue] {
        self.0.as_ref().map_or(&[], |kept| &kept.attributes)
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
