//! Several formats at once: order, merging, and what must not be lost.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::{BaggageExt, BaggageMetadata};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use tower_image_trace::propagation::{
    Propagator, PropagatorError, Propagators, continued_trace_id, is_denied,
};

const W3C: (&str, &str) = (
    "traceparent",
    "00-11111111111111111111111111111111-1111111111111111-01",
);
const B3: (&str, &str) = ("b3", "22222222222222222222222222222222-2222222222222222-1");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const XRAY_ROOT: &str = "Root=1-8a3c60f7-d188f8fa79d48a391a778fa6";
const XRAY_ID: TraceId = TraceId::from_bytes(0x8a3c60f7d188f8fa79d48a391a778fa6_u128.to_be_bytes());

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn extract(names: &str, lines: &[(&str, &str)]) -> Context {
    let propagators: Propagators = names.parse().unwrap();
    propagators.extract_headers(&Context::new(), &headers(lines))
}

fn inject(names: &str, cx: &Context) -> HeaderMap {
    let propagators: Propagators = names.parse().unwrap();
    let mut headers = HeaderMap::new();
    propagators.inject_headers(cx, &mut headers);
    headers
}

fn trace_id(cx: &Context) -> TraceId {
    cx.span().span_context().trace_id()
}

fn baggage(cx: &Context) -> Vec<(String, String)> {
    let member = |(key, (value, _)): (&opentelemetry::Key, &(opentelemetry::StringValue, _))| {
        (key.to_string(), value.to_string())
    };
    let mut members: Vec<_> = cx.baggage().iter().map(member).collect();
    members.sort();
    members
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    pairs.iter().map(owned).collect()
}

/// `cx` with a local span of the same trace, as a service has it when it calls on.
fn with_child(cx: &Context, sampled: bool) -> Context {
    cx.with_remote_span_context(SpanContext::new(
        trace_id(cx),
        SpanId::from(7),
        TraceFlags::default().with_sampled(sampled),
        false,
        TraceState::NONE,
    ))
}

#[test]
fn names_are_those_of_otel_propagators() {
    let all = "tracecontext,baggage,b3,b3multi,jaeger,xray,ottrace";
    let propagators: Propagators = all.parse().unwrap();
    assert!(propagators.iter().eq(Propagator::ALL.iter().copied()));
    assert_eq!(propagators.to_string(), all);
    for &propagator in Propagator::ALL {
        assert_eq!(propagator.to_string().parse(), Ok(propagator));
    }
}

#[test]
fn blanks_and_repeated_names_do_no_harm() {
    let propagators: Propagators = " b3 ,, baggage,B3 ,".parse().unwrap();
    assert_eq!(propagators.to_string(), "b3,baggage");
    assert_eq!("".parse(), Ok(Propagators::default()));
    assert_eq!(Propagators::default().to_string(), "tracecontext,baggage");
}

#[test]
fn none_is_a_no_op() {
    for list in ["none", " NONE ", "b3,none,baggage"] {
        let propagators: Propagators = list.parse().unwrap();
        assert_eq!(propagators, Propagators::none(), "{list:?}");
        assert_eq!(propagators.to_string(), "none");
        assert_eq!(propagators.fields().count(), 0);
    }
    assert!(!extract("none", &[W3C]).span().span_context().is_valid());
    assert!(inject("none", &extract("tracecontext", &[W3C])).is_empty());
}

#[test]
fn an_unknown_name_is_an_error_that_lists_the_valid_ones() {
    let error = "baggage,zipkin".parse::<Propagators>().unwrap_err();
    assert_eq!(error, PropagatorError::Unknown("zipkin".to_owned()));
    let message = error.to_string();
    assert!(message.contains("\"zipkin\""), "{message}");
    for &propagator in Propagator::ALL {
        assert!(message.contains(propagator.name()), "{message}");
    }
    assert!(message.contains("none"), "{message}");
    assert!("none,zipkin".parse::<Propagators>().is_err());
}

#[test]
fn the_last_valid_parent_wins() {
    assert_eq!(
        trace_id(&extract("tracecontext,b3", &[W3C, B3])),
        TraceId::from(u128::MAX / 15 * 2)
    );
    assert_eq!(
        trace_id(&extract("b3,tracecontext", &[W3C, B3])),
        TraceId::from(u128::MAX / 15)
    );
}

