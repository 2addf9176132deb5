//! What a response tells its client about its trace.

use std::{cmp::Reverse, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{TraceContextExt, TraceFlags};

use crate::{propagation::trace_flags, request::RequestState};

const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// How `Server-Timing` names the trace of a response, see
/// [`ImageTraceLayerBuilder::server_timing_trace`](super::ImageTraceLayerBuilder::server_timing_trace).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerTimingTrace {
    /// `trace;desc=00-<trace id>-<span id>-<flags>` (W3C Trace Context, editor's draft).
    Trace,
    /// `traceparent;desc="00-<trace id>-<span id>-<01 or 00>"`, which agents for real user monitoring read,
    /// such as Splunk's and Dash0's.
    Traceparent,
}

impl ServerTimingTrace {
    fn prefix(self) -> &'static str {
        match self {
            Self::Trace => "trace;desc=",
            Self::Traceparent => "traceparent;desc=",
        }
    }
}

/// Adds the ids of the request's own span (W3C Trace Context level 2, draft: `traceresponse`).
pub(super) fn add_trace_response<L: ?Sized>(headers: &mut HeaderMap, state: &RequestState<L>) {
    if let Some(ids) = own_ids(state, trace_flags(&state.context))
        && let Ok(value) = HeaderValue::try_from(ids)
    {
        // One span answers: that of the outermost layer.
        headers.insert(TRACE_RESPONSE, value);
    }
}

/// Adds the ids of the request's own span as an entry of `Server-Timing`, where scripts of a page can read
/// them, of its pictures too.
pub(super) fn add_server_timing_trace<L: ?Sized>(
    headers: &mut HeaderMap,
    state: &RequestState<L>,
    form: ServerTimingTrace,
) {
    let flags = trace_flags(&state.context);
    let (flags, quote) = match form {
        ServerTimingTrace::Trace => (flags, ""),
        // Agents look for these letters, with quotes, and without the random flag of level 2.
        ServerTimingTrace::Traceparent => (flags & TraceFlags::SAMPLED, "\""),
    };
    let entry = own_ids(state, flags).map(|ids| [form.prefix(), quote, &ids, quote].concat());
    let Some(entry) = entry.and_then(|entry| HeaderValue::try_from(entry).ok()) else {
        return;
    };
    // One span answers: that of the outermost layer, not one inside it or behind a proxy.
    let same = |line: &HeaderValue| line.as_bytes().starts_with(form.prefix().as_bytes());
    if headers.get_all(SERVER_TIMING).iter().any(same) {
        let lines = headers.get_all(SERVER_TIMING).iter();
        let others: Vec<_> = lines.filter(|line| !same(line)).cloned().collect();
        headers.remove(SERVER_TIMING);
        for line in others {
            headers.append(SERVER_TIMING, line);
        }
    }
    headers.append(SERVER_TIMING, entry);
}

/// Lets scripts of other origins read the timing of the response (W3C Resource Timing), unless the service
/// says itself which may.
pub(super) fn add_timing_allow_origin(headers: &mut HeaderMap, origins: &HeaderValue) {
    headers
        .entry(TIMING_ALLOW_ORIGIN)
        .or_insert_with(|| origins.clone());
}

/// The ids of the request's own span in the form of `traceparent` (W3C Trace Context §3.2).
fn own_ids<L: ?Sized>(state: &RequestState<L>, flags: TraceFlags) -> Option<String> {
    let span = state.context.span();
    let span = span.span_context();
    // A remote span is the caller's: this request has no span of its own.
    if !span.is_valid() || span.is_remote() {
        return None;
    }
    let (trace, span, flags) = (span.trace_id(), span.span_id(), flags.to_u8());
    Some(format!("00-{trace}-{span}-{flags:02x}"))
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

const SEPARATOR: &str = ", ";

/// In milliseconds: `queue;dur=0.4, downloading_image;dur=35.2` (W3C Server Timing). Stages of the same
/// name are added up, and when there are too many the longest ones are told.
fn server_timing<L: ?Sized>(state: &RequestState<L>) -> String {
    let mut stages: Vec<(String, Duration)> = Vec::new();
    for (name, duration) in state.changed().iter().flat_map(|live| &live.stages_done) {
        let name = token(name);
        match stages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += *duration,
            None => stages.push((name, *duration)),
        }
    }
    let mut entries: Vec<_> = stages
        .into_iter()
        .map(|(name, sum)| {
            let milliseconds = sum.as_secs_f64() * 1000.0;
            (sum, format!("{name};dur={milliseconds:.1}"))
        })
        .collect();
    let mut by_duration: Vec<_> = (0..entries.len()).collect();
    by_duration.sort_by_key(|index| Reverse(entries[*index].0));
    let mut room = MOST_BYTES + SEPARATOR.len();
    for index in by_duration {
        let entry = &mut entries[index].1;
        match room.checked_sub(entry.len() + SEPARATOR.len()) {
            Some(left) => room = left,
            None => entry.clear(),
        }
    }
    let told = entries.into_iter().map(|(_, entry)| entry);
    let told: Vec<_> = told.filter(|entry| !entry.is_empty()).collect();
    told.join(SEPARATOR)
}

/// The name of a stage as a token (RFC 9110 §5.6.2), whatever it is called.
fn token(name: &str) -> String {
    match name {
        "" => "_".to_owned(),
        name => name.chars().map(token_letter).collect(),
    }
}

/// The letter itself where a token may have it, else `_`.
fn token_letter(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter) {
        letter
    } else {
        '_'
    }
}
