//! What a response tells its client about its trace.

use std::{fmt::Write, time::Duration};

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
        // One span answers: that of the outermost layer.
        headers.insert(TRACE_RESPONSE, value);
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

/// Bounds the header. Browsers and proxies take about 8 KiB of headers in all.
const MOST_BYTES: usize = 2048;

/// In milliseconds: `queue;dur=0.4, downloading_image;dur=35.2` (W3C Server Timing). Stages of the same
/// name are added up, and when there are too many the longest ones are told.
fn server_timing<L: ?Sized>(state: &RequestState<L>) -> String {
    let mut stages: Vec<(&'static str, Duration)> = Vec::new();
    for (name, duration) in state.changed().iter().flat_map(|live| &live.stages_done) {
        match stages.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += *duration,
            None => stages.push((name, *duration)),
        }
    }
    let mut entries: Vec<_> = stages
        .iter()
        .map(|(name, sum)| (*sum, entry(name, *sum)))
        .collect();
    let size = |entries: &[(Duration, String)]| -> usize {
        entries.iter().map(|(_, entry)| entry.len() + 2).sum()
    };
    while size(&entries) > MOST_BYTES {
        let shortest = entries.iter().enumerate().min_by_key(|(_, (sum, _))| *sum);
        let Some((shortest, _)) = shortest else { break };
        entries.remove(shortest);
    }
    let entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
    entries.join(", ")
}

/// The name is a token (RFC 9110 §5.6.2), whatever the stage is called.
fn entry(name: &str, duration: Duration) -> String {
    let mut entry: String = name.chars().map(token_letter).collect();
    if entry.is_empty() {
        entry.push_str("stage");
    }
    // Writing into a string cannot fail.
    let _ = write!(entry, ";dur={:.1}", duration.as_secs_f64() * 1000.0);
    entry
}

/// The letter itself where a token may have it, else `_`.
fn token_letter(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter) {
        letter
    } else {
        '_'
    }
}
