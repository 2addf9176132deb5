//! The service of `examples/trace_context_service` passes the 41 tests of W3C's Trace Context test
//! suite (`test/test.py` of w3c/trace-context at acab820, `SPEC_LEVEL=2`), over real HTTP with the
//! header lines unchanged.

#[path = "../examples/trace_context_service/service.rs"]
mod service;

use std::collections::HashSet;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use http::{HeaderMap, Uri};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower_image_trace::Propagators;

const TRACE_ID: &str = "12345678901234567890123456789012";
const SAMPLED: &str = "traceparent: 00-12345678901234567890123456789012-1234567890123456-01";
const NOT_SAMPLED: &str = "traceparent: 00-12345678901234567890123456789012-1234567890123456-00";

/// The service, and the harness that it calls back.
struct Harness {
    service: SocketAddr,
    address: SocketAddr,
    callbacks: mpsc::UnboundedReceiver<(String, HeaderMap)>,
}

/// What the service sent with a call.
struct Sent {
    trace_id: String,
    parent_id: String,
    flags: String,
    tracestate: Option<String>,
}

async fn listen(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}

impl Harness {
    async fn start(propagators: &str) -> Self {
        let (told, callbacks) = mpsc::unbounded_channel();
        let called = async |State(told): State<mpsc::UnboundedSender<_>>, uri: Uri, headers| {
            told.send((uri.path().to_owned(), headers)).unwrap();
        };
        let harness = Router::new().fallback(called).with_state(told);
        let propagators: Propagators = propagators.parse().unwrap();
        Self {
            service: listen(service::app(SdkTracerProvider::default(), propagators)).await,
            address: listen(harness).await,
            callbacks,
        }
    }

    /// Sends the lines untouched: no client library has trimmed, sorted or joined them.
    async fn post(&self, lines: &[&str], body: &str) -> String {
        let mut request = String::from("POST /test HTTP/1.1\r\nhost: service\r\n");
        for line in lines {
            request.push_str(line);
            request.push_str("\r\n");
        }
        let length = body.len();
        request.push_str(&format!(
            "connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        let mut stream = TcpStream::connect(self.service).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response.lines().next().unwrap_or_default().to_owned()
    }

    /// Asks for `count` calls and returns the headers of each, in order.
    async fn calls(&mut self, lines: &[&str], count: usize) -> Vec<HeaderMap> {
        let call = |n| json!({ "url": format!("http://{}/{n}", self.address), "arguments": [] });
        let body = json!((0..count).map(call).collect::<Vec<_>>()).to_string();
        assert_eq!(self.post(lines, &body).await, "HTTP/1.1 200 OK");
        // The service awaits each call, so all of them have been received by now.
        let received = std::iter::from_fn(|| self.callbacks.try_recv().ok());
        let (paths, headers): (Vec<_>, _) = received.unzip();
        let want: Vec<_> = (0..count).map(|n| format!("/{n}")).collect();
        assert_eq!(paths, want, "one after the other");
        headers
    }

    async fn call(&mut self, lines: &[&str]) -> Sent {
        let headers = self.calls(lines, 1).await.remove(0);
        Sent::of(&headers)
    }
}

impl Sent {
    fn is_random(&self) -> bool {
        u8::from_str_radix(&self.flags, 16).unwrap() & 2 != 0
    }

    #[track_caller]
    fn of(headers: &HeaderMap) -> Self {
        let all = |name| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap())
        };
        let traceparents: Vec<_> = all("traceparent").collect();
        let [traceparent] = traceparents[..] else {
            panic!("not one traceparent: {traceparents:?}");
        };
        let fields: Vec<_> = traceparent.split('-').collect();
        let lengths: Vec<_> = fields.iter().map(|field| field.len()).collect();
        assert_eq!(lengths, [2, 32, 16, 2], "{traceparent}");
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f' | '-');
        assert!(traceparent.starts_with("00-") && traceparent.chars().all(is_hex));
        let tracestates: Vec<_> = all("tracestate").collect();
        assert!(tracestates.len() <= 1, "{tracestates:?}");
        Self {
            trace_id: fields[1].to_owned(),
            parent_id: fields[2].to_owned(),
            flags: fields[3].to_owned(),
            tracestate: tracestates.first().map(|list| list.to_string()),
        }
    }
}

/// The tests of the suite with three calls for one request.
const MULTIPLE_REQUESTS: [(&str, &[&str]); 3] = [
    ("multiple_requests_with_valid_traceparent", &[SAMPLED]),
    ("multiple_requests_without_traceparent", &[]),
    (
        "multiple_requests_with_illegal_traceparent",
        &["traceparent: 00-00000000000000000000000000000000-1234567890123456-01"],
    ),
];

