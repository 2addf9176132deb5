//! Which traces are kept, decided when their root has ended.

mod parse;
mod request;
mod rewrite;
mod threshold;

use std::{cell::Cell, fmt, ops::RangeInclusive, sync::Arc, time::Duration};

pub(crate) use self::parse::EXPECTED;
pub use self::request::EndedRequest;
pub(crate) use self::{
    rewrite::rewritten,
    threshold::{Threshold, randomness},
};
use super::error::SettingError;
use crate::{instrument::guarded, request::without_current};

/// Which traces are kept: decided by the service itself, when it knows how a request ended.
///
/// The spans of a request wait, encoded, until its root span ends. All of them are exported when the request
/// failed, was cancelled or was slow, as asked for here, and otherwise if the dice say so. What comes from a
/// caller who sampled is always kept.
///
/// ```
/// use std::time::Duration;
/// use tower_image_trace::telemetry::Keep;
///
/// let keep = Keep::ratio(0.01)
///     .errors()
///     .cancelled()
///     .slower_than(Duration::from_millis(500))
///     .route_slower_than("/resize/{options}/{source}", Duration::from_secs(2));
/// assert_eq!(keep, "errors,cancelled,slow:500ms,slow:/resize/{options}/{source}:2s,ratio:0.01".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The root span says why its trace was kept (`image.trace.kept`): `parent`, `forced`, `errors`, `cancelled`,
/// `slow`, `rule` or `ratio`. The probability stands in the `tracestate` of all its spans (`ot=th:…`), as
/// OpenTelemetry's [consistent probability sampling] has it: that of the dice, and 1 for what is kept for another
/// reason. So the counts that are made of kept traces are right.
///
/// The root may be a span of the service's own, such as a `tracing` span around the layer. It then says why the trace
/// was kept, and the requests below it are what is looked at.
///
/// A flush does not wait for requests that have not ended. The shutdown lets the dice decide about their spans.
///
/// What the service calls gets the decision of the dice, which is known from the start. The part of others may
/// therefore be missing in a trace that was kept at its end.
///
/// [consistent probability sampling]: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
#[derive(Clone)]
pub struct Keep {
    ratio: f64,
    errors: bool,
    cancelled: bool,
    slow: Option<Duration>,
    slow_routes: Vec<(String, Duration)>,
    of_unsampled: bool,
    max_bytes: usize,
    rule: Option<Arc<Rule>>,
}

/// The memory when nothing else is said.
const DEFAULT_BYTES: usize = 8 << 20;
/// With less, hardly any trace could wait for its end. With more, a mistake in a number would go unnoticed.
const ACCEPTED_BYTES: RangeInclusive<u64> = 256 << 10..=1 << 40;
pub(crate) const MAX_BYTES: &str = "a number of bytes from 262144 to 1099511627776";

/// Whether so much memory may be asked for.
pub(crate) fn accepts_bytes(bytes: usize) -> bool {
    u64::try_from(bytes).is_ok_and(|bytes| ACCEPTED_BYTES.contains(&bytes))
}

type Rule = dyn Fn(&EndedRequest<'_>) -> bool + Send + Sync;

/// Why a trace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The caller has sampled it.
    Parent,
    Forced,
    Errors,
    Cancelled,
    Slow,
    Rule,
    /// The dice.
    Ratio,
}

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Forced => "forced",
            Self::Errors => "errors",
            Self::Cancelled => "cancelled",
            Self::Slow => "slow",
            Self::Rule => "rule",
            Self::Ratio => "ratio",
        }
    }
}

impl Keep {
    /// Keeps this share of all traces, from 0 to 1, by their ids, beside what else is asked for.
    ///
    /// A share outside of that, or one that is not a number, is an error when the telemetry is built.
    #[must_use]
    pub const fn ratio(ratio: f64) -> Self {
        Self {
            ratio,
            errors: false,
            cancelled: false,
            slow: None,
            slow_routes: Vec::new(),
            of_unsampled: false,
            max_bytes: DEFAULT_BYTES,
            rule: None,
        }
    }

    /// Keeps requests that have failed: the status of their root span, or of any other of their spans, is an error.
    #[must_use]
    pub const fn errors(mut self) -> Self {
        self.errors = true;
        self
    }