#[test]
fn an_invalid_parent_changes_nothing() {
    let bad = [
        ("tracecontext", "traceparent", "00-0-0-0"),
        ("b3", "b3", "garbage"),
        (
            "b3multi",
            "x-b3-traceid",
            "22222222222222222222222222222222",
        ),
        ("jaeger", "uber-trace-id", "0:0:0:1"),
        ("xray", "x-amzn-trace-id", "Root=1-0-0;Parent=1;Sampled=1"),
        ("xray", "x-amzn-trace-id", XRAY_ROOT),
        ("ottrace", "ot-tracer-traceid", "2222222222222222"),
    ];
    let before = extract("tracecontext", &[W3C]);
    for (format, name, value) in bad {
        let propagators: Propagators = format.parse().unwrap();
        let after = propagators.extract_headers(&before, &headers(&[(name, value)]));
        assert_eq!(
            after.span().span_context(),
            before.span().span_context(),
            "{format}"
        );
    }
}

#[test]
fn all_formats_are_written() {
    let all = Propagators::new(Propagator::ALL);
    let cx = extract("tracecontext", &[W3C]).with_baggage([KeyValue::new("k", "v")]);
    let mut headers = HeaderMap::new();
    all.inject_headers(&cx, &mut headers);
    let mut written: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    written.sort_unstable();
    let want = [
        "b3",
        "baggage",
        "ot-baggage-k",
        "ot-tracer-sampled",
        "ot-tracer-spanid",
        "ot-tracer-traceid",
        "traceparent",
        "uber-trace-id",
        "x-amzn-trace-id",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
    ];
    assert_eq!(written, want);
    let fields: Vec<_> = all.fields().collect();
    assert!(
        want.iter()
            .all(|name| name.starts_with("ot-baggage-") || fields.contains(name))
    );
}

#[test]
fn each_b3_writes_its_own_encoding_only() {
    let cx = extract("b3", &[B3]);
    assert_eq!(inject("b3", &cx), headers(&[B3]));
    let multi = inject("b3multi", &cx);
    assert_eq!(multi.len(), 3);
    assert_eq!(multi["x-b3-traceid"], "22222222222222222222222222222222");
}

#[test]
fn baggage_of_several_formats_and_lines_is_merged() {
    let lines = [
        ("baggage", "a=1,b=2"),
        ("baggage", "c=3"),
        ("ot-tracer-traceid", "3333333333333333"),
        ("ot-tracer-spanid", "3333333333333333"),
        ("ot-baggage-d", "4"),
        ("ot-baggage-a", "5"),
    ];
    let cx = extract("baggage,ottrace", &lines);
    assert_eq!(
        baggage(&cx),
        pairs(&[("a", "5"), ("b", "2"), ("c", "3"), ("d", "4")])
    );
}

#[test]
fn garbage_does_not_wipe_baggage() {
    let before = Context::new().with_baggage([KeyValue::new("kept", "1")]);
    let propagators = Propagators::new([Propagator::Baggage, Propagator::OtTrace]);
    for garbage in ["", "garbage", "=v", "k=\"", "k=%zz", "\u{7f}\u{e9}"] {
        let mut lines = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(garbage.as_bytes()) {
            lines.insert("baggage", value);
        }
        let after = propagators.extract_headers(&before, &lines);
        assert_eq!(baggage(&after), pairs(&[("kept", "1")]), "{garbage:?}");
    }
    let after = propagators.extract_headers(&before, &headers(&[("baggage", "garbage,k=v")]));
    assert_eq!(baggage(&after), pairs(&[("k", "v"), ("kept", "1")]));
}

#[test]
fn baggage_values_may_have_equals_signs_and_properties_are_kept() {
    let line = "k=a=b%20c ; p1 ; p2 = x%3B ;; p3=, other=1;bad prop";
    let cx = extract("baggage", &[("baggage", line)]);
    let (value, properties) = cx.baggage().get_with_metadata("k").unwrap();
    assert_eq!(value.as_str(), "a=b c");
    assert_eq!(*properties, BaggageMetadata::from("p1;p2=x%3B;p3="));
    assert_eq!(
        cx.baggage().len(),
        1,
        "an invalid property makes its member invalid"
    );
    assert_eq!(
        inject("baggage", &cx)["baggage"],
        "k=a=b%20c;p1;p2=x%3B;p3="
    );
}