/// What the next hop must get.
enum Want {
    /// The trace goes on, and this is its list, `""` for none.
    Continued(String),
    /// A trace of its own, without a list.
    Restarted,
}

fn with(list: impl Into<String>) -> Want {
    Want::Continued(list.into())
}

/// The list in one `tracestate` line after a valid parent.
fn state(list: &str) -> Vec<String> {
    vec![NOT_SAMPLED.to_owned(), format!("tracestate: {list}")]
}

/// `test_…` of the suite, the header lines of one of its requests, and what it expects.
fn cases() -> Vec<(&'static str, Vec<String>, Want)> {
    use Want::Restarted;
    let lines = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| line.to_string())
            .collect::<Vec<_>>()
    };
    let parent = |value: &str| vec![format!("traceparent: {value}")];
    let id = "12345678901234567890123456789012";
    let members = |numbers: std::ops::RangeInclusive<usize>| {
        let member = |n| format!("bar{n:02}={n:02}");
        numbers.map(member).collect::<Vec<_>>().join(",")
    };
    let count_limit = |last: usize| {
        let mut lines = vec![NOT_SAMPLED.to_owned()];
        for first in [1, 11, 21, 31] {
            let list = members(first..=(first + 9).min(last));
            lines.push(format!("tracestate: {list}"));
        }
        lines
    };
    let key_limit = |key: String| {
        let mut lines = state("foo=1");
        lines.push(format!("tracestate: {key}=1"));
        lines
    };
    let value: String = (' '..='~').filter(|c| !",=".contains(*c)).collect();
    let key: String = ('a'..='z').chain('0'..='9').chain("_-*/".chars()).collect();

    let mut cases = vec![
        ("both_traceparent_and_tracestate_missing", vec![], Restarted),
        (
            "traceparent_included_tracestate_missing",
            lines(&[SAMPLED]),
            with(""),
        ),
        (
            "traceparent_duplicated",
            lines(&[
                "traceparent: 00-12345678901234567890123456789011-1234567890123456-01",
                SAMPLED,
            ]),
            Restarted,
        ),
        (
            "tracestate_included_traceparent_missing",
            lines(&["tracestate: foo=1"]),
            Restarted,
        ),
        (
            "tracestate_included_traceparent_missing",
            lines(&["tracestate: foo=1,bar=2"]),
            Restarted,
        ),
        (
            "tracestate_included_traceparent_included",
            state("foo=1,bar=2"),
            with("foo=1,bar=2"),
        ),
        (
            "tracestate_header_name",
            lines(&[NOT_SAMPLED, "trace-state: foo=1"]),
            with(""),
        ),
        (
            "tracestate_header_name",
            lines(&[NOT_SAMPLED, "trace.state: foo=1"]),
            with(""),
        ),
        ("tracestate_empty_header", state(""), with("")),
        (
            "tracestate_empty_header",
            lines(&[NOT_SAMPLED, "tracestate: foo=1", "tracestate: "]),
            with("foo=1"),
        ),
        (
            "tracestate_empty_header",
            lines(&[NOT_SAMPLED, "tracestate: ", "tracestate: foo=1"]),
            with("foo=1"),
        ),
        (
            "tracestate_multiple_headers_different_keys",
            lines(&[
                NOT_SAMPLED,
                "tracestate: foo=1,bar=2",
                "tracestate: rojo=1,congo=2",
                "tracestate: baz=3",
            ]),
            with("foo=1,bar=2,rojo=1,congo=2,baz=3"),
        ),
        (
            "tracestate_duplicated_keys",
            state("foo=1,foo=1"),
            with("foo=1"),
        ),
        (
            "tracestate_duplicated_keys",
            state("foo=1,foo=2"),
            with("foo=1"),
        ),
        (
            "tracestate_duplicated_keys",
            lines(&[NOT_SAMPLED, "tracestate: foo=1", "tracestate: foo=1"]),
            with("foo=1"),
        ),
        (
            "tracestate_duplicated_keys",
            lines(&[NOT_SAMPLED, "tracestate: foo=1", "tracestate: foo=2"]),
            with("foo=1"),
        ),
        (
            "tracestate_member_count_limit",
            count_limit(32),
            with(members(1..=32)),
        ),
        ("tracestate_member_count_limit", count_limit(33), with("")),
        (
            "tracestate_key_length_limit",
            key_limit("z".repeat(256)),
            with(format!("foo=1,{}=1", "z".repeat(256))),
        ),
        (
            "tracestate_key_length_limit",
            key_limit("z".repeat(257)),
            with(""),
        ),
        (
            "propagates_random_flag",
            parent("00-12345678901234567890123456789012-1234567890123456-02"),
            with(""),
        ),
    ];
    for (tenant, vendor) in [(241, 14), (242, 1), (1, 15)] {
        let key = format!("{}@{}", "t".repeat(tenant), "v".repeat(vendor));
        let want = with(format!("foo=1,{key}=1"));
        cases.push(("tracestate_key_length_limit", key_limit(key), want));
    }
    for list in ["foo@=1,bar=2", "foo@@bar=1,bar=2", "foo@bar@baz=1,bar=2"] {
        let name = "tracestate_key_illegal_vendor_format";
        cases.push((name, state(list), with(list)));
    }
    for key in [key.clone(), key + "@a-z0-9_-*/"] {
        let list = format!("{key}={value}");
        cases.push((
            "tracestate_all_allowed_characters",
            state(&list),
            with(list),
        ));
    }
    for name in ["trace-parent", "trace.parent"] {
        let line = SAMPLED.replace("traceparent", name);
        cases.push(("traceparent_header_name", vec![line], Restarted));
    }
    for name in ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
        let line = SAMPLED.replace("traceparent", name);
        cases.push(("traceparent_header_name_valid_casing", vec![line], with("")));
    }
    for name in ["TraceState", "TrAcEsTaTe", "TRACESTATE"] {
        let lines = vec![NOT_SAMPLED.to_owned(), format!("{name}: foo=1")];
        cases.push(("tracestate_header_name_valid_casing", lines, with("foo=1")));
    }
    for (name, rest) in [
        ("traceparent_version_0xcc", ""),
        ("traceparent_version_0xcc", "-what-the-future-will-be-like"),
    ] {
        cases.push((
            name,
            parent(&format!("cc-{id}-1234567890123456-01{rest}")),
            with(""),
        ));
    }
    for (name, traceparent) in [
        (
            "traceparent_version_0x00",
            format!("00-{id}-1234567890123456-01."),
        ),
        (
            "traceparent_version_0x00",
            format!("00-{id}-1234567890123456-01-what-the-future-will-be-like"),
        ),
        (
            "traceparent_version_0xcc",
            format!("cc-{id}-1234567890123456-01.what-the-future-will-be-like"),
        ),
        (
            "traceparent_version_0xff",
            format!("ff-{id}-1234567890123456-01"),
        ),
        (
            "traceparent_version_illegal_characters",
            format!(".0-{id}-1234567890123456-01"),
        ),
        (
            "traceparent_version_illegal_characters",
            format!("0.-{id}-1234567890123456-01"),
        ),
        (
            "traceparent_version_too_long",
            format!("000-{id}-1234567890123456-01"),
        ),
        (
            "traceparent_version_too_long",
            format!("0000-{id}-1234567890123456-01"),
        ),
        (
            "traceparent_version_too_short",
            format!("0-{id}-1234567890123456-01"),
        ),
        (
            "traceparent_trace_id_all_zero",
            format!("00-{}-1234567890123456-01", "0".repeat(32)),
        ),
        (
            "traceparent_trace_id_illegal_characters",
            format!("00-.{}-1234567890123456-01", &id[1..]),
        ),
        (
            "traceparent_trace_id_illegal_characters",
            format!("00-{}.-1234567890123456-01", &id[..31]),
        ),
        (
            "traceparent_trace_id_too_long",
            format!("00-{id}3-1234567890123456-01"),
        ),
        (
            "traceparent_trace_id_too_short",
            format!("00-{}-1234567890123456-01", &id[..31]),
        ),
        (
            "traceparent_parent_id_all_zero",
            format!("00-{id}-0000000000000000-01"),
        ),
        (
            "traceparent_parent_id_illegal_characters",
            format!("00-{id}-.234567890123456-01"),
        ),
        (
            "traceparent_parent_id_illegal_characters",
            format!("00-{id}-123456789012345.-01"),
        ),
        (
            "traceparent_parent_id_too_long",
            format!("00-{id}-12345678901234567-01"),
        ),
        (
            "traceparent_parent_id_too_short",
            format!("00-{id}-123456789012345-01"),
        ),
        (
            "traceparent_trace_flags_illegal_characters",
            format!("00-{id}-1234567890123456-.0"),
        ),
        (
            "traceparent_trace_flags_illegal_characters",
            format!("00-{id}-1234567890123456-0."),
        ),
        (
            "traceparent_trace_flags_too_long",
            format!("00-{id}-1234567890123456-001"),
        ),
        (
            "traceparent_trace_flags_too_short",
            format!("00-{id}-1234567890123456-1"),
        ),
    ] {
        cases.push((name, parent(&traceparent), Restarted));
    }
    for (before, after) in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")] {
        let parent = SAMPLED.replace(": ", &format!(": {before}")) + after;
        cases.push(("traceparent_ows_handling", vec![parent], with("")));
        let lines = state(&format!("{before}foo=1{after}"));
        cases.push(("tracestate_ows_handling", lines, with("foo=1")));
    }
    for list in [
        "foo=1 \t , \t bar=2, \t baz=3",
        "foo=1\t \t,\t \tbar=2,\t \tbaz=3",
    ] {
        cases.push((
            "tracestate_ows_handling",
            state(list),
            with("foo=1,bar=2,baz=3"),
        ));
    }
    for (name, list) in [
        ("tracestate_key_illegal_characters", "foo =1"),
        ("tracestate_key_illegal_characters", "FOO=1"),
        ("tracestate_key_illegal_characters", "foo.bar=1"),
        ("tracestate_key_illegal_vendor_format", "@foo=1,bar=2"),
        ("tracestate_value_illegal_characters", "foo=bar=baz"),
        ("tracestate_value_illegal_characters", "foo=,bar=3"),
    ] {
        cases.push((name, state(list), with("")));
    }
    cases
}

