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
    tonic::{
        collector::{
            metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
        },
        metrics::v1::{
            Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
            number_data_point,
        },
        trace::v1::ScopeSpans,
    },
    transform::trace::tonic::group_spans_by_resource_and_scope,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanLinks},
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use super::{Attributes, Batch, Header, Recorded, data_points, fields::Fields, metrics, span};

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
    span(&data.into(), limit, <[u8]>::to_vec)
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

    #[test]
    fn attributes_that_come_one_after_the_other_are_the_same_bytes(
        data in span_data(),
        limit in value_limit(),
    ) {
        let limit_of_each = limit.unwrap_or(usize::MAX);
        let mut written = Attributes::default();
        let others = [KeyValue::new("first", "text"), KeyValue::new("last", -7)];
        let keys = others.iter().chain(&data.attributes);
        // Each is set a second time.
        for attribute in keys.chain(&data.attributes) {
            written.remove(attribute.key.as_str());
            written.push(attribute, limit_of_each);
        }
        for other in &others {
            written.remove(other.key.as_str());
        }
        let mut expected = data.attributes.clone();
        expected::keep_last(&mut expected, |attribute| &attribute.key);
        expected.retain(|attribute| others.iter().all(|other| other.key != attribute.key));
        prop_assert_eq!(written.count() as usize, expected.len());
        let data = SpanData { attributes: expected, ..data };
        let span_of_bytes = Recorded {
            attributes: &[],
            written: written.written(),
            ..(&data).into()
        };
        prop_assert_eq!(span(&span_of_bytes, limit, <[u8]>::to_vec), encoded(&data, limit));
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
        let mut batch = Batch::default();
        for data in &spans {
            batch.push(&data.instrumentation_scope, None, &encoded(data, None));
        }
        let body = batch.request(&Header::resource(&resource), 5);
        prop_assert_eq!(&body[..5], [0; 5]);

        let resource = (&resource).into();
        let mut message = ExportTraceServiceRequest::default();
        for data in spans {
            let data = vec![expected::limited(data, None)];
            let group = group_spans_by_resource_and_scope(data, &resource);
            match message.resource_spans.first_mut() {
                None => message.resource_spans = group,
                Some(first) => {
                    for one in group.into_iter().flat_map(|group| group.scope_spans) {
                        let is_same = |known: &&mut ScopeSpans| {
                            known.scope == one.scope && known.schema_url == one.schema_url
                        };
                        match first.scope_spans.iter_mut().find(is_same) {
                            Some(known) => known.spans.extend(one.spans),
                            None => first.scope_spans.push(one),
                        }
                    }
                }
            }
        }
        prop_assert_eq!(&body[5..], message.encode_to_vec());
    }

    #[test]
    fn parts_hold_every_span_once_and_in_order(spans in vec(span_data(), 1..8)) {
        let mut batch = Batch::default();
        for data in &spans {
            batch.push(&data.instrumentation_scope, None, &encoded(data, None));
        }
        let resource = Header::resource(&Resource::builder_empty().build());
        let whole = names(&batch.request(&resource, 0));
        prop_assert_eq!(whole.len(), spans.len());
        let Some(parts) = batch.split(|_| 1) else {
            prop_assert_eq!(spans.len(), 1);
            return Ok(());
        };
        prop_assert_eq!(parts.iter().map(Batch::items).sum::<u64>(), batch.items());
        prop_assert_eq!(parts.iter().map(Batch::size).sum::<usize>(), batch.size());
        prop_assert!(parts.iter().all(|part| part.items() > 0));
        let parts = parts.iter().flat_map(|part| names(&part.request(&resource, 0)));
        prop_assert_eq!(parts.collect::<Vec<_>>(), whole);
    }
}

/// The names and ids of the spans in a request.
fn names(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let request = ExportTraceServiceRequest::decode(body).expect("valid protobuf");
    let resources = request.resource_spans.into_iter();
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    let spans = scopes.flat_map(|scope| scope.spans);
    spans.map(|span| (span.name, span.span_id)).collect()
}