#[test]
fn properties_that_no_header_could_carry_are_not_written() {
    let mut all = opentelemetry::baggage::Baggage::new();
    all.insert_with_metadata("k", "v", "ok=1;evil,other=2;line\nbreak;fine");
    let sent = inject("baggage", &Context::new().with_baggage(all));
    assert_eq!(sent["baggage"], "k=v;ok=1;fine");
}

#[test]
fn baggage_is_limited_to_64_members_and_the_first_ones_stay() {
    let list: Vec<_> = (0..70).map(|n| format!("k{n:02}=v")).collect();
    let cx = extract(
        "baggage",
        &[
            ("baggage", &list[..40].join(",")),
            ("baggage", &list[40..].join(",")),
        ],
    );
    assert_eq!(cx.baggage().len(), 64);
    assert!(cx.baggage().get("k63").is_some());
    assert!(cx.baggage().get("k64").is_none());
}

#[test]
fn baggage_is_limited_to_8192_bytes_and_what_fits_stays() {
    let exactly = format!("k={}", "v".repeat(8190));
    assert_eq!(
        extract("baggage", &[("baggage", &exactly)]).baggage().len(),
        1
    );
    let too_long = format!("big={},small=1", "v".repeat(8200));
    assert_eq!(
        baggage(&extract("baggage", &[("baggage", &too_long)])),
        pairs(&[("small", "1")])
    );
    let two = format!("a={0},b={0},c=1", "v".repeat(4094));
    let cx = extract("baggage", &[("baggage", &two)]);
    assert!(cx.baggage().get("b").is_none() && cx.baggage().get("c").is_some());

    // Escapes make it longer on the way out.
    let spaces = " ".repeat(2000);
    let members = ["a", "b", "c"].map(|key| {
        KeyValue::new(
            key,
            if key == "b" {
                spaces.clone()
            } else {
                "x".repeat(3000)
            },
        )
    });
    let sent = inject("baggage", &Context::new().with_baggage(members));
    let line = sent["baggage"].to_str().unwrap();
    assert!(line.len() <= 8192 && line.starts_with("a=xxx") && line.contains(",c=xxx"));
}

#[test]
fn b3_debug_goes_on_as_debug() {
    let debug = ("b3", "22222222222222222222222222222222-2222222222222222-d");
    let cx = with_child(&extract("b3", &[debug]), true);
    let child = "22222222222222222222222222222222-0000000000000007-d";
    assert_eq!(inject("b3", &cx), headers(&[("b3", child)]));
    assert_eq!(inject("b3multi", &cx)["x-b3-flags"], "1");
    assert!(inject("b3multi", &cx).get("x-b3-sampled").is_none());
    assert!(
        inject("jaeger", &cx)["uber-trace-id"]
            .to_str()
            .unwrap()
            .ends_with(":3")
    );

    // The next header replaces it.
    let propagators = Propagators::new([Propagator::B3]);
    let later = propagators.extract_headers(&cx, &headers(&[("b3", &child.replace("-d", "-1"))]));
    assert_eq!(
        inject("b3", &later)["b3"],
        child.replace("-d", "-1").as_str()
    );
}

#[test]
fn a_deferred_b3_decision_is_sent_once_it_is_made() {
    let deferred = ("b3", "22222222222222222222222222222222-2222222222222222");
    let cx = extract("b3", &[deferred]);
    assert_eq!(inject("b3", &cx), headers(&[deferred]));
    let child = "22222222222222222222222222222222-0000000000000007-1";
    assert_eq!(inject("b3", &with_child(&cx, true))["b3"], child);
}

#[test]
fn a_sampling_state_without_ids_is_no_parent() {
    for line in [
        ("b3", "0"),
        ("b3", "1"),
        ("b3", "d"),
        ("x-b3-sampled", "0"),
        ("x-b3-flags", "1"),
    ] {
        assert!(
            !extract("b3", &[line]).span().span_context().is_valid(),
            "{line:?}"
        );
    }
    assert_eq!(
        inject("b3", &extract("b3multi", &[("x-b3-flags", "1")]))["b3"],
        "d"
    );
}

