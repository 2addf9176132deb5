//! What a response tells its client about its trace.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::TraceContextExt;

use crate::{propagation::trace_flags, request::RequestState};

const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds the ids of the request's own span (W3C Trace Context level 2, draft: `traceresponse`).
pub(super) fn add_trace_response<L: ?Sized>(headers: &mut HeaderMap, state: &RequestState<L>) {
    let span = state.context.span();
    let span = span.span_context();
    // A remote span is the caller's: this request has no span of its own.
    if !span.is_valid() || span.is_remote() {
        return;
    }
    let value = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        trace_flags(&state.context).to_u8()
    );
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.append(TRACE_RESPONSE, value);
    }
}

/// Adds the durations of the stages that are done.
pub(super) fn add_server_timing<L: ?Sized>(headers: &mut HeaderMap, state: &RequestState<L>) {
    if let Ok(timing) = HeaderValue::try_from(server_timing(state))
        && !timing.is_empty()
    {
        // The service may have timings of its own.
        headers.append(SERVER_TIMING, timing);
    }
}

/// In milliseconds: `queue;dur=0.4, downloading_image;dur=35.2` (W3C Server Timing).
fn server_timing<L: ?Sized>(state: &RequestState<L>) -> String {
    let mut timing = String::new();
    let changed = state.changed();
    for (name, duration) in changed.iter().flat_map(|live| &live.stages_done) {
        if !timing.is_empty() {
            timing.push_str(", ");
        }
        timing.extend(name.chars().map(token_letter));
        // Writing into a string cannot fail.
        let _ = write!(timing, ";dur={:.1}", duration.as_secs_f64() * 1000.0);
    }
    timing
}

/// The letter itself where a token may have it (RFC 9110 §5.6.2), else `_`.
fn token_letter(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter) {
        letter
    } else {
        '_'
    }
}