    /// Keeps requests that were cancelled, because their client has left or a timeout was over.
    #[must_use]
    pub const fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }

    /// Keeps requests that took longer.
    #[must_use]
    pub const fn slower_than(mut self, duration: Duration) -> Self {
        self.slow = Some(duration);
        self
    }

    /// Keeps requests of this route that took longer, in place of
    /// [`slower_than`](Self::slower_than) for them.
    #[must_use]
    pub fn route_slower_than(mut self, route: impl Into<String>, duration: Duration) -> Self {
        self.slow_routes.push((route.into(), duration));
        self
    }

    /// Also keeps requests that have failed whose caller did not sample; `false` by default.
    #[must_use]
    pub const fn errors_of_unsampled_callers(mut self, keep: bool) -> Self {
        self.of_unsampled = keep;
        self
    }

    /// The most bytes of memory for spans whose request has not ended: from 262,144 to 2⁴⁰, and 8 MiB when left
    /// out.
    ///
    /// When it is out, the dice alone decide about the traces that have waited longest
    /// ([`TelemetryEvent::KeepMemory`](super::TelemetryEvent::KeepMemory)).
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Keeps requests for which the closure returns true. A panic in it counts as false.
    ///
    /// It is called by the thread that ends the root span. No span is current in it, and
    /// [`RequestTrace::current`](crate::RequestTrace::current) records nothing. It is not asked about spans that
    /// it starts itself.
    ///
    /// ```
    /// use tower_image_trace::telemetry::Keep;
    ///
    /// let keep = Keep::ratio(0.01).when(|request| request.status() == Some(404));
    /// ```
    #[must_use]
    pub fn when(
        mut self,
        rule: impl Fn(&EndedRequest<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rule = Some(Arc::new(rule));
        self
    }

    /// What is wrong with what code has built.
    pub(crate) fn mistakes(&self) -> impl Iterator<Item = SettingError> {
        let share = (!(0.0..=1.0).contains(&self.ratio))
            .then(|| SettingError::invalid("keep", &self.ratio.to_string(), "a ratio from 0 to 1"));
        let bytes = (!accepts_bytes(self.max_bytes)).then(|| {
            SettingError::invalid("keep.max_bytes", &self.max_bytes.to_string(), MAX_BYTES)
        });
        share.into_iter().chain(bytes)
    }

    pub(crate) const fn share(&self) -> f64 {
        self.ratio
    }

    pub(crate) const fn most_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(crate) const fn keeps_errors_of_unsampled(&self) -> bool {
        self.of_unsampled
    }

    /// Why a request is kept that neither its caller nor the dice have sampled.
    pub(crate) fn reason(&self, request: &EndedRequest<'_>) -> Option<Reason> {
        if self.errors && request.failed() {
            return Some(Reason::Errors);
        }
        if self.cancelled && request.cancelled() {
            return Some(Reason::Cancelled);
        }
        if self.is_slow(request) {
            return Some(Reason::Slow);
        }
        let rule = self.rule.as_ref()?;
        says_yes(&**rule, request).then_some(Reason::Rule)
    }

    fn is_slow(&self, request: &EndedRequest<'_>) -> bool {
        let of_route = match self.slow_routes.is_empty() {
            true => None,
            false => request.route().and_then(|route| {
                let mut routes = self.slow_routes.iter();
                routes.find(|(of, _)| *of == route)
            }),
        };
        let limit = of_route.map(|(_, limit)| *limit).or(self.slow);
        limit.is_some_and(|limit| request.duration() > limit)
    }
}

thread_local! {
    /// Whether this thread runs a closure that says what is kept.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Asks the closure. What is current on this thread belongs to the span that ends and may be locked, so the
/// closure does not see it. It is not asked about what ends while it runs, or it might never return.
fn says_yes(rule: &Rule, request: &EndedRequest<'_>) -> bool {
    if IS_ASKING.replace(true) {
        return false;
    }
    let answer = guarded(|| without_current(|| rule(request)));
    IS_ASKING.set(false);
    answer == Some(true)
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keep({self})")
    }
}

/// Two closures are the same only if they are one.
impl PartialEq for Keep {
    fn eq(&self, other: &Self) -> bool {
        let rules = match (&self.rule, &other.rule) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let plain = |keep: &Self| {
            let slow = (keep.slow, keep.slow_routes.clone());
            (
                keep.ratio,
                keep.errors,
                keep.cancelled,
                keep.of_unsampled,
                keep.max_bytes,
                slow,
            )
        };
        rules && plain(self) == plain(other)
    }
}