#[test]
fn stale_b3_headers_are_not_left_behind() {
    let mut outgoing = headers(&[
        ("x-b3-flags", "1"),
        ("x-b3-parentspanid", "0000000000000001"),
    ]);
    let propagators = Propagators::new([Propagator::B3Multi]);
    propagators.inject_headers(&extract("b3", &[B3]), &mut outgoing);
    assert_eq!(outgoing, inject("b3multi", &extract("b3", &[B3])));
}

#[test]
fn an_xray_root_alone_continues_the_trace_without_a_parent() {
    for header in [
        XRAY_ROOT.to_owned(),
        format!("Self=1-67891233-abcdef012345678912345678;{XRAY_ROOT}"),
        format!("{XRAY_ROOT};Sampled=?"),
        format!("{XRAY_ROOT};Sampled=1"),
    ] {
        let cx = extract("xray", &[("x-amzn-trace-id", &header)]);
        assert!(!cx.span().span_context().is_valid(), "{header}");
        assert_eq!(continued_trace_id(&cx), Some(XRAY_ID), "{header}");
    }
}

#[test]
fn an_open_xray_decision_continues_the_trace() {
    for sampled in ["", ";Sampled=?"] {
        let header = format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8{sampled}");
        let cx = extract("xray", &[("x-amzn-trace-id", &header)]);
        assert!(!cx.span().span_context().is_sampled());
        assert_eq!(continued_trace_id(&cx), Some(XRAY_ID), "{header}");
        assert_eq!(
            continued_trace_id(&with_child(&cx, true)),
            None,
            "the root span is there"
        );
    }
    for sampled in ["0", "1"] {
        let header = format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8;Sampled={sampled}");
        let cx = extract("xray", &[("x-amzn-trace-id", &header)]);
        assert_eq!(continued_trace_id(&cx), None, "{header}");
    }
}

#[test]
fn a_valid_parent_of_another_format_comes_before_an_xray_root() {
    for names in ["tracecontext,xray", "xray,tracecontext"] {
        let cx = extract(names, &[W3C, ("x-amzn-trace-id", XRAY_ROOT)]);
        assert_eq!(trace_id(&cx), TraceId::from(u128::MAX / 15), "{names}");
        assert_eq!(continued_trace_id(&cx), None, "{names}");
    }
}

#[test]
fn a_decision_of_another_format_on_the_same_parent_is_a_decision() {
    let header = format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8;Sampled=?");
    let traceparent = "00-8a3c60f7d188f8fa79d48a391a778fa6-53995c3f42cd8ad8-01";
    let lines = [("x-amzn-trace-id", &*header), ("traceparent", traceparent)];
    let cx = extract("xray,tracecontext", &lines);
    assert!(cx.span().span_context().is_sampled());
    assert_eq!(continued_trace_id(&cx), None);
}

/// Faults A9, for every format that can leave the decision open.
#[test]
fn a_parent_with_a_decision_comes_before_one_without() {
    let undecided = [
        (
            "xray",
            "x-amzn-trace-id",
            format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8"),
        ),
        (
            "xray",
            "x-amzn-trace-id",
            format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8;Sampled=?"),
        ),
        ("xray", "x-amzn-trace-id", XRAY_ROOT.to_owned()),
        ("b3", "b3", B3.1.trim_end_matches("-1").to_owned()),
        ("b3multi", "b3", B3.1.trim_end_matches("-1").to_owned()),
    ];
    for (format, name, value) in &undecided {
        for names in [
            format!("tracecontext,{format}"),
            format!("{format},tracecontext"),
        ] {
            let cx = extract(&names, &[W3C, (name, value)]);
            assert_eq!(
                trace_id(&cx),
                TraceId::from(u128::MAX / 15),
                "{names} {value}"
            );
            assert!(cx.span().span_context().is_sampled(), "{names} {value}");
            assert_eq!(continued_trace_id(&cx), None, "{names} {value}");
        }
    }
    let ottrace = [
        W3C,
        ("ot-tracer-traceid", "3333333333333333"),
        ("ot-tracer-spanid", "3333333333333333"),
        ("ot-baggage-a", "1"),
    ];
    let cx = extract("tracecontext,ottrace", &ottrace);
    assert_eq!(trace_id(&cx), TraceId::from(u128::MAX / 15));
    assert_eq!(baggage(&cx), pairs(&[("a", "1")]), "its baggage is kept");
}

