//! Byte for byte what `opentelemetry-proto` makes of the same spans and log records.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Array, InstrumentationScope, Key, KeyValue, StringValue, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_proto::{
    tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ScopeSpans, Span},
    },
    transform::trace::tonic::group_spans_by_resource_and_scope,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanLinks},
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use super::{Header, Run, request, request_size, span};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => "[a-z/._]{0,40}",
        // Characters of one to four bytes.
        10 => "[aé€🦀]{0,70}",
        // About the lengths at which a length takes one byte more.
        4 => (110_usize..140).prop_map(|size| "x".repeat(size)),
        1 => (16_370_usize..16_390).prop_map(|size| "x".repeat(size)),
    ]
}

/// Names that repeat, and others.
fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,2}", "http\\.[a-d]{1,12}\\.[a-d]{1,12}", text()]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -1_i64..400]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => text().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        2 => number().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => vec(any::<bool>(), 0..4).prop_map(|values| Value::Array(Array::Bool(values))),
        1 => vec(number(), 0..40).prop_map(|values| Value::Array(Array::I64(values))),
        1 => vec(any::<f64>(), 0..4).prop_map(|values| Value::Array(Array::F64(values))),
        1 => vec(text().prop_map(StringValue::from), 0..4)
            .prop_map(|values| Value::Array(Array::String(values))),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(
        (key(), value()).prop_map(|(key, value)| KeyValue::new(key, value)),
        0..14,
    )
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u32>()]
}

fn time() -> impl Strategy<Value = SystemTime> {
    prop_oneof![
        1 => Just(UNIX_EPOCH),
        1 => Just(UNIX_EPOCH - Duration::from_secs(1)),
        4 => (0..u64::MAX).prop_map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos)),
    ]
}

fn trace_state() -> impl Strategy<Value = TraceState> {
    vec(("[a-z][a-z0-9]{0,5}", "[!-+.-<>-~]{0,20}"), 0..4)
        .prop_map(|members| TraceState::from_key_value(members).expect("the members are valid"))
}

fn span_context() -> impl Strategy<Value = SpanContext> {
    let id = (any::<u128>(), any::<u64>());
    (id, any::<u8>(), any::<bool>(), trace_state()).prop_map(
        |((trace, span), flags, is_remote, state)| {
            let flags = TraceFlags::new(flags);
            SpanContext::new(trace.into(), span.into(), flags, is_remote, state)
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Unset),
        Just(Status::Ok),
        text().prop_map(Status::error)
    ]
}

fn scope() -> impl Strategy<Value = InstrumentationScope> {
    (key(), option::of(text()), option::of(text()), attributes()).prop_map(
        |(name, version, schema_url, mut attributes)| {
            keep_last(&mut attributes);
            let mut scope = InstrumentationScope::builder(name).with_attributes(attributes);
            if let Some(version) = version {
                scope = scope.with_version(version);
            }
            if let Some(schema_url) = schema_url {
                scope = scope.with_schema_url(schema_url);
            }
            scope.build()
        },
    )
}

fn events() -> impl Strategy<Value = SpanEvents> {
    let event = (text(), time(), attributes(), count())
        .prop_map(|(name, time, attributes, dropped)| Event::new(name, time, attributes, dropped));
    (vec(event, 0..3), count()).prop_map(|(events, dropped)| {
        let mut all = SpanEvents::default();
        (all.events, all.dropped_count) = (events, dropped);
        all
    })
}

fn links() -> impl Strategy<Value = SpanLinks> {
    let link = (span_context(), attributes(), count())
        .prop_map(|(context, attributes, dropped)| Link::new(context, attributes, dropped));
    (vec(link, 0..3), count()).prop_map(|(links, dropped)| {
        let mut all = SpanLinks::default();
        (all.links, all.dropped_count) = (links, dropped);
        all
    })
}