#[tokio::test]
async fn the_w3c_suite_passes() {
    let mut harness = Harness::start("tracecontext,baggage").await;
    let cases = cases();
    let tests: HashSet<_> = cases.iter().map(|(name, ..)| *name).collect();
    assert_eq!(tests.len() + MULTIPLE_REQUESTS.len(), 41);
    for (name, lines, want) in cases {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let sent = harness.call(&lines).await;
        let list = sent.tracestate.as_deref().unwrap_or_default();
        match want {
            Want::Continued(want) => {
                assert_eq!(sent.trace_id, TRACE_ID, "{name}: {lines:?}");
                assert_ne!(sent.parent_id, "1234567890123456", "{name}");
                assert_eq!(list, want, "{name}: {lines:?}");
                // The flag of the trace goes on, and no other is added.
                let came = lines.iter().any(|line| line.ends_with("-02"));
                assert_eq!(sent.is_random(), came, "{name}: {lines:?}");
            }
            Want::Restarted => {
                assert!(
                    !lines.concat().contains(&sent.trace_id),
                    "{name}: {lines:?}"
                );
                assert_eq!(list, "", "{name}: {lines:?}");
                assert!(sent.is_random(), "{name}: {lines:?}");
            }
        }
    }
}

#[tokio::test]
async fn each_call_is_a_span_of_its_own() {
    let mut harness = Harness::start("tracecontext").await;
    for (name, lines) in MULTIPLE_REQUESTS {
        let sent: Vec<_> = harness.calls(lines, 3).await.iter().map(Sent::of).collect();
        let trace_ids: HashSet<_> = sent.iter().map(|sent| &sent.trace_id).collect();
        let parent_ids: HashSet<_> = sent.iter().map(|sent| &sent.parent_id).collect();
        assert_eq!(trace_ids.len(), 1, "{name}");
        assert_eq!(
            trace_ids.contains(&TRACE_ID.to_owned()),
            lines == [SAMPLED],
            "{name}"
        );
        assert_eq!(parent_ids.len(), 3, "{name}");
    }
}