fn metrics_request(points: usize) -> ExportMetricsServiceRequest {
    let point = |value| NumberDataPoint {
        time_unix_nano: 1,
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    };
    let sum = Sum {
        data_points: (0..points as i64).map(point).collect(),
        aggregation_temporality: 2,
        is_monotonic: true,
    };
    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        description: "Requests.".to_owned(),
        unit: "{request}".to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let gauge = Gauge {
        data_points: vec![point(7)],
    };
    let scope = |schema_url: &str, metrics| ScopeMetrics {
        schema_url: schema_url.to_owned(),
        metrics,
        ..ScopeMetrics::default()
    };
    let scopes = vec![
        scope("", vec![metric("sum", metric::Data::Sum(sum))]),
        scope("url", vec![metric("gauge", metric::Data::Gauge(gauge))]),
    ];
    let resource = ResourceMetrics {
        resource: Some(Default::default()),
        scope_metrics: scopes,
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![resource],
    }
}

fn gathered(request: &[u8], most: usize) -> Batch {
    let mut batch = Batch::default();
    metrics(request, most).for_each(|metric| batch.push_metric(&metric));
    batch
}

#[test]
fn metrics_are_gathered_as_they_were_encoded() {
    let request = metrics_request(100);
    let batch = gathered(&request.encode_to_vec(), usize::MAX);
    assert_eq!(batch.items(), 101);
    let resource = Header::resource(&Resource::builder_empty().build());
    assert_eq!(batch.request(&resource, 0), request.encode_to_vec());
    // A metric of its own is split between its data points.
    let items = |parts: &[Batch]| parts.iter().map(Batch::items).collect::<Vec<_>>();
    let parts = batch.split(data_points).unwrap();
    assert_eq!(items(&parts), [100, 1]);
    let parts = parts[0].split(data_points).unwrap();
    assert!(parts.len() > 1 && parts.len() < 4);
    assert_eq!(items(&parts).iter().sum::<u64>(), 100);
    assert!(
        batch.split(data_points).unwrap()[1]
            .split(data_points)
            .is_none()
    );
}

#[test]
fn a_metric_that_is_too_large_is_cut_between_its_data_points() {
    let request = metrics_request(1_000).encode_to_vec();
    let resource = Header::resource(&Resource::builder_empty().build());
    let mut values = Vec::new();
    for metric in metrics(&request, 500) {
        assert!(metric.size() < 600, "{}", metric.size());
        let mut batch = Batch::default();
        batch.push_metric(&metric);
        assert_eq!(batch.items(), metric.points());
        let body = batch.request(&resource, 0);
        let decoded = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
        let [metric] = &decoded.resource_metrics[0].scope_metrics[0].metrics[..] else {
            panic!("{decoded:?}");
        };
        assert_eq!(metric.unit, "{request}");
        let points = match metric.data.as_ref().unwrap() {
            metric::Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                &sum.data_points
            }
            metric::Data::Gauge(gauge) => &gauge.data_points,
            other => panic!("{other:?}"),
        };
        values.extend(points.iter().map(|point| point.value));
    }
    let value = |value| Some(number_data_point::Value::AsInt(value));
    assert!(values.into_iter().eq((0..1_000).chain([7]).map(value)));
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
    let (first, second) = span(&(&outer).into(), None, |bytes| {
        (bytes.to_vec(), encoded(&inner, None))
    });
    assert_eq!(first, expected::span(outer, None).encode_to_vec());
    assert_eq!(second, expected::span(inner, None).encode_to_vec());
}

#[test]
fn broken_messages_end() {
    for message in [
        &b""[..],
        b"\x12",
        b"\x12\x80",
        b"\x12\x05abc",
        &[
            0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ],
        b"\x0b",
        &[0xff; 30],
    ] {
        assert_eq!(Fields::new(message).count(), 0, "{message:?}");
        assert_eq!(metrics(message, 10).count(), 0);
    }
}
