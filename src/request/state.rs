use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use opentelemetry::{Context, KeyValue, StringValue, trace::TraceContextExt};

use super::{Layer, body::BodyCount};
use crate::{
    instrument::{Clock, set},
    intern,
    metrics::Labels,
};

/// The stages of a request that are listed one by one.
const MOST_STAGES: usize = 32;

/// Why a request ended before its response was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    Cancelled,
    Panicked,
}

/// What the root span's owner, the handles and the stages of one request share.
///
/// The owner knows what the layer keeps of the request as `L`. Handles and stages live below the
/// layers and see no more of it than a [`Layer`].
pub(crate) struct RequestState<L: ?Sized = dyn Layer> {
    /// The context of the root span.
    pub(crate) context: Context,
    /// Whether the root span records. If not, stages are measured and have no spans.
    pub(crate) is_recording: bool,
    pub(crate) clock: Clock,
    /// The route that was matched before the request came to the layer.
    pub(crate) matched: Option<Route>,
    /// Made by the first change: many requests never need the lock.
    live: OnceLock<Mutex<Live>>,
    pub(crate) request_body: BodyCount,
    has_ended: AtomicBool,
    pub(crate) layer: L,
}

/// The ids only: what the layer knows of the request may have credentials in it.
impl<L: ?Sized> fmt::Debug for RequestState<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.context.span();
        f.debug_struct("RequestState")
            .field("trace_id", &span.span_context().trace_id())
            .field("span_id", &span.span_context().span_id())
            .finish_non_exhaustive()
    }
}

/// What handlers may still change until the root span ends.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) route: Option<Route>,
    /// Kept until the end, because a span would keep both values of a key that is set twice.
    pub(crate) attributes: Vec<KeyValue>,
    /// The running stages with their beginnings, the innermost last.
    stages: Vec<(&'static str, Instant)>,
    /// The names and durations of the ended stages, when anything tells them; after the first
    /// [`MOST_STAGES`] one entry for each name.
    pub(crate) stages_done: Vec<(&'static str, Duration)>,
    pub(crate) interruption: Option<Interruption>,
    /// Where the request was when it was interrupted.
    phase: Option<&'static str>,
    /// Attributes of the service's own for measurements.
    pub(crate) labels: Labels,
    /// When the response's head was there, if that is measured.
    pub(crate) first_byte: Option<Duration>,
    /// Whether a stage has ever begun: the request has reached a handler.
    pub(crate) worked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: StringValue,
    /// Whether the service named it. A named route wins over a matched one.
    pub(crate) named: bool,
    /// Whether the root span began with it, in its name and its attributes.
    pub(crate) is_on_span: bool,
}

impl Route {
    pub(crate) fn new(path: &str, named: bool) -> Self {
        Self {
            path: intern::text(path),
            named,
            is_on_span: false,
        }
    }
}

impl<L> RequestState<L> {
    #[inline(always)]
    pub(crate) fn new(
        context: Context,
        is_recording: bool,
        clock: Clock,
        matched: Option<Route>,
        layer: L,
    ) -> Self {
        Self {
            context,
            is_recording,
            clock,
            matched,
            live: OnceLock::new(),
            request_body: BodyCount::default(),
            has_ended: AtomicBool::new(false),
            layer,
        }
    }
}

impl<L: ?Sized> RequestState<L> {
    /// Locks what can change, made by the first call.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        let live = self.live.get_or_init(|| {
            Mutex::new(Live {
                route: self.matched.clone(),
                ..Live::default()
            })
        });
        // A panic elsewhere must not become one here; the data is whole after every statement.
        live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn end(&self) {
        self.has_ended.store(true, Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Locks what has changed, if anything ever has.
    pub(crate) fn changed(&self) -> Option<MutexGuard<'_, Live>> {
        self.live.get().map(|_| self.live())
    }
}

impl Live {
    /// Returns whether the request was interrupted before.
    pub(crate) fn stage_started(&mut self, name: &'static str, started: Instant) -> bool {
        self.stages.push((name, started));
        self.worked = true;
        self.interruption.is_some()
    }

    pub(crate) fn stage_ended(&mut self, name: &'static str) {
        let mut stages = self.stages.iter();
        if let Some(index) = stages.rposition(|(running, _)| *running == name) {
            self.stages.remove(index);
        }
    }

    /// Keeps how long a stage took. A response may have a stage for each of its frames, without an end.
    pub(crate) fn stage_done(&mut self, name: &'static str, duration: Duration) {
        if self.stages_done.len() >= MOST_STAGES {
            let mut stages = self.stages_done.iter_mut().rev();
            if let Some((_, sum)) = stages.find(|(done, _)| *done == name) {
                *sum += duration;
                return;
            }
        }
        self.stages_done.push((name, duration));
    }

    /// Notes the first interruption and returns the phase in which it came: the innermost running
    /// stage, or `outside_stages`.
    pub(crate) fn interrupt(
        &mut self,
        interruption: Interruption,
        outside_stages: &'static str,
    ) -> &'static str {
        self.interruption.get_or_insert(interruption);
        self.phase
            .get_or_insert_with(|| self.stages.last().map_or(outside_stages, |(name, _)| name))
    }

    /// The running stages with their ages, the outermost first, [`MOST_STAGES`] at most.
    #[cfg(feature = "page")]
    pub(crate) fn open_stages(&self) -> Vec<(&'static str, Duration)> {
        let stages = self.stages.iter().take(MOST_STAGES);
        stages
            .map(|(name, started)| (*name, started.elapsed()))
            .collect()
    }

    pub(crate) fn set_route(&mut self, path: &str, named: bool) {
        let keep = self.route.as_ref().is_some_and(|route| {
            (route.named && !named) || (route.named == named && route.path.as_str() == path)
        });
        if !keep && !path.is_empty() {
            self.route = Some(Route::new(path, named));
        }
    }

    pub(crate) fn set_attribute(&mut self, attribute: KeyValue) {
        set(&mut self.attributes, attribute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_for_each_frame_takes_no_more_memory() {
        let mut live = Live::default();
        live.stage_done("queue", Duration::from_secs(2));
        for _ in 0..1_000_000 {
            live.stage_done("frame", Duration::from_millis(1));
        }
        // A name that comes late is told too.
        live.stage_done("watermark", Duration::from_secs(3));
        assert_eq!(live.stages_done.len(), MOST_STAGES + 1);
        assert_eq!(live.stages_done[0], ("queue", Duration::from_secs(2)));
        assert_eq!(live.stages_done[32], ("watermark", Duration::from_secs(3)));
        let frames = live.stages_done[1..32].iter();
        let sum: Duration = frames.map(|(_, duration)| *duration).sum();
        assert_eq!(sum, Duration::from_secs(1_000));
    }

    #[test]
    fn of_stages_with_the_same_name_the_inner_one_ends_first() {
        let mut live = Live::default();
        for name in ["download", "decode", "download"] {
            live.stage_started(name, Instant::now());
        }
        live.stage_ended("download");
        assert_eq!(live.interrupt(Interruption::Cancelled, "handler"), "decode");
        live.stage_ended("decode");
        assert_eq!(
            live.interrupt(Interruption::Panicked, "handler"),
            "decode",
            "the first interruption counts"
        );
    }
}
