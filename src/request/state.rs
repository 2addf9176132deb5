use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{Context, KeyValue, StringValue};

use crate::{
    intern,
    trace::{Config, Facts},
};

/// Why a request ended before its response was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    Cancelled,
    Panicked,
}

/// What the root span's owner, the handles and the stages of one request share.
#[derive(Debug)]
pub(crate) struct RequestState {
    pub(crate) config: Arc<Config>,
    /// The context of the root span.
    pub(crate) context: Context,
    /// Whether the root span records; stages of one that doesn't are measured, but have no spans.
    pub(crate) recording: bool,
    pub(crate) facts: Facts,
    pub(crate) clock: Clock,
    /// The route that was matched before the request came to the layer.
    pub(crate) matched: Option<Route>,
    /// Only there once somebody changed it: many a request needs no lock.
    live: OnceLock<Mutex<Live>>,
}

/// The one clock of a request's spans: a step of the system's time moves none against the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_at: SystemTime,
}

/// What handlers may still change until the root span ends.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) route: Option<Route>,
    /// Kept here until the end, because a span does not replace a value that it has.
    pub(crate) attributes: Vec<KeyValue>,
    /// The names of the running stages, the innermost last.
    stages: Vec<&'static str>,
    /// The names and durations of the stages that are done, if responses tell them.
    pub(crate) stages_done: Vec<(&'static str, Duration)>,
    pub(crate) interruption: Option<Interruption>,
    /// Where the request was when it was interrupted.
    phase: Option<&'static str>,
    /// Whether a stage was ever begun: the request has reached a handler.
    pub(crate) worked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: StringValue,
    /// Whether the service named it. A route that was only matched gives way to this one.
    pub(crate) named: bool,
    /// Whether the root span was given its name when this was known.
    pub(crate) is_in_name: bool,
}

impl Clock {
    /// Only spans have dates.
    pub(crate) fn start(has_spans: bool) -> Self {
        Self {
            started: Instant::now(),
            started_at: if has_spans {
                SystemTime::now()
            } else {
                SystemTime::UNIX_EPOCH
            },
        }
    }

    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn at(&self, instant: Instant) -> SystemTime {
        self.started_at + instant.saturating_duration_since(self.started)
    }
}

impl Route {
    pub(crate) fn new(path: &str, named: bool) -> Self {
        Self {
            path: intern::text(path),
            named,
            is_in_name: false,
        }
    }
}

impl RequestState {
    #[inline]
    pub(crate) fn new(
        config: Arc<Config>,
        context: Context,
        recording: bool,
        facts: Facts,
        clock: Clock,
        matched: Option<Route>,
    ) -> Self {
        Self {
            config,
            context,
            recording,
            facts,
            clock,
            matched,
            live: OnceLock::new(),
        }
    }

    /// What may be changed, for one who changes it.
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

    /// What was changed, if anything ever was.
    pub(crate) fn changed(&self) -> Option<MutexGuard<'_, Live>> {
        self.live.get().map(|_| self.live())
    }
}

impl Live {
    pub(crate) fn stage_started(&mut self, name: &'static str) {
        self.stages.push(name);
        self.worked = true;
    }

    pub(crate) fn stage_ended(&mut self, name: &'static str) {
        if let Some(index) = self.stages.iter().rposition(|running| *running == name) {
            self.stages.remove(index);
        }
    }

    /// Only the first interruption counts. Gives the phase in which it came: the innermost stage,
    /// if one is running.
    pub(crate) fn interrupt(
        &mut self,
        interruption: Interruption,
        outside_stages: &'static str,
    ) -> &'static str {
        self.interruption.get_or_insert(interruption);
        self.phase
            .get_or_insert_with(|| self.stages.last().copied().unwrap_or(outside_stages))
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
        match self
            .attributes
            .iter_mut()
            .find(|kept| kept.key == attribute.key)
        {
            Some(kept) => kept.value = attribute.value,
            None => self.attributes.push(attribute),
        }
    }
}
