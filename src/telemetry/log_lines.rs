//! Trace ids in the service's ordinary log lines.

use std::fmt;

use opentelemetry::{Context, trace::TraceContextExt};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::request::current_exists;

/// Adds `trace_id` and `span_id` of the current span to each line of another format: to the object that
/// is a line of JSON, and to the end of other lines.
///
/// Colours are up to the format: `format().with_ansi(true)` switches them on.
///
/// ```
/// use tower_image_trace::telemetry::WithTraceIds;
/// use tracing_subscriber::fmt::format;
///
/// let subscriber = tracing_subscriber::fmt()
///     .event_format(WithTraceIds::new(format().compact()))
///     .finish();
/// # let _ = subscriber;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WithTraceIds<F> {
    inner: F,
}

impl<F> WithTraceIds<F> {
    /// Wraps a format.
    pub const fn new(inner: F) -> Self {
        Self { inner }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTraceIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let ids_of = |cx: &Context| {
            let span = cx.span().span_context().clone();
            span.is_valid().then(|| (span.trace_id(), span.span_id()))
        };
        let ids = current_exists().then(|| Context::map_current(ids_of));
        let ids = ids.flatten();
        let Some((trace, span)) = ids else {
            return self.inner.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.inner
            .format_event(ctx, Writer::new(&mut line), event)?;
        let text = line.trim_end();
        let end = &line[text.len()..];
        match text.strip_prefix('{').filter(|rest| ends_object(rest)) {
            Some("}") => write!(
                writer,
                r#"{{"trace_id":"{trace}","span_id":"{span}"}}{end}"#
            ),
            Some(rest) => write!(
                writer,
                r#"{{"trace_id":"{trace}","span_id":"{span}",{rest}{end}"#
            ),
            None => write!(writer, "{text} trace_id={trace} span_id={span}{end}"),
        }
    }
}

/// Whether a text that follows a brace makes a JSON object of it: it begins with a key, and ends with a brace.
fn ends_object(rest: &str) -> bool {
    let key = rest.trim_start().strip_prefix('"');
    let after_key = key.and_then(|key| {
        let mut quotes = key.match_indices('"');
        let (end, _) = quotes.find(|(end, _)| !key[..*end].ends_with('\\'))?;
        Some(key[end + 1..].trim_start())
    });
    let begins_with_key = after_key.is_some_and(|after| after.starts_with(':'));
    rest == "}" || begins_with_key && rest.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_braces_is_an_object_only_with_a_key() {
        for (rest, expected) in [
            (r#""level":"INFO"}"#, true),
            (r#" "a\"b" : 1 }"#, true),
            ("}", true),
            ("cat}", false),
            (r#""cat"}"#, false),
            (r#""a":1} and more"#, false),
            ("", false),
        ] {
            assert_eq!(ends_object(rest), expected, "{rest}");
        }
    }
}
