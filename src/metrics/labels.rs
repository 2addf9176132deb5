use std::sync::Arc;

use opentelemetry::KeyValue;

/// Attributes of the service's own for measurements, in the order of their keys. Most requests and stages
/// have none, so that these are one word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(Option<Arc<Vec<KeyValue>>>);

impl Labels {
    /// Sets an attribute in place of an earlier one of the same key.
    pub(crate) fn set(&mut self, attribute: KeyValue) {
        let Some(attributes) = &mut self.0 else {
            self.0 = Some(Arc::new(vec![attribute]));
            return;
        };
        let attributes = Arc::make_mut(attributes);
        match attributes.binary_search_by(|other| other.key.cmp(&attribute.key)) {
            Ok(found) => attributes[found] = attribute,
            Err(place) => attributes.insert(place, attribute),
        }
    }

    pub(crate) fn as_slice(&self) -> &[KeyValue] {
        self.0.as_ref().map_or(&[], |attributes| attributes)
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
