//! What stands around the entries of a request.
//!
//! The three signals lay out their requests alike: field 1 of the request is the resource's message
//! (`ResourceSpans`, `ResourceLogs`, `ResourceMetrics`), which has the resource in field 1, the scopes'
//! messages (`ScopeSpans` and its siblings) in field 2 and its schema URL in field 3; the scopes'
//! messages have the scope, the entries and the schema URL in the same fields.

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use super::{
    ENTRIES,
    fields::Fields,
    value::{key_value, unique},
    writer::Writer,
};

/// What stands around the entries of one resource or of one scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Field 1: the resource or the scope.
    before: Box<[u8]>,
    /// Field 3: the schema URL.
    after: Box<[u8]>,
}

impl Header {
    pub(crate) fn resource(resource: &Resource) -> Self {
        let attributes: Vec<_> = resource.iter().collect();
        Self::new(resource.schema_url(), |w| {
            for (key, value) in attributes.iter().rev() {
                key_value(w, 1, key, value, usize::MAX);
            }
        })
    }

    /// `target` is the one of log records, which stands in the place of the scope's name.
    pub(crate) fn scope(scope: &InstrumentationScope, target: Option<&str>) -> Self {
        let attributes: Vec<_> = scope.attributes().collect();
        Self::new(scope.schema_url(), |w| {
            unique(
                &attributes,
                |attribute| &attribute.key,
                |attribute| key_value(w, 3, &attribute.key, &attribute.value, usize::MAX),
            );
            w.text(2, scope.version().unwrap_or_default());
            w.text(1, target.unwrap_or(scope.name()));
        })
    }

    fn new(schema_url: Option<&str>, fields: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = Writer::new();
        writer.message(1, fields);
        let before = writer.written().into();
        writer.clear();
        writer.text(3, schema_url.unwrap_or_default());
        let after = writer.written().into();
        Self { before, after }
    }

    /// The header of a scope's message that is encoded already.
    pub(super) fn read(scope: &[u8]) -> Self {
        let fields = |wanted: fn(u32) -> bool| {
            let fields = Fields::new(scope).filter(|field| wanted(field.number));
            fields.flat_map(|field| field.whole).copied().collect()
        };
        Self {
            before: fields(|number| number < u32::from(ENTRIES)),
            after: fields(|number| number > u32::from(ENTRIES)),
        }
    }

    /// The size around `inner` bytes.
    pub(super) const fn around(&self, inner: usize) -> usize {
        self.before.len() + inner + self.after.len()
    }

    /// Writes the header around what `inner` writes.
    pub(super) fn put(&self, body: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
        body.extend_from_slice(&self.before);
        inner(body);
        body.extend_from_slice(&self.after);
    }
}