#[test]
fn a_denial_in_another_format_is_a_decision_on_the_same_parent() {
    let header = format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8");
    let traceparent = "00-8a3c60f7d188f8fa79d48a391a778fa6-53995c3f42cd8ad8-00";
    let lines = [("x-amzn-trace-id", &*header), ("traceparent", traceparent)];
    for names in ["xray,tracecontext", "tracecontext,xray"] {
        let cx = extract(names, &lines);
        assert_eq!(continued_trace_id(&cx), None, "{names}");
        assert_eq!(
            inject("tracecontext", &cx)["traceparent"],
            traceparent,
            "{names}"
        );
    }
}

#[test]
fn a_decision_on_a_deferred_b3_parent_is_passed_on_as_b3() {
    let deferred = ("b3", B3.1.trim_end_matches("-1"));
    let traceparent = "00-22222222222222222222222222222222-2222222222222222-01";
    let lines = [deferred, ("traceparent", traceparent)];
    for names in ["b3,tracecontext", "tracecontext,b3"] {
        assert_eq!(
            inject("b3", &extract(names, &lines)),
            headers(&[B3]),
            "{names}"
        );
    }
}

#[test]
fn a_denial_without_ids_takes_nothing_from_a_span_that_is_there() {
    let debug = extract("b3", &[("b3", &*B3.1.replace("-1", "-d"))]);
    let propagators = Propagators::new([Propagator::B3]);
    let after = propagators.extract_headers(&debug, &headers(&[("b3", "0")]));
    assert_eq!(inject("b3", &after), inject("b3", &debug));
}

#[test]
fn the_same_parent_in_two_formats_keeps_its_tracestate_and_random_flag() {
    let lines = [
        (
            "traceparent",
            "00-22222222222222222222222222222222-2222222222222222-03",
        ),
        ("tracestate", "foo@=1,bar=2"),
        B3,
    ];
    for names in ["tracecontext,b3", "b3,tracecontext"] {
        let cx = extract(names, &lines);
        assert_eq!(inject("tracecontext", &cx), headers(&lines[..2]), "{names}");
    }
    // Another parent of the same format has none.
    let other = [
        lines[0],
        lines[1],
        ("b3", "22222222222222222222222222222222-3333333333333333-1"),
    ];
    let cx = extract("tracecontext,b3", &other);
    assert!(inject("tracecontext", &cx).get("tracestate").is_none());
}

/// Faults B4.
#[test]
fn a_denial_without_ids_is_kept_until_there_is_a_span() {
    let root = format!("{XRAY_ROOT};Sampled=0");
    for (names, lines) in [
        ("xray", &[("x-amzn-trace-id", &*root)][..]),
        ("b3", &[("b3", "0")]),
        ("b3multi", &[("b3", "0")]),
        ("b3", &[("x-b3-sampled", "0")]),
        ("b3multi", &[("x-b3-sampled", "false")]),
        ("tracecontext,b3", &[("b3", "0")]),
        ("xray,b3", &[("x-amzn-trace-id", XRAY_ROOT), ("b3", "0")]),
    ] {
        let cx = extract(names, lines);
        assert!(is_denied(&cx), "{names} {lines:?}");
        assert!(!is_denied(&with_child(&extract(names, &[]), false)));
        // A parent with a decision comes first, whichever is read first.
        for names in [
            format!("tracecontext,{names}"),
            format!("{names},tracecontext"),
        ] {
            let lines = [lines, &[W3C]].concat();
            let cx = extract(&names, &lines);
            assert!(!is_denied(&cx), "{names} {lines:?}");
            assert!(cx.span().span_context().is_sampled(), "{names} {lines:?}");
        }
    }
    assert_eq!(
        continued_trace_id(&extract("xray", &[("x-amzn-trace-id", &root)])),
        Some(XRAY_ID)
    );
    let undecided = format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8");
    let lines = [("x-amzn-trace-id", &*undecided), ("b3", "0")];
    assert!(is_denied(&extract("xray,b3", &lines)), "it decides");
    for line in [
        ("b3", "1"),
        ("b3", "d"),
        ("x-b3-sampled", "1"),
        ("x-b3-sampled", "x"),
    ] {
        assert!(!is_denied(&extract("b3", &[line])), "{line:?}");
    }
}

