//! Each rule of W3C Trace Context, levels 1 and 2, on its own.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tower_image_trace::propagation::{Propagator, Propagators};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn propagators() -> Propagators {
    Propagators::new([Propagator::TraceContext])
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn extract(lines: &[(&str, &str)]) -> SpanContext {
    let cx = propagators().extract_headers(&Context::new(), &headers(lines));
    cx.span().span_context().clone()
}

fn inject(cx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    propagators().inject_headers(cx, &mut headers);
    headers
}

/// What goes on to the next hop for what came in.
fn pass_on(lines: &[(&str, &str)]) -> HeaderMap {
    inject(&propagators().extract_headers(&Context::new(), &headers(lines)))
}

#[track_caller]
fn assert_parent(traceparent: &str, flags: u8) {
    let span = extract(&[("traceparent", traceparent)]);
    let want = SpanContext::new(
        TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
        SpanId::from(0x00f0_67aa_0ba9_02b7),
        TraceFlags::new(flags),
        true,
        TraceState::NONE,
    );
    assert_eq!(span, want, "{traceparent:?}");
}

#[track_caller]
fn assert_no_parent(traceparents: &[&str]) {
    for traceparent in traceparents {
        let span = extract(&[("traceparent", traceparent), ("tracestate", "a=1")]);
        assert_eq!(span, SpanContext::NONE, "{traceparent:?}");
    }
}

/// The list that goes on with a valid parent, `None` when there is none.
fn tracestate(lines: &[&str]) -> Option<String> {
    let mut all = vec![("traceparent", PARENT)];
    all.extend(lines.iter().map(|line| ("tracestate", *line)));
    let sent = pass_on(&all);
    assert_eq!(
        sent["traceparent"], PARENT,
        "the parent stays, whatever the list"
    );
    let list = sent.get("tracestate")?;
    Some(list.to_str().unwrap().to_owned())
}

#[track_caller]
fn assert_list(lines: &[&str], want: &str) {
    assert_eq!(tracestate(lines).as_deref(), Some(want), "{lines:?}");
}

#[track_caller]
fn assert_no_list(lines: &[&str]) {
    assert_eq!(tracestate(lines), None, "{lines:?}");
}

#[test]
fn header_names_are_matched_in_any_case() {
    for name in ["traceparent", "Traceparent", "TRACEPARENT", "TrAcEpArEnT"] {
        assert!(extract(&[(name, PARENT)]).is_valid(), "{name}");
    }
    for name in ["trace-parent", "trace.parent"] {
        assert!(!extract(&[(name, PARENT)]).is_valid(), "{name}");
    }
}

#[test]
fn version_00_is_exactly_55_characters() {
    assert_parent(PARENT, 1);
    assert_no_parent(&[
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "",
    ]);
}

#[test]
fn fields_have_exactly_their_lengths_and_dashes_between() {
    assert_no_parent(&[
        "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "000-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47361-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b71-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
        "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
    ]);
}

#[test]
fn hex_is_lower_case_and_nothing_else() {
    assert_no_parent(&[
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
        "0A-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        "00-.bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ]);
}

#[test]
fn an_id_of_zeros_is_no_parent() {
    assert_no_parent(&[
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ]);
}