fn span_data() -> impl Strategy<Value = SpanData> {
    let kind = prop_oneof![
        Just(SpanKind::Internal),
        Just(SpanKind::Server),
        Just(SpanKind::Client),
        Just(SpanKind::Producer),
        Just(SpanKind::Consumer),
    ];
    let parent = (prop_oneof![Just(0), any::<u64>()], any::<bool>());
    (
        (span_context(), parent, kind, text(), time(), time()),
        (attributes(), count(), events(), links(), status(), scope()),
    )
        .prop_map(
            |(
                (span_context, parent, span_kind, name, start_time, end_time),
                (attributes, dropped_attributes_count, events, links, status, scope),
            )| SpanData {
                span_context,
                parent_span_id: parent.0.into(),
                parent_span_is_remote: parent.1,
                span_kind,
                name: name.into(),
                start_time,
                end_time,
                attributes,
                dropped_attributes_count,
                events,
                links,
                status,
                instrumentation_scope: scope,
            },
        )
}

fn value_limit() -> impl Strategy<Value = Option<usize>> {
    option::of(prop_oneof![0_usize..80, Just(16_380)])
}

/// The rule that keys are unique, put differently.
fn keep_last(attributes: &mut Vec<KeyValue>) {
    let mut seen = HashSet::new();
    attributes.reverse();
    attributes.retain(|attribute| seen.insert(attribute.key.clone()));
    attributes.reverse();
}

fn first_characters(text: &str, limit: Option<usize>) -> String {
    text.chars().take(limit.unwrap_or(usize::MAX)).collect()
}

/// What is expected of the attributes of spans, events and links.
fn limited(attributes: &mut Vec<KeyValue>, limit: Option<usize>) {
    keep_last(attributes);
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

fn expected(mut span: SpanData, limit: Option<usize>) -> SpanData {
    limited(&mut span.attributes, limit);
    for event in &mut span.events.events {
        limited(&mut event.attributes, limit);
    }
    for link in &mut span.links.links {
        limited(&mut link.attributes, limit);
    }
    span
}

/// A message with one entry, which is then all of its bytes.
fn one_entry(span: SpanData) -> ScopeSpans {
    let spans = vec![Span::from(span)];
    ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }
}

fn encoded(data: &SpanData, limit: Option<usize>) -> Vec<u8> {
    span(data, limit, <[u8]>::to_vec)
}

