//! Byte for byte what `opentelemetry-proto` makes of the same spans and log records.

mod expected;
#[cfg(feature = "logs")]
mod logs;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_proto::{
    tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::ScopeSpans},
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
            expected::keep_last(&mut attributes, |attribute| &attribute.key);
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
        let message = expected::span(data, limit);
        prop_assert_eq!(&bytes, &message.encode_to_vec());
        let decoded = ScopeSpans::decode(&bytes[..]).expect("valid protobuf");
        // As text, because a NaN differs from itself.
        prop_assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
    }

}

proptest! {
    // Several spans a case.
    #![proptest_config(ProptestConfig::with_cases(64))]

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
            let group = group_spans_by_resource_and_scope(vec![expected::limited(data, None)], &resource);
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
        let message = expected::span(plain_span(second.collect()), None);
        assert_eq!(bytes, message.encode_to_vec(), "{count} keys");
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
        expected::span(span.clone(), None).encode_to_vec()
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
    assert_eq!(first, expected::span(outer, None).encode_to_vec());
    assert_eq!(second, expected::span(inner, None).encode_to_vec());
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