#[test]
fn version_ff_is_forbidden() {
    assert_no_parent(&["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]);
}

#[test]
fn a_higher_version_is_read_by_its_first_four_fields() {
    assert_parent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 1);
    assert_parent(
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
        1,
    );
    assert_parent(
        "fe-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-",
        0,
    );
    assert_no_parent(&[
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
    ]);
}

#[test]
fn a_higher_version_goes_on_as_version_00() {
    let sent = pass_on(&[(
        "traceparent",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
    )]);
    assert_eq!(sent["traceparent"], PARENT);
}

#[test]
fn level_2_keeps_the_random_flag() {
    assert_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02", 2);
    assert_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", 3);
    let random = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";
    assert_eq!(pass_on(&[("traceparent", random)])["traceparent"], random);
}

/// Faults B1: the SDK makes the span of a sampler's "no" without its parent's flags.
#[test]
fn the_random_flag_outlives_a_span_without_it() {
    let child = |parent: &Context, flags| {
        let trace_id = parent.span().span_context().trace_id();
        let span = SpanContext::new(trace_id, SpanId::from(7), flags, false, TraceState::NONE);
        let sent = inject(&parent.with_remote_span_context(span));
        let traceparent = sent["traceparent"].to_str().unwrap();
        traceparent[53..].to_owned()
    };
    for (came, sampled, goes) in [
        ("02", false, "02"),
        ("02", true, "03"),
        ("03", false, "02"),
        ("03", true, "03"),
        ("00", false, "00"),
        ("01", true, "01"),
    ] {
        let random = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{came}");
        let lines = headers(&[("traceparent", &random)]);
        let parent = propagators().extract_headers(&Context::new(), &lines);
        let flags = TraceFlags::default().with_sampled(sampled);
        assert_eq!(child(&parent, flags), goes, "{came}");

        // A later header of the same trace replaces it, another trace has nothing to do with it.
        let lines = headers(&[("traceparent", PARENT)]);
        let later = propagators().extract_headers(&parent, &lines);
        assert_eq!(child(&later, TraceFlags::NOT_SAMPLED), "00", "{came}");
        let other = PARENT.replace("4bf9", "5bf9");
        let lines = headers(&[("traceparent", &other)]);
        let other = propagators().extract_headers(&parent, &lines);
        assert_eq!(child(&other, TraceFlags::NOT_SAMPLED), "00", "{came}");
    }
}

#[test]
fn flags_that_are_not_defined_are_read_past_and_sent_as_zero() {
    assert_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09", 1);
    assert_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fc", 0);
    let cx = Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(1),
        SpanId::from(1),
        TraceFlags::new(0xff),
        false,
        TraceState::NONE,
    ));
    assert!(
        inject(&cx)["traceparent"]
            .to_str()
            .unwrap()
            .ends_with("-03")
    );
}

#[test]
fn two_traceparent_lines_are_no_parent() {
    assert!(!extract(&[("traceparent", PARENT), ("traceparent", PARENT)]).is_valid());
    assert!(!extract(&[("traceparent", PARENT), ("traceparent", "")]).is_valid());
}

#[test]
fn white_space_around_the_value_is_not_part_of_it() {
    assert_parent(&format!(" \t{PARENT}\t "), 1);
    assert_no_parent(&["00- 4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"]);
}

#[test]
fn without_a_valid_traceparent_the_tracestate_is_not_read() {
    assert_eq!(extract(&[("tracestate", "a=1")]), SpanContext::NONE);
    assert!(pass_on(&[("tracestate", "a=1")]).is_empty());
}

#[test]
fn an_invalid_parent_leaves_the_context_alone() {
    let before = Context::new().with_remote_span_context(extract(&[("traceparent", PARENT)]));
    let bad = headers(&[("traceparent", "garbage"), ("tracestate", "a=1")]);
    let after = propagators().extract_headers(&before, &bad);
    assert_eq!(after.span().span_context(), before.span().span_context());
}

#[test]
fn several_tracestate_lines_are_one_list_in_order() {
    assert_list(
        &["foo=1,bar=2", "rojo=1", "baz=3"],
        "foo=1,bar=2,rojo=1,baz=3",
    );
    assert_list(&["", "foo=1", ""], "foo=1");
}

#[test]
fn empty_members_are_allowed() {
    assert_list(&["a=1,,b=2,"], "a=1,b=2");
    assert_list(&[", \t ,a=1"], "a=1");
}

#[test]
fn no_empty_tracestate_is_sent() {
    assert_no_list(&[""]);
    assert_no_list(&[" , ,"]);
    assert_no_list(&[]);
}

#[test]
fn a_tracestate_of_an_earlier_hop_is_not_left_behind() {
    let mut outgoing = headers(&[("tracestate", "stale=1"), ("traceparent", "stale")]);
    let cx = propagators().extract_headers(&Context::new(), &headers(&[("traceparent", PARENT)]));
    propagators().inject_headers(&cx, &mut outgoing);
    assert_eq!(outgoing, headers(&[("traceparent", PARENT)]));
}

#[test]
fn white_space_around_members_is_ignored() {
    assert_list(&["a=1 \t , \tb=2, c=3 "], "a=1,b=2,c=3");
}

