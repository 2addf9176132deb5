//! Export requests: headers around runs of entries.
//!
//! The three signals lay out their requests alike: field 1 of the request is the resource's message
//! (`ResourceSpans`, `ResourceLogs`), which has the resource in field 1, the scopes' messages
//! (`ScopeSpans`, `ScopeLogs`) in field 2 and its schema URL in field 3; the scopes' messages have
//! the scope, the entries and the schema URL in the same fields.

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use super::{
    ENTRIES,
    value::{key_value, unique},
    writer::{Writer, length_tag, varint_len},
};

/// What stands around the entries of one resource or of one scope.
#[derive(Debug)]
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

    /// The size around `inner` bytes.
    const fn around(&self, inner: usize) -> usize {
        self.before.len() + inner + self.after.len()
    }
}

/// The entries of one scope, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) scope: &'a Header,
    pub(crate) entries: &'a [u8],
}

impl<'a> Run<'a> {
    /// The first `count` entries, and the others.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        let mut rest = self.entries;
        for _ in 0..count {
            rest = after_entry(rest);
        }
        let (first, rest) = self.entries.split_at(self.entries.len() - rest.len());
        let run = |entries| Self { entries, ..self };
        (run(first), run(rest))
    }

    const fn size(&self) -> usize {
        self.scope.around(self.entries.len())
    }
}

/// What follows the first entry: a tag of one byte, a length, and as many bytes.
fn after_entry(entries: &[u8]) -> &[u8] {
    let mut size = 0;
    // A length takes at most nine bytes.
    for (index, byte) in entries.iter().enumerate().skip(1).take(9) {
        size |= u64::from(byte & 0x7f) << (7 * (index - 1));
        if byte & 0x80 == 0 {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            return entries[index + 1..].get(size..).unwrap_or_default();
        }
    }
    &[]
}

/// The size of the body that [`request`] makes of the same parts, in bytes.
pub(crate) fn request_size(resource: &Header, runs: &[Run<'_>]) -> usize {
    field_size(resource_size(resource, runs))
}

/// The body of an `ExportTraceServiceRequest` or `ExportLogsServiceRequest`, before compression.
pub(crate) fn request(resource: &Header, runs: &[Run<'_>]) -> Vec<u8> {
    let mut body = Vec::with_capacity(request_size(resource, runs));
    push_length(&mut body, 1, resource_size(resource, runs));
    body.extend_from_slice(&resource.before);
    for run in runs {
        push_length(&mut body, ENTRIES, run.size());
        body.extend_from_slice(&run.scope.before);
        body.extend_from_slice(run.entries);
        body.extend_from_slice(&run.scope.after);
    }
    body.extend_from_slice(&resource.after);
    body
}

fn resource_size(resource: &Header, runs: &[Run<'_>]) -> usize {
    resource.around(runs.iter().map(|run| field_size(run.size())).sum())
}

/// The size of a field with `size` bytes of content.
const fn field_size(size: usize) -> usize {
    1 + varint_len(size as u64) + size
}

fn push_length(body: &mut Vec<u8>, field: u8, mut size: usize) {
    body.push(length_tag(field));
    while size >= 0x80 {
        body.push(size as u8 | 0x80);
        size >>= 7;
    }
    body.push(size as u8);
}
