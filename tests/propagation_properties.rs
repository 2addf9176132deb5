//! What holds for every context and for all bytes.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use proptest::prelude::*;
use tower_image_trace::propagation::{HeaderExtractor, Propagator, Propagators};

prop_compose! {
    fn span_context()(
        trace_id in 1_u128..,
        span_id in 1_u64..,
        flags in 0_u8..4,
        state in tracestate(),
    ) -> SpanContext {
        let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
        SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, state)
    }
}

fn tracestate() -> impl Strategy<Value = TraceState> {
    let key = "[a-z][a-z0-9_*/-]{0,20}|[a-z0-9][a-z0-9_*/-]{0,20}@[a-z][a-z0-9_*/-]{0,12}";
    let value = "[ -+\\--<>-~]{0,30}[!-+\\--<>-~]";
    prop::collection::btree_map(key, value, 0..=32)
        .prop_map(|members| TraceState::from_key_value(members).unwrap())
}

fn baggage(value: &'static str) -> impl Strategy<Value = Vec<KeyValue>> {
    let key = "[a-z0-9!#$%&'*+.^_`|~-]{1,20}";
    prop::collection::btree_map(key, value, 0..=64).prop_map(|members| {
        let member = |(key, value): (String, String)| KeyValue::new(key, value);
        members.into_iter().map(member).collect()
    })
}

fn members(cx: &Context) -> Vec<(String, String, String)> {
    let mut members: Vec<_> = cx
        .baggage()
        .iter()
        .map(|(key, (value, metadata))| (key.to_string(), value.to_string(), metadata.to_string()))
        .collect();
    members.sort();
    members
}

fn parent_in(cx: &Context) -> SpanContext {
    cx.span().span_context().clone()
}

/// Injected by one format and extracted again.
fn round_trip(format: Propagator, cx: &Context) -> Context {
    let propagators = Propagators::new([format]);
    let mut headers = HeaderMap::new();
    propagators.inject_headers(cx, &mut headers);
    propagators.extract_headers(&Context::new(), &headers)
}

/// What of a span context a format can carry.
fn carried(format: Propagator, span: &SpanContext) -> SpanContext {
    let id = span.trace_id().to_bytes();
    let (trace_id, flags, state) = match format {
        Propagator::TraceContext => (
            span.trace_id(),
            span.trace_flags(),
            span.trace_state().clone(),
        ),
        Propagator::OtTrace => {
            let low = u128::from_be_bytes(id) as u64;
            let flags = span.trace_flags() & TraceFlags::SAMPLED;
            (TraceId::from(u128::from(low)), flags, TraceState::NONE)
        }
        _ => {
            let flags = span.trace_flags() & TraceFlags::SAMPLED;
            (span.trace_id(), flags, TraceState::NONE)
        }
    };
    SpanContext::new(trace_id, span.span_id(), flags, true, state)
}

const NAMES: [&str; 20] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-b3-parentspanid",
    "uber-trace-id",
    "x-amzn-trace-id",
    "ot-tracer-traceid",
    "ot-tracer-spanid",
    "ot-tracer-sampled",
    "ot-baggage-",
    "ot-baggage-a",
    "ot-baggage-b",
    "traceparent",
    "baggage",
    "tracestate",
];

/// Bytes, or something that comes closer to what the parsers look for.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let near = "((00|cc|ff)[-:])?[0-9a-f]{0,34}[-:][0-9a-f]{0,18}([-:][01d]{0,2}){0,2}";
    let xray = "((Root|Parent|Sampled|Self)=[-?0-9a-f]{0,36};?){0,4}";
    let list = "([a-z@]{0,3}=?[ -~]{0,4}[,;]){0,40}";
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        near.prop_map(String::into_bytes),
        xray.prop_map(String::into_bytes),
        list.prop_map(String::into_bytes),
    ]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    let line = (prop::sample::select(&NAMES[..]), value());
    prop::collection::vec(line, 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_span_context_comes_back_as_the_format_can_carry_it(span in span_context()) {
        let cx = Context::new().with_remote_span_context(span.clone());
        for &format in Propagator::ALL {
            let want = carried(format, &span);
            if format == Propagator::Baggage || !want.is_valid() {
                continue;
            }
            let back = round_trip(format, &cx);
            prop_assert_eq!(parent_in(&back), want, "{}", format);
        }
    }

    #[test]
    fn baggage_comes_back(all in baggage("\\PC{0,20}")) {
        let cx = Context::new().with_baggage(all);
        // At most 64 members of 40 bytes and 20 characters: within the limits even if escaped.
        let fits = members(&cx).iter().map(|m| m.0.len() + m.1.len() * 3 + 2).sum::<usize>() <= 8192;
        prop_assume!(fits);
        prop_assert_eq!(members(&round_trip(Propagator::Baggage, &cx)), members(&cx));
    }

    #[test]
    fn ottrace_carries_baggage_that_needs_no_escapes(
        span in span_context(),
        all in baggage("[!#-$&-+\\--:<-\\[\\]-~]{0,20}"),
    ) {
        let cx = Context::new().with_remote_span_context(span.clone()).with_baggage(all);
        prop_assume!(carried(Propagator::OtTrace, &span).is_valid());
        prop_assert_eq!(members(&round_trip(Propagator::OtTrace, &cx)), members(&cx));
    }

    #[test]
    fn no_header_makes_a_format_panic_or_lose_what_was_there(headers in headers()) {
        let parent = SpanContext::new(
            TraceId::from(1), SpanId::from(1), TraceFlags::SAMPLED, true, TraceState::NONE,
        );
        let before = Context::new()
            .with_remote_span_context(parent.clone())
            .with_baggage([KeyValue::new("before", "kept")]);
        for &format in Propagator::ALL {
            let propagators = Propagators::new([format]);
            let fresh = propagators.extract_headers(&Context::new(), &headers);
            let after = propagators.extract_headers(&before, &headers);
            if fresh.span().span_context().is_valid() {
                prop_assert_eq!(parent_in(&after), parent_in(&fresh));
            } else {
                prop_assert_eq!(parent_in(&after), parent.clone());
            }
            prop_assert!(after.baggage().get("before").is_some());
            prop_assert!(after.baggage().len() <= 64);
        }
    }

    #[test]
    fn a_header_map_and_an_extractor_are_read_alike(headers in headers()) {
        // `HeaderExtractor` leaves out lines that are not text.
        prop_assume!(headers.values().all(|value| value.to_str().is_ok()));
        let propagators = Propagators::new(Propagator::ALL);
        let one = propagators.extract_headers(&Context::new(), &headers);
        let other = propagators.extract(&HeaderExtractor(&headers));
        prop_assert_eq!(parent_in(&one), parent_in(&other));
        prop_assert_eq!(members(&one), members(&other));
    }

    #[test]
    fn names_are_read_without_panic(list in "\\PC{0,40}|((b3|none|xray|baggage)?[ ,]){0,6}") {
        if let Ok(propagators) = list.parse::<Propagators>() {
            prop_assert_eq!(propagators.to_string().parse(), Ok(propagators));
        }
    }
}
