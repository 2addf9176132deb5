//! The `tracestate` list of W3C Trace Context (§3.3).

use arrayvec::ArrayVec;
use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt, TraceId, TraceState},
};

/// A list with more members is invalid (§3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// A valid list that [`TraceState`] cannot hold, because it refuses some keys of level 2. The context
/// keeps the list, so that no member is lost.
#[derive(Debug)]
pub(super) struct Unabridged {
    trace_id: TraceId,
    /// The members that [`TraceState`] holds.
    abridged: TraceState,
    /// The whole list.
    header: String,
    /// The other members.
    rest: String,
}

/// `cx` with a parent that has the list in `lines`, if the list is valid.
pub(super) fn with_parent<'a>(
    cx: &Context,
    lines: impl Iterator<Item = &'a [u8]>,
    parent: impl FnOnce(TraceState) -> SpanContext,
) -> Context {
    let mut members = Members::new();
    if parse(lines, &mut members).is_none() || members.is_empty() {
        return cx.with_remote_span_context(parent(TraceState::NONE));
    }
    let is_whole = members.iter().all(|(key, _)| fits(key));
    let fitting = members.iter().copied();
    let fitting = fitting.filter(|(key, _)| is_whole || fits(key));
    // Every member was checked, so this fails only if a later version of the API is stricter.
    let state = TraceState::from_key_value(fitting).unwrap_or_default();
    let parent = parent(state);
    if is_whole {
        return cx.with_remote_span_context(parent);
    }
    let unabridged = Unabridged {
        trace_id: parent.trace_id(),
        abridged: parent.trace_state().clone(),
        header: join(members.iter().copied()),
        rest: join(members.iter().copied().filter(|(key, _)| !fits(key))),
    };
    cx.with_remote_span_context(parent).with_value(unabridged)
}

/// The list to send with `span`; empty when there is none.
pub(super) fn header(cx: &Context, span: &SpanContext) -> String {
    let state = span.trace_state();
    match cx.get::<Unabridged>() {
        Some(whole) if whole.trace_id == span.trace_id() => {
            if whole.abridged == *state {
                return whole.header.clone();
            }
            // Changed members go to the left, and the others keep their order (§3.5).
            let room = MAX_MEMBERS.saturating_sub(state.into_iter().len());
            let rest = whole.rest.split(',').take(room);
            join(
                state
                    .into_iter()
                    .chain(rest.filter_map(|m| m.split_once('='))),
            )
        }
        _ => join(state),
    }
}

fn join<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut header = String::new();
    for (key, value) in members {
        if !header.is_empty() {
            header.push(',');
        }
        header.push_str(key);
        header.push('=');
        header.push_str(value);
    }
    header
}

/// Without the spaces and tabs around a field or a member.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a list, borrowed from the headers.
type Members<'a> = ArrayVec<(&'a str, &'a str), MAX_MEMBERS>;

/// `None` when a member makes the list invalid.
fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>, members: &mut Members<'a>) -> Option<()> {
    for line in lines {
        for member in line.split(|&byte| byte == b',') {
            let member = trim(member);
            // Empty members are allowed (§3.3.1).
            if member.is_empty() {
                continue;
            }
            let (key, value) = parse_member(member)?;
            // Duplicate keys of other vendors may be discarded (§3.5), but not the list.
            if !members.iter().any(|(known, _)| *known == key) {
                members.try_push((key, value)).ok()?;
            }
        }
    }
    Some(())
}

fn parse_member(member: &[u8]) -> Option<(&str, &str)> {
    let equals = member.iter().position(|&byte| byte == b'=')?;
    if !is_key(&member[..equals]) || !is_value(&member[equals + 1..]) {
        return None;
    }
    let member = str::from_utf8(member).ok()?;
    Some((&member[..equals], &member[equals + 1..]))
}

/// §3.3.1.3.1: a lower-case letter or a digit, then at most 255 `keychar`.
fn is_key(key: &[u8]) -> bool {
    let is_key_char =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    matches!(key, [b'a'..=b'z' | b'0'..=b'9', rest @ ..]
        if rest.len() <= 255 && rest.iter().all(is_key_char))
}

/// §3.3.1.3.2. The last character is never a space, because members are trimmed first.
fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value
            .iter()
            .all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'='))
}

/// Whether [`TraceState`] takes a key that [`is_key`] took. After an `@` it wants at most 13
/// characters, the first of them a letter or a digit, and no other `@`.
fn fits(key: &str) -> bool {
    let key = key.as_bytes();
    let Some(at) = key.iter().position(|&byte| byte == b'@') else {
        return true;
    };
    let vendor = &key[at + 1..];
    vendor.len() <= 13
        && !vendor.contains(&b'@')
        && vendor.first().is_none_or(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_api_takes_the_keys_that_fit(key in "[a-z0-9][a-z0-9@_*/-]{0,20}|[a-z]{200,300}") {
            proptest::prop_assume!(is_key(key.as_bytes()));
            let taken = TraceState::from_key_value([(key.as_str(), "1")]).is_ok();
            proptest::prop_assert_eq!(fits(&key), taken);
        }
    }
}