#[test]
fn a_value_keeps_its_leading_spaces_and_may_have_them_inside() {
    assert_list(&["a=  x y  "], "a=  x y");
}

#[test]
fn at_most_32_members() {
    let list = |count| {
        (0..count)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_list(&[&list(32)], &list(32));
    assert_no_list(&[&list(33)]);
    assert_no_list(&[&list(32), "one-more=1"]);
}

/// Faults B3.
#[test]
fn of_a_key_twice_the_first_is_kept() {
    assert_list(&["a=1,a=1"], "a=1");
    assert_list(&["foo=1,bar=2,foo=3"], "foo=1,bar=2");
    assert_list(&["a=1", "b=1,a=2"], "a=1,b=1");
    // A duplicate takes no place of the 32.
    let list: Vec<_> = (0..32).map(|n| format!("k{n}=v")).collect();
    let list = list.join(",");
    assert_list(&["k0=v", &list], &list);
}

#[test]
fn a_member_without_an_equals_sign_makes_the_list_invalid() {
    assert_no_list(&["a=1,b"]);
}

#[test]
fn simple_keys_keep_to_the_grammar() {
    assert_list(&["a0_-*/=1"], "a0_-*/=1");
    let longest = format!("{}=1", "z".repeat(256));
    assert_list(&[&longest], &longest);
    let too_long = format!("{}=1", "z".repeat(257));
    for bad in [
        "=1",
        "A=1",
        "a.b=1",
        "foo =1",
        "_a=1",
        "@a=1",
        "caf\u{e9}=1",
        &too_long,
    ] {
        assert_no_list(&["ok=1", bad]);
    }
}

/// Faults B2: the keys of level 2.
#[test]
fn at_signs_are_characters_like_others() {
    for key in [
        "1a",
        "0t@v",
        "foo@",
        "foo@@bar",
        "foo@bar@baz",
        "t@0v",
        "t@_v",
        &format!("{}@v", "t".repeat(242)),
        &format!("t@{}", "v".repeat(15)),
        &format!("{}@{}", "t".repeat(241), "v".repeat(14)),
    ] {
        let list = format!("first=0,{key}=1,last=2");
        assert_list(&[&list], &list);
    }
    let too_long = format!("{}@v=1", "t".repeat(255));
    for bad in ["@foo=1", "@=1", &too_long] {
        assert_no_list(&["ok=1", bad]);
    }
}

/// The API's `TraceState` does not take these keys.
#[test]
fn a_key_that_the_api_refuses_goes_on_in_its_place() {
    for key in ["foo@bar@baz", "t@vvvvvvvvvvvvvv", "t@_v"] {
        is_kept(key);
    }
}

fn is_kept(key: &str) {
    let list = format!("foo=1,{key}=2,bar=3");
    assert_list(&[&list], &list);

    // A child's list that was changed on the way: the new member first, none lost.
    let lines = [("traceparent", PARENT), ("tracestate", &list)];
    let cx = propagators().extract_headers(&Context::new(), &headers(&lines));
    let state = cx
        .span()
        .span_context()
        .trace_state()
        .insert("new", "0")
        .unwrap();
    let parent = cx.span().span_context().clone();
    let child = |trace_id| {
        let flags = TraceFlags::SAMPLED;
        let span = SpanContext::new(trace_id, SpanId::from(7), flags, false, state.clone());
        inject(&cx.with_remote_span_context(span))
    };
    let sent = child(parent.trace_id());
    assert_eq!(
        sent["tracestate"],
        format!("new=0,foo=1,bar=3,{key}=2").as_str()
    );
    // Another trace has nothing to do with it.
    assert_eq!(child(TraceId::from(9))["tracestate"], "new=0,foo=1,bar=3");
}

#[test]
fn values_keep_to_the_grammar() {
    let all: String = (' '..='~').filter(|c| !",=".contains(*c)).collect();
    assert_list(&[&format!("a={all}")], &format!("a={all}"));
    let longest = format!("a={}", "v".repeat(256));
    assert_list(&[&longest], &longest);
    let too_long = format!("a={}", "v".repeat(257));
    for bad in ["a=", "a= ", "a=b=c", "a=b\tc", "a=caf\u{e9}", &too_long] {
        assert_no_list(&["ok=1", bad]);
    }
}