#[tokio::test]
async fn the_sampled_flag_goes_on() {
    let mut harness = Harness::start("tracecontext").await;
    assert_eq!(harness.call(&[SAMPLED]).await.flags, "01");
    assert_eq!(harness.call(&[NOT_SAMPLED]).await.flags, "00");
}

#[tokio::test]
async fn a_body_that_is_no_list_of_calls_is_a_bad_request() {
    let harness = Harness::start("none").await;
    for body in ["", "{}", "garbage"] {
        let status = harness.post(&[], body).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{body:?}");
    }
    let status = harness.post(&[], r#"[{ "url": "nonsense" }]"#).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
}

#[tokio::test]
async fn other_formats_come_in_and_go_out_by_name() {
    let mut harness = Harness::start("b3multi,xray,baggage").await;
    let lines = [
        "X-B3-TraceId: 12345678901234567890123456789012",
        "X-B3-SpanId: 1234567890123456",
        "X-B3-Sampled: 1",
        "baggage: a=1",
        "baggage: b=2",
    ];
    let sent = harness.calls(&lines, 1).await.remove(0);
    assert_eq!(sent["x-b3-traceid"], TRACE_ID);
    assert_eq!(sent["x-b3-sampled"], "1");
    assert_eq!(sent["baggage"], "a=1,b=2");
    let xray = sent["x-amzn-trace-id"].to_str().unwrap();
    assert!(xray.starts_with("Root=1-12345678-901234567890123456789012;Parent="));
    assert!(!sent.contains_key("traceparent"));
}