#[test]
fn xray_writes_no_foreign_fields() {
    let lines = [W3C, ("tracestate", "foreign=1")];
    let sent = inject("xray", &extract("tracecontext", &lines));
    let want = "Root=1-11111111-111111111111111111111111;Parent=1111111111111111;Sampled=1";
    assert_eq!(sent, headers(&[("x-amzn-trace-id", want)]));
}

#[test]
fn the_first_of_repeated_ottrace_lines_counts() {
    let lines = [
        ("ot-tracer-traceid", "3333333333333333"),
        ("ot-tracer-spanid", "3333333333333333"),
        ("ot-tracer-spanid", "4444444444444444"),
        ("ot-baggage-a", "1"),
        ("ot-baggage-a", "2"),
    ];
    let cx = extract("ottrace", &lines);
    let span_id = cx.span().span_context().span_id();
    assert_eq!(span_id, SpanId::from(0x3333_3333_3333_3333));
    assert_eq!(baggage(&cx), pairs(&[("a", "1")]));
}

#[test]
fn ottrace_keeps_the_baggage_that_is_valid() {
    let lines = [
        ("ot-tracer-traceid", "3333333333333333"),
        ("ot-tracer-spanid", "3333333333333333"),
        ("ot-tracer-sampled", "TRUE"),
        ("ot-baggage-bad", "a,b"),
        ("OT-Baggage-Good", "a%20b"),
    ];
    let cx = extract("ottrace", &lines);
    assert!(cx.span().span_context().is_sampled());
    assert_eq!(baggage(&cx), pairs(&[("good", "a b")]));
}

/// It begins a trace only where there is none.
#[test]
fn a_debug_id_beside_a_parent_counts_for_nothing_in_any_order() {
    for formats in ["jaeger,tracecontext", "tracecontext,jaeger"] {
        let propagators: Propagators = formats.parse().unwrap();
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        headers.insert("traceparent", parent.parse().unwrap());
        headers.insert("jaeger-debug-id", "why".parse().unwrap());
        let context = propagators.extract_headers(&Context::new(), &headers);
        let mut sent = HeaderMap::new();
        propagators.inject_headers(&context, &mut sent);
        assert_eq!(
            sent["uber-trace-id"], "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:0",
            "{formats}"
        );
    }
}

#[test]
fn a_lone_debug_flag_of_b3_counts_only_where_no_parent_has_decided() {
    let parent = format!("00-{TRACE}-{SPAN}-00");
    for flag in [("b3", "d"), ("x-b3-flags", "1")] {
        for names in ["b3,tracecontext", "tracecontext,b3"] {
            let cx = extract(names, &[("traceparent", &parent), flag]);
            let sent = &inject("b3", &cx)["b3"];
            assert_eq!(sent, &format!("{TRACE}-{SPAN}-0"), "{names}");
        }
    }
}

#[test]
fn the_debug_flag_of_jaeger_survives_a_parent_without_a_decision() {
    let debug = format!("{TRACE}:{SPAN}:0:3");
    let xray = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7";
    let (b3, trace) = (format!("{TRACE}-{SPAN}"), TRACE);
    for (name, lines) in [
        ("xray", &[("x-amzn-trace-id", xray)][..]),
        ("b3", &[("b3", &b3)]),
        (
            "ottrace",
            &[("ot-tracer-traceid", trace), ("ot-tracer-spanid", SPAN)],
        ),
    ] {
        let lines = [lines, &[("uber-trace-id", &debug)]].concat();
        for names in [format!("{name},jaeger"), format!("jaeger,{name}")] {
            let sent = inject("jaeger", &extract(&names, &lines));
            assert_eq!(sent["uber-trace-id"], debug, "{names}");
        }
    }
}

