//! The rules for keys and values, put differently, and then `opentelemetry-proto`'s way.
//!
//! The fuzz target includes this file too.

use std::collections::HashSet;

#[cfg(feature = "logs")]
use opentelemetry::logs::AnyValue;
use opentelemetry::{Array, Key, KeyValue, Value};
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
#[cfg(feature = "logs")]
use opentelemetry_proto::tonic::{
    common::v1::{self as proto, any_value},
    logs::v1::{LogRecord, ScopeLogs},
};
#[cfg(feature = "logs")]
use opentelemetry_sdk::logs::SdkLogRecord;
use opentelemetry_sdk::trace::SpanData;

pub(crate) fn keep_last<T>(attributes: &mut Vec<T>, key: impl Fn(&T) -> &Key) {
    let mut seen = HashSet::new();
    attributes.reverse();
    attributes.retain(|attribute| seen.insert(key(attribute).clone()));
    attributes.reverse();
}

fn first_characters(text: &str, limit: Option<usize>) -> String {
    text.chars().take(limit.unwrap_or(usize::MAX)).collect()
}

/// The span with unique keys and short values.
pub(crate) fn limited(mut span: SpanData, limit: Option<usize>) -> SpanData {
    limit_all(&mut span.attributes, limit);
    for event in &mut span.events.events {
        limit_all(&mut event.attributes, limit);
    }
    for link in &mut span.links.links {
        limit_all(&mut link.attributes, limit);
    }
    span
}

fn limit_all(attributes: &mut Vec<KeyValue>, limit: Option<usize>) {
    keep_last(attributes, |attribute| &attribute.key);
    for attribute in attributes {
        match &mut attribute.value {
            Value::String(text) => *text = first_characters(text.as_str(), limit).into(),
            Value::Array(Array::String(texts)) => {
                for text in texts {
                    *text = first_characters(text.as_str(), limit).into();
                }
            }
            _ => {}
        }
    }
}

/// A message with one entry, which is then all of its bytes.
pub(crate) fn span(span: SpanData, limit: Option<usize>) -> ScopeSpans {
    ScopeSpans {
        spans: vec![Span::from(limited(span, limit))],
        ..ScopeSpans::default()
    }
}

/// The attributes of a log record with unique keys and short values.
#[cfg(feature = "logs")]
pub(crate) fn log_attributes(
    mut attributes: Vec<(Key, AnyValue)>,
    limit: Option<usize>,
) -> Vec<(Key, AnyValue)> {
    keep_last(&mut attributes, |(key, _)| key);
    for (_, value) in &mut attributes {
        shorten(value, limit);
    }
    attributes
}

#[cfg(feature = "logs")]
fn shorten(value: &mut AnyValue, limit: Option<usize>) {
    match value {
        AnyValue::String(text) => *text = first_characters(text.as_str(), limit).into(),
        AnyValue::Bytes(bytes) => bytes.truncate(limit.unwrap_or(usize::MAX)),
        AnyValue::ListAny(values) => values.iter_mut().for_each(|value| shorten(value, limit)),
        AnyValue::Map(values) => values.values_mut().for_each(|value| shorten(value, limit)),
        _ => {}
    }
}

/// The message of one record. Maps have no order; theirs is the encoder's.
#[cfg(feature = "logs")]
pub(crate) fn log_record(record: &SdkLogRecord) -> ScopeLogs {
    let mut record = LogRecord::from(record);
    let attributes = record.attributes.iter_mut();
    let values = attributes.filter_map(|pair| pair.value.as_mut());
    values.chain(record.body.as_mut()).for_each(reverse_maps);
    ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }
}

#[cfg(feature = "logs")]
fn reverse_maps(value: &mut proto::AnyValue) {
    match &mut value.value {
        Some(any_value::Value::ArrayValue(array)) => {
            array.values.iter_mut().for_each(reverse_maps);
        }
        Some(any_value::Value::KvlistValue(map)) => {
            map.values.reverse();
            let values = map.values.iter_mut();
            values
                .filter_map(|pair| pair.value.as_mut())
                .for_each(reverse_maps);
        }
        _ => {}
    }
}