/// A span without anything that could be left out.
fn plain_span(attributes: Vec<KeyValue>) -> SpanData {
    let flags = TraceFlags::SAMPLED;
    let (trace, id) = (TraceId::from(1), SpanId::from(2));
    SpanData {
        span_context: SpanContext::new(trace, id, flags, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "".into(),
        start_time: UNIX_EPOCH,
        end_time: UNIX_EPOCH,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

proptest! {
    #[test]
    fn a_span_is_what_opentelemetry_proto_writes(data in span_data(), limit in value_limit()) {
        let bytes = encoded(&data, limit);
        let message = one_entry(expected(data, limit));
        prop_assert_eq!(&bytes, &message.encode_to_vec());
        let decoded = ScopeSpans::decode(&bytes[..]).expect("valid protobuf");
        // As text, because a NaN differs from itself.
        prop_assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
    }

    #[test]
    fn a_request_is_what_opentelemetry_proto_writes(
        spans in vec(span_data(), 1..6),
        resource in attributes(),
        schema_url in option::of("[a-z]{1,200}"),
    ) {
        let resource = match schema_url {
            Some(url) => Resource::builder_empty().with_schema_url(resource, url),
            None => Resource::builder_empty().with_attributes(resource),
        }
        .build();
        let parts: Vec<_> = spans
            .iter()
            .map(|data| (Header::scope(&data.instrumentation_scope, None), encoded(data, None)))
            .collect();
        let runs: Vec<_> =
            parts.iter().map(|(scope, entries)| Run { scope, entries }).collect();
        let resource_header = Header::resource(&resource);
        let body = request(&resource_header, &runs);
        prop_assert_eq!(body.len(), request_size(&resource_header, &runs));

        let resource = (&resource).into();
        let mut message = ExportTraceServiceRequest::default();
        for data in spans {
            let group = group_spans_by_resource_and_scope(vec![expected(data, None)], &resource);
            match message.resource_spans.first_mut() {
                None => message.resource_spans = group,
                Some(first) => {
                    first.scope_spans.extend(group.into_iter().flat_map(|one| one.scope_spans));
                }
            }
        }
        prop_assert_eq!(body, message.encode_to_vec());
    }

    #[test]
    fn a_run_is_cut_between_any_two_entries(spans in vec(span_data(), 1..5)) {
        let entries: Vec<_> = spans.iter().map(|data| encoded(data, None)).collect();
        let scope = Header::scope(&InstrumentationScope::default(), None);
        let run = Run { scope: &scope, entries: &entries.concat() };
        for count in 0..=spans.len() + 1 {
            let (first, rest) = run.split_at(count);
            let middle = count.min(spans.len());
            prop_assert_eq!(first.entries, entries[..middle].concat());
            prop_assert_eq!(rest.entries, entries[middle..].concat());
        }
    }
}

#[test]
fn the_last_value_of_a_key_is_written_once() {
    // faults F4
    let pair = |key: String, value: i64| KeyValue::new(key, value);
    // Few enough for the filter, and so many that there is a table.
    for count in [1, 2, 10, 128, 129, 1_000] {
        let first = (0..count).map(|index| pair(format!("key.{index}"), 0));
        let second = (0..count).map(|index| pair(format!("key.{index}"), index));
        let bytes = encoded(&plain_span(first.chain(second.clone()).collect()), None);
        let expected = one_entry(plain_span(second.collect()));
        assert_eq!(bytes, expected.encode_to_vec(), "{count} keys");
    }
}

#[test]
fn times_outside_of_the_range_are_the_nearest_inside() {
    let far = UNIX_EPOCH + Duration::from_secs(u64::MAX / 1_000_000_000 + 1);
    let before = UNIX_EPOCH - Duration::from_nanos(1);
    let span = SpanData {
        start_time: before,
        end_time: far,
        ..plain_span(Vec::new())
    };
    let decoded = ScopeSpans::decode(&encoded(&span, None)[..]).unwrap();
    assert_eq!(decoded.spans[0].start_time_unix_nano, 0);
    assert_eq!(decoded.spans[0].end_time_unix_nano, u64::MAX);
}

#[test]
fn a_huge_value_is_written_whole_and_its_memory_not_kept() {
    let huge = "🦀".repeat(3 << 20);
    let span = plain_span(vec![KeyValue::new("huge", huge)]);
    assert_eq!(
        encoded(&span, None),
        one_entry(span.clone()).encode_to_vec()
    );
    super::WRITER.with_borrow(|kept| assert!(kept.capacity() <= super::KEPT));
}

#[test]
fn a_span_that_ends_while_another_is_taken_is_encoded_too() {
    let [outer, inner] = ["outer", "inner"].map(|name| SpanData {
        name: name.into(),
        ..plain_span(Vec::new())
    });
    let (first, second) = span(&outer, None, |bytes| {
        (bytes.to_vec(), encoded(&inner, None))
    });
    assert_eq!(first, one_entry(outer).encode_to_vec());
    assert_eq!(second, one_entry(inner).encode_to_vec());
}

#[test]
fn broken_entries_are_cut_nowhere() {
    let scope = Header::scope(&InstrumentationScope::default(), None);
    for entries in [&b""[..], b"\x12", b"\x12\x80", b"\x12\x05abc", &[0xff; 30]] {
        let run = Run {
            scope: &scope,
            entries,
        };
        let (first, rest) = run.split_at(1);
        assert_eq!((first.entries, rest.entries), (entries, &b""[..]));
    }
}

#[cfg(feature = "logs")]
mod logs {
    use std::ops::Range;

    use opentelemetry::logs::{
        AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity,
    };
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{self as proto, any_value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};

    use super::*;
    use crate::telemetry::otlp::encode::log_record;

    const SEVERITIES: [Severity; 4] = [
        Severity::Trace,
        Severity::Info,
        Severity::Error2,
        Severity::Fatal4,
    ];

    fn any_value() -> impl Strategy<Value = AnyValue> {
        let leaf = prop_oneof![
            4 => text().prop_map(AnyValue::from),
            1 => any::<bool>().prop_map(AnyValue::Boolean),
            2 => number().prop_map(AnyValue::Int),
            1 => any::<f64>().prop_map(AnyValue::Double),
            1 => vec(any::<u8>(), 0..200).prop_map(|bytes| AnyValue::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            let map = vec((key().prop_map(Key::from), inner.clone()), 0..5);
            prop_oneof![
                vec(inner, 0..5).prop_map(|values| AnyValue::ListAny(values.into())),
                map.prop_map(|values| { AnyValue::Map(Box::new(values.into_iter().collect())) }),
            ]
        })
    }

    /// What a record is made of; the SDK's can only be written.
    #[derive(Clone, Debug)]
    struct Plain {
        texts: (bool, bool, Option<String>),
        times: (Option<SystemTime>, SystemTime),
        context: Option<(u128, u64, Option<u8>)>,
        severity: Option<usize>,
        body: Option<AnyValue>,
        attributes: Vec<(Key, AnyValue)>,
    }

    impl Plain {
        fn record(&self) -> SdkLogRecord {
            let mut record = logger().create_log_record();
            let (event_name, severity_text, target) = &self.texts;
            if *event_name {
                record.set_event_name("image.resized");
            }
            if *severity_text {
                record.set_severity_text("INFO");
            }
            if let Some(target) = target {
                record.set_target(target.clone());
            }
            if let Some(time) = self.times.0 {
                record.set_timestamp(time);
            }
            record.set_observed_timestamp(self.times.1);
            if let Some((trace, span, flags)) = self.context {
                record.set_trace_context(trace.into(), span.into(), flags.map(TraceFlags::new));
            }
            if let Some(severity) = self.severity {
                record.set_severity_number(SEVERITIES[severity]);
            }
            if let Some(body) = &self.body {
                record.set_body(body.clone());
            }
            record.add_attributes(self.attributes.clone());
            record
        }

        fn expected(mut self, limit: Option<usize>) -> Self {
            let mut seen = HashSet::new();
            self.attributes.reverse();
            self.attributes.retain(|(key, _)| seen.insert(key.clone()));
            self.attributes.reverse();
            for (_, value) in &mut self.attributes {
                shorten(value, limit);
            }
            self
        }
    }

    fn shorten(value: &mut AnyValue, limit: Option<usize>) {
        match value {
            AnyValue::String(text) => *text = first_characters(text.as_str(), limit).into(),
            AnyValue::Bytes(bytes) => bytes.truncate(limit.unwrap_or(usize::MAX)),
            AnyValue::ListAny(values) => {
                values.iter_mut().for_each(|value| shorten(value, limit));
            }
            AnyValue::Map(values) => values.values_mut().for_each(|value| shorten(value, limit)),
            _ => {}
        }
    }

    fn attributes(number: Range<usize>) -> impl Strategy<Value = Vec<(Key, AnyValue)>> {
        vec((key().prop_map(Key::from), any_value()), number)
    }

    fn plain() -> impl Strategy<Value = Plain> {
        let context = (any::<u128>(), any::<u64>(), option::of(any::<u8>()));
        (
            (any::<bool>(), any::<bool>(), option::of(text())),
            (option::of(time()), time()),
            option::of(context),
            option::of(0..SEVERITIES.len()),
            option::of(any_value()),
            // Around the number that is encoded without an allocation, too.
            prop_oneof![attributes(0..8), attributes(30..40)],
        )
            .prop_map(
                |(texts, times, context, severity, body, attributes)| Plain {
                    texts,
                    times,
                    context,
                    severity,
                    body,
                    attributes,
                },
            )
    }

    fn logger() -> SdkLogger {
        SdkLoggerProvider::builder().build().logger("test")
    }

    fn encoded(record: &SdkLogRecord, limit: Option<usize>) -> Vec<u8> {
        log_record(record, limit, <[u8]>::to_vec)
    }

    /// The message of one record; maps, which have no order, as the encoder writes them.
    fn one_entry(record: &SdkLogRecord) -> ScopeLogs {
        let mut record = LogRecord::from(record);
        let values = record
            .attributes
            .iter_mut()
            .filter_map(|pair| pair.value.as_mut());
        values.chain(record.body.as_mut()).for_each(reverse_maps);
        ScopeLogs {
            log_records: vec![record],
            ..ScopeLogs::default()
        }
    }

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

    proptest! {
        #[test]
        fn a_log_record_is_what_opentelemetry_proto_writes(
            plain in plain(),
            limit in value_limit(),
        ) {
            let bytes = encoded(&plain.record(), limit);
            let message = one_entry(&plain.expected(limit).record());
            prop_assert_eq!(&bytes, &message.encode_to_vec());
            let decoded = ScopeLogs::decode(&bytes[..]).expect("valid protobuf");
            prop_assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
        }

        #[test]
        fn a_request_of_logs_is_what_opentelemetry_proto_writes(
            plain in plain(),
            scope in scope(),
            resource in super::attributes(),
        ) {
            let record = plain.expected(None).record();
            let resource = Resource::builder_empty().with_attributes(resource).build();
            let header = Header::scope(&scope, record.target().map(AsRef::as_ref));
            let entries = encoded(&record, None);
            let run = Run { scope: &header, entries: &entries };
            let body = request(&Header::resource(&resource), &[run]);

            let mut message = ResourceLogs::from(((&record, &scope), &(&resource).into()));
            message.scope_logs[0].log_records = one_entry(&record).log_records;
            let message = ExportLogsServiceRequest { resource_logs: vec![message] };
            prop_assert_eq!(body, message.encode_to_vec());
        }
    }

    #[test]
    fn a_record_that_was_never_observed_is_encoded() {
        // The SDK sets the time, but only when the record is emitted.
        let bytes = encoded(&logger().create_log_record(), None);
        assert_eq!(bytes, [0x12, 0]);
    }

    #[test]
    fn a_deep_value_stays_readable() {
        let wrap_in_map = |value| AnyValue::Map(Box::new([("deeper".into(), value)].into()));
        let wrap_in_list = |value| AnyValue::ListAny(vec![value].into());
        let deepest = || AnyValue::from("deepest");
        let mut record = logger().create_log_record();
        record.add_attribute(
            "map",
            (0..1_000).fold(deepest(), |value, _| wrap_in_map(value)),
        );
        record.add_attribute(
            "fits",
            (0..30).fold(deepest(), |value, _| wrap_in_map(value)),
        );
        record.set_body((0..1_000).fold(deepest(), |value, _| wrap_in_list(value)));
        let scope = Header::scope(&InstrumentationScope::default(), None);
        let entries = encoded(&record, None);
        let run = Run {
            scope: &scope,
            entries: &entries,
        };
        let body = request(
            &Header::resource(&Resource::builder_empty().build()),
            &[run],
        );
        let decoded = ExportLogsServiceRequest::decode(&body[..]).expect("not too deep");
        let shown = format!("{decoded:?}");
        assert_eq!(shown.matches("deepest").count(), 1);
        assert_eq!(shown.matches("KeyValueList").count(), 30 + 30);
        assert_eq!(shown.matches("ArrayValue(").count(), 30);
    }
}