/// OT Trace has the lower half of the trace id only.
#[test]
fn all_formats_together_keep_the_whole_trace_id() {
    let cx = extract(
        "tracecontext",
        &[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))],
    );
    for names in [
        "tracecontext,ottrace",
        "tracecontext,baggage,b3,b3multi,jaeger,xray,ottrace",
    ] {
        let propagators: Propagators = names.parse().unwrap();
        let found = propagators.extract_headers(&Context::new(), &inject(names, &cx));
        assert_eq!(trace_id(&found).to_string(), TRACE, "{names}");
    }
    let half = format!("{}-{SPAN}-d", &TRACE[16..]);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let cx = extract(
        "tracecontext,b3",
        &[("traceparent", &parent), ("b3", &half)],
    );
    assert_eq!(inject("b3", &cx)["b3"], format!("{TRACE}-{SPAN}-d"));
}

/// A proxy passes on the headers that it has got.
#[test]
fn what_is_injected_into_forwarded_headers_is_what_the_next_hop_reads() {
    let ours = extract(
        "tracecontext",
        &[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))],
    );
    let forwarded = headers(&[
        B3,
        ("x-b3-traceid", "33333333333333333333333333333333"),
        ("x-b3-spanid", "3333333333333333"),
        ("x-b3-flags", "1"),
    ]);
    for names in ["b3", "b3multi", "b3,b3multi", "b3multi,b3"] {
        let propagators: Propagators = names.parse().unwrap();
        let mut sent = forwarded.clone();
        propagators.inject_headers(&ours, &mut sent);
        assert_eq!(sent, inject(names, &ours), "{names}");
    }
}

#[test]
fn baggage_that_the_service_has_removed_goes_on_in_no_format() {
    let forwarded = headers(&[
        ("ot-tracer-traceid", TRACE),
        ("ot-tracer-spanid", SPAN),
        ("ot-baggage-user", "alice"),
        ("ot-baggage-tier", "gold"),
    ]);
    let propagators: Propagators = "ottrace".parse().unwrap();
    let cx = propagators.extract_headers(&Context::new(), &forwarded);
    for (members, user, tier) in [
        (&[KeyValue::new("tier", "gold")][..], None, Some("gold")),
        (&[], Some("alice"), Some("gold")),
    ] {
        let mut sent = forwarded.clone();
        propagators.inject_headers(&cx.with_baggage(members.to_vec()), &mut sent);
        let sent = |name| sent.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(
            (sent("ot-baggage-user"), sent("ot-baggage-tier")),
            (user, tier)
        );
    }
}

#[test]
fn received_baggage_replaces_members_of_a_full_context() {
    let old = (0..64).map(|number| KeyValue::new(format!("k{number}"), "old"));
    let full = Context::new().with_baggage(old);
    for (names, line) in [
        ("baggage", &[("baggage", "k1=new,k99=new,k2=new")][..]),
        (
            "ottrace",
            &[
                ("ot-tracer-traceid", TRACE),
                ("ot-tracer-spanid", SPAN),
                ("ot-baggage-k1", "new"),
                ("ot-baggage-k99", "new"),
                ("ot-baggage-k2", "new"),
            ],
        ),
    ] {
        let propagators: Propagators = names.parse().unwrap();
        let cx = propagators.extract_headers(&full, &headers(line));
        let value = |key: &str| cx.baggage().get(key).map(ToString::to_string);
        assert_eq!(
            ["k1", "k2", "k3"].map(|key| value(key).unwrap()),
            ["new", "new", "old"]
        );
        assert_eq!(value("k99"), None, "{names}");
    }
}

/// A client writes `baggage: k=a%0D%0Ax-admin:%201`.
#[test]
fn no_line_break_in_baggage_becomes_a_header_of_its_own() {
    let lines = [W3C, ("baggage", "k=a%0D%0Ax-admin:%201,good=1")];
    let cx = extract("tracecontext,baggage", &lines);
    let propagators: Propagators = "ottrace".parse().unwrap();
    let mut sent = std::collections::HashMap::<String, String>::new();
    propagators.inject_context(&cx, &mut sent);
    assert_eq!(sent.get("ot-baggage-k"), None);
    assert_eq!(sent["ot-baggage-good"], "1");
    assert_eq!(inject("ottrace", &cx).get("ot-baggage-k"), None);
}
