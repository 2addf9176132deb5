//! What a response tells its client of its trace, if the service wants that.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::TraceContextExt;

use crate::{propagation::trace_flags, request::RequestState};

const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The headers that a layer adds to responses; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResponseHeaders {
    pub(crate) trace_response: bool,
    pub(crate) server_timing: bool,
}

impl ResponseHeaders {
    pub(super) fn add(self, state: &RequestState, headers: &mut HeaderMap) {
        if self.trace_response {
            let span = state.context.span();
            let span = span.span_context();
            // A remote one is the caller's: this request has no span of its own.
            if span.is_valid() && !span.is_remote() {
                // W3C Trace Context level 2 (draft), traceresponse: the form of traceparent.
                let value = format!(
                    "00-{}-{}-{:02x}",
                    span.trace_id(),
                    span.span_id(),
                    trace_flags(&state.context).to_u8()
                );
                headers.extend(
                    HeaderValue::try_from(value)
                        .ok()
                        .map(|value| (TRACE_RESPONSE, value)),
                );
            }
        }
        if self.server_timing {
            let timing = server_timing(state);
            if let Ok(timing) = HeaderValue::try_from(timing)
                && !timing.is_empty()
            {
                // The service may have timings of its own.
                headers.append(SERVER_TIMING, timing);
            }
        }
    }
}

/// The stages that are done, in milliseconds: `queue;dur=0.4, downloading_image;dur=35.2` (W3C
/// Server Timing).
fn server_timing(state: &RequestState) -> String {
    let mut timing = String::new();
    let changed = state.changed();
    for (name, duration) in changed.iter().flat_map(|live| &live.stages_done) {
        if !timing.is_empty() {
            timing.push_str(", ");
        }
        timing.extend(name.chars().map(token_letter));
        // Writing into a string can't fail.
        let _ = write!(timing, ";dur={:.1}", duration.as_secs_f64() * 1000.0);
    }
    timing
}

/// A letter of a token (RFC 9110 §5.6.2) in place of any.
fn token_letter(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter) {
        letter
    } else {
        '_'
    }
}
