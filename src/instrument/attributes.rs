use opentelemetry::KeyValue;

/// Adds an attribute that is made in its place. A temporary one would be moved there at once, and the
/// processor would stall on reading what it has just written, at every attribute.
#[inline]
pub(crate) fn add(attributes: &mut Vec<KeyValue>, attribute: impl FnOnce() -> KeyValue) {
    attributes.extend(std::iter::once_with(attribute));
}
