//! Arbitrary spans and log records through the OTLP encoder, beside `opentelemetry-proto`'s way.
//!
//! On the stable toolchain, for ten minutes:
//!
//! ```text
//! cd fuzz && mkdir -p corpus/encoding
//! cargo run --release --bin encoding -- -max_total_time=600 corpus/encoding
//! ```

#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use opentelemetry::{
    Array, InstrumentationScope, Key, KeyValue, StringValue, Value,
    logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity},
    trace::{Event, Link, SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::ScopeLogs,
    trace::v1::ScopeSpans,
};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    trace::{SpanData, SpanEvents, SpanLinks},
};
use prost::Message;

#[path = "../../src/telemetry/otlp/encode/mod.rs"]
#[allow(dead_code, unused_imports)]
mod encode;
#[path = "../../src/telemetry/otlp/encode/tests/expected.rs"]
mod expected;

fuzz_target!(|data: &[u8]| {
    let input = &mut Unstructured::new(data);
    // An error says that the input is too short for what it began.
    let _ = if input.ratio(2, 3).unwrap_or_default() {
        spans(input)
    } else {
        log_records(input)
    };
});

fn spans(u: &mut Unstructured<'_>) -> Result<()> {
    let limit = value_limit(u)?;
    let spans = some(u, 4, span)?;
    let mut entries = Vec::new();
    let mut messages = Vec::new();
    for span in spans {
        let entry = encode::span(&(&span).into(), limit, <[u8]>::to_vec);
        let message = expected::span(span, limit);
        assert_eq!(entry, message.encode_to_vec());
        let decoded = ScopeSpans::decode(&entry[..]).expect("valid protobuf");
        // As text, because a NaN differs from itself.
        assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
        entries.push(entry);
        messages.extend(message.spans);
    }

    let (resource, scope) = (resource(u)?, scope(u)?);
    let mut batch = encode::Batch::default();
    entries
        .iter()
        .for_each(|entry| batch.push(&scope, None, entry));
    let body = batch.request(&encode::Header::resource(&resource), 0);
    let request = ExportTraceServiceRequest::decode(&body[..]).expect("valid protobuf");
    let scopes = &request.resource_spans[0].scope_spans;
    let spans: Vec<_> = scopes.iter().flat_map(|scope| &scope.spans).collect();
    assert_eq!(format!("{spans:?}"), format!("{messages:?}"));
    assert_eq!(request.encode_to_vec(), body);
    Ok(())
}

fn log_records(u: &mut Unstructured<'_>) -> Result<()> {
    let limit = value_limit(u)?;
    let mut record = SdkLoggerProvider::builder()
        .build()
        .logger("")
        .create_log_record();
    if u.arbitrary()? {
        record.set_event_name("image.resized");
        record.set_severity_text("INFO");
        record.set_severity_number(Severity::Fatal4);
        record.set_timestamp(time(u)?);
        record.set_trace_context(
            u.arbitrary::<u128>()?.into(),
            u.arbitrary::<u64>()?.into(),
            u.arbitrary::<Option<u8>>()?.map(TraceFlags::new),
        );
        record.set_body(any_value(u, 8)?);
    }
    record.set_observed_timestamp(time(u)?);
    let attributes = some(u, 40, |u| Ok((Key::from(key(u)?), any_value(u, 8)?)))?;
    let mut limited = record.clone();
    record.add_attributes(attributes.clone());
    limited.add_attributes(expected::log_attributes(attributes, limit));

    let entry = encode::log_record(&record, usize::MAX, limit, <[u8]>::to_vec);
    let message = expected::log_record(&limited);
    assert_eq!(entry, message.encode_to_vec());
    let decoded = ScopeLogs::decode(&entry[..]).expect("valid protobuf");
    assert_eq!(format!("{decoded:?}"), format!("{message:?}"));

    let (resource, scope, target) = (resource(u)?, scope(u)?, u.arbitrary::<Option<&str>>()?);
    let mut batch = encode::Batch::default();
    batch.push(&scope, target, &entry);
    let body = batch.request(&encode::Header::resource(&resource), 0);
    let request = ExportLogsServiceRequest::decode(&body[..]).expect("valid protobuf");
    assert_eq!(request.encode_to_vec(), body);
    Ok(())
}

/// Up to `most` of them.
fn some<'a, T>(
    u: &mut Unstructured<'a>,
    most: usize,
    one: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let number = u.int_in_range(0..=most)?;
    (0..number).map(|_| one(u)).collect()
}

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    let text: &str = u.arbitrary()?;
    let times = [1, 1, 1, 1, 8, 128, 4096];
    Ok(text.repeat(*u.choose(&times)?))
}

