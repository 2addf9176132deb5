//! Arbitrary header lines through one format, the one that the target is named after.
//!
//! On the stable toolchain, for ten minutes:
//!
//! ```text
//! cd fuzz && mkdir -p corpus/xray
//! cargo run --release --bin xray -- -max_total_time=600 corpus/xray seeds/xray
//! ```
//!
//! The input is one header line a text line: its first byte chooses the name, the rest is the value.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tower_image_trace::propagation::{HeaderExtractor, HeaderInjector, Propagators};

fuzz_target!(|data: &[u8]| {
    let format = env!("CARGO_BIN_NAME");
    let propagators: Propagators = format.parse().expect("a target is named after a format");
    let headers = headers(format, data);

    let cx = propagators.extract_headers(&Context::new(), &headers);
    let is_text = headers.values().all(|value| value.to_str().is_ok());
    if is_text {
        let extracted = propagators.extract(&HeaderExtractor(&headers));
        assert_eq!(describe(&extracted), describe(&cx), "both ways agree");
    }

    // What is invalid changes nothing, and what was there is not lost.
    let parent = parent();
    let within = Context::new()
        .with_remote_span_context(parent.clone())
        .with_baggage([opentelemetry::KeyValue::new("before", "kept")]);
    let within = propagators.extract_headers(&within, &headers);
    if !cx.span().span_context().is_valid() {
        assert_eq!(*within.span().span_context(), parent);
    }
    assert!(within.baggage().get("before").is_some());

    // Extracted and injected again, it is the same.
    let mut again = HeaderMap::new();
    propagators.inject_headers(&cx, &mut again);
    let mut injected = HeaderMap::new();
    propagators.inject_context(&cx, &mut HeaderInjector(&mut injected));
    if again.values().all(|value| value.to_str().is_ok()) {
        assert_eq!(again, injected, "both ways agree");
    }
    let second = propagators.extract_headers(&Context::new(), &again);
    let (first, second) = (describe(&cx), describe(&second));
    match format {
        // 64 of the 128 bits, and values that only some receivers take.
        "ottrace" => {
            let lower = |id: TraceId| u128::from_be_bytes(id.to_bytes()) as u64;
            if lower(first.0.trace_id()) != 0 {
                assert_eq!(lower(first.0.trace_id()), lower(second.0.trace_id()));
                assert_eq!(first.0.span_id(), second.0.span_id());
                assert_eq!(first.0.trace_flags(), second.0.trace_flags());
            }
        }
        // Escapes can be longer than what came in, so the last members may not fit.
        "baggage" => assert!(second.1.iter().all(|member| first.1.contains(member))),
        _ => assert_eq!(first, second),
    }
});

fn parent() -> SpanContext {
    let (trace_id, span_id) = (TraceId::from(1), SpanId::from(1));
    SpanContext::new(
        trace_id,
        span_id,
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    )
}

type Described = (SpanContext, Vec<(String, String, String)>);

fn describe(cx: &Context) -> Described {
    let member = |(key, (value, metadata)): (&opentelemetry::Key, &(_, _))| {
        let value: &opentelemetry::StringValue = value;
        let metadata: &opentelemetry::baggage::BaggageMetadata = metadata;
        (key.to_string(), value.to_string(), metadata.to_string())
    };
    let mut baggage: Vec<_> = cx.baggage().iter().map(member).collect();
    baggage.sort();
    (cx.span().span_context().clone(), baggage)
}

fn headers(format: &str, data: &[u8]) -> HeaderMap {
    let names: &[&'static str] = match format {
        "tracecontext" => &["traceparent", "tracestate"],
        "baggage" => &["baggage"],
        "b3" | "b3multi" => &[
            "b3",
            "x-b3-traceid",
            "x-b3-spanid",
            "x-b3-sampled",
            "x-b3-flags",
            "x-b3-parentspanid",
        ],
        "jaeger" => &["uber-trace-id"],
        "xray" => &["x-amzn-trace-id"],
        _ => &[
            "ot-tracer-traceid",
            "ot-tracer-spanid",
            "ot-tracer-sampled",
            "ot-baggage-foo",
            "ot-baggage-a.b",
            "ot-baggage-",
        ],
    };
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let [first, value @ ..] = line {
            let name = names[usize::from(first.wrapping_sub(b'0')) % names.len()];
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
    }
    headers
}
