use std::ops::Range;

use opentelemetry::{
    Key,
    logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{ResourceLogs, ScopeLogs},
};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};

use super::{super::log_record, *};

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
        self.attributes = expected::log_attributes(self.attributes, limit);
        self
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
    log_record(record, usize::MAX, limit, <[u8]>::to_vec)
}

proptest! {
    #[test]
    fn a_log_record_is_what_opentelemetry_proto_writes(
        plain in plain(),
        limit in value_limit(),
    ) {
        let bytes = encoded(&plain.record(), limit);
        let message = expected::log_record(&plain.expected(limit).record());
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
        let target = record.target().map(AsRef::as_ref);
        let mut batch = Batch::default();
        batch.push(&scope, target, &encoded(&record, None));
        let body = batch.request(&Header::resource(&resource), 0);

        let mut message = ResourceLogs::from(((&record, &scope), &(&resource).into()));
        message.scope_logs[0].log_records = expected::log_record(&record).log_records;
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
fn attributes_beyond_the_limit_are_counted() {
    for number in [0, 3, 4, 5, 100] {
        let mut record = logger().create_log_record();
        record.add_attributes((0..number).map(|index| (format!("a{index}"), index)));
        let bytes = log_record(&record, 4, None, <[u8]>::to_vec);
        let decoded = ScopeLogs::decode(&bytes[..]).expect("valid protobuf");
        let decoded = &decoded.log_records[0];
        let mut keys: Vec<_> = decoded.attributes.iter().map(|pair| &*pair.key).collect();
        keys.sort_unstable();
        let kept = number.clamp(0, 4) as usize;
        assert_eq!(keys, ["a0", "a1", "a2", "a3"][..kept]);
        let dropped = decoded.dropped_attributes_count;
        assert_eq!(i64::from(dropped), number - kept as i64);
    }
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
    let mut batch = Batch::default();
    batch.push(
        &InstrumentationScope::default(),
        None,
        &encoded(&record, None),
    );
    let body = batch.request(&Header::resource(&Resource::builder_empty().build()), 0);
    let decoded = ExportLogsServiceRequest::decode(&body[..]).expect("not too deep");
    let shown = format!("{decoded:?}");
    assert_eq!(shown.matches("deepest").count(), 1);
    assert_eq!(shown.matches("KeyValueList").count(), 30 + 30);
    assert_eq!(shown.matches("ArrayValue(").count(), 30);
}