/// Names that repeat, and others.
fn key(u: &mut Unstructured<'_>) -> Result<String> {
    let usual = ["", "a", "http.route", "http.request.method"];
    if u.arbitrary()? {
        text(u)
    } else {
        Ok((*u.choose(&usual)?).to_owned())
    }
}

fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    let string = |u: &mut Unstructured<'_>| text(u).map(StringValue::from);
    Ok(match u.int_in_range(0..=7)? {
        0 => Value::Bool(u.arbitrary()?),
        1 => Value::I64(u.arbitrary()?),
        2 => Value::F64(u.arbitrary()?),
        3 => Value::Array(Array::Bool(u.arbitrary()?)),
        4 => Value::Array(Array::I64(u.arbitrary()?)),
        5 => Value::Array(Array::F64(u.arbitrary()?)),
        6 => Value::Array(Array::String(some(u, 5, string)?)),
        _ => Value::String(string(u)?),
    })
}

fn any_value(u: &mut Unstructured<'_>, depth: usize) -> Result<AnyValue> {
    let kinds = if depth == 0 { 4 } else { 6 };
    Ok(match u.int_in_range(0..=kinds)? {
        0 => AnyValue::Boolean(u.arbitrary()?),
        1 => AnyValue::Int(u.arbitrary()?),
        2 => AnyValue::Double(u.arbitrary()?),
        3 => AnyValue::Bytes(Box::new(u.arbitrary()?)),
        4 => AnyValue::String(text(u)?.into()),
        5 => AnyValue::ListAny(Box::new(some(u, 5, |u| any_value(u, depth - 1))?)),
        _ => {
            let members = some(u, 5, |u| Ok((Key::from(key(u)?), any_value(u, depth - 1)?)))?;
            AnyValue::Map(Box::new(members.into_iter().collect()))
        }
    })
}

fn attributes(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<KeyValue>> {
    some(u, most, |u| Ok(KeyValue::new(key(u)?, value(u)?)))
}

fn value_limit(u: &mut Unstructured<'_>) -> Result<Option<usize>> {
    Ok(u.arbitrary::<Option<u16>>()?.map(usize::from))
}

fn time(u: &mut Unstructured<'_>) -> Result<SystemTime> {
    let time = Duration::from_nanos(u.arbitrary()?);
    Ok(UNIX_EPOCH + time)
}

fn span_context(u: &mut Unstructured<'_>) -> Result<SpanContext> {
    let state = text(u)?.parse().unwrap_or(TraceState::NONE);
    Ok(SpanContext::new(
        u.arbitrary::<u128>()?.into(),
        u.arbitrary::<u64>()?.into(),
        TraceFlags::new(u.arbitrary()?),
        u.arbitrary()?,
        state,
    ))
}

fn event(u: &mut Unstructured<'_>) -> Result<Event> {
    let (name, time) = (text(u)?, time(u)?);
    Ok(Event::new(name, time, attributes(u, 4)?, u.arbitrary()?))
}

fn link(u: &mut Unstructured<'_>) -> Result<Link> {
    let context = span_context(u)?;
    Ok(Link::new(context, attributes(u, 4)?, u.arbitrary()?))
}

fn span(u: &mut Unstructured<'_>) -> Result<SpanData> {
    let kinds = [
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    let mut events = SpanEvents::default();
    (events.events, events.dropped_count) = (some(u, 3, event)?, u.arbitrary()?);
    let mut links = SpanLinks::default();
    (links.links, links.dropped_count) = (some(u, 3, link)?, u.arbitrary()?);
    let status = match u.int_in_range(0..=2)? {
        0 => Status::Unset,
        1 => Status::Ok,
        _ => Status::error(text(u)?),
    };
    // Beyond the number from which on a table finds repeated keys, too.
    let most = *u.choose(&[12, 12, 12, 200])?;
    Ok(SpanData {
        span_context: span_context(u)?,
        parent_span_id: u.arbitrary::<u64>()?.into(),
        parent_span_is_remote: u.arbitrary()?,
        span_kind: u.choose(&kinds)?.clone(),
        name: text(u)?.into(),
        start_time: time(u)?,
        end_time: time(u)?,
        attributes: attributes(u, most)?,
        dropped_attributes_count: u.arbitrary()?,
        events,
        links,
        status,
        instrumentation_scope: InstrumentationScope::default(),
    })
}

fn scope(u: &mut Unstructured<'_>) -> Result<InstrumentationScope> {
    let scope = InstrumentationScope::builder(text(u)?).with_attributes(attributes(u, 4)?);
    let scope = scope.with_version(text(u)?).with_schema_url(text(u)?);
    Ok(scope.build())
}

fn resource(u: &mut Unstructured<'_>) -> Result<Resource> {
    let attributes = attributes(u, 4)?;
    let resource = Resource::builder_empty().with_schema_url(attributes, text(u)?);
    Ok(resource.build())
}
