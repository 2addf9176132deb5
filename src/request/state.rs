use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{Context, KeyValue, StringValue};

use crate::trace::Config;

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
    live: Mutex<Live>,
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
    /// Whether a stage was ever begun: the request has reached a handler.
    pub(crate) worked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: StringValue,
    /// Whether the service named it. A route that was only matched gives way to this one.
    pub(crate) named: bool,
}

impl RequestState {
    pub(crate) fn new(
        config: Arc<Config>,
        context: Context,
        recording: bool,
        route: Option<Route>,
    ) -> Self {
        let live = Live {
            route,
            ..Live::default()
        };
        Self {
            config,
            context,
            recording,
            live: Mutex::new(live),
        }
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        // A panic elsewhere must not become one here; the data is whole after every statement.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn innermost_stage(&self) -> Option<&'static str> {
        self.stages.last().copied()
    }

    pub(crate) fn set_route(&mut self, path: &str, named: bool) {
        let keep = self.route.as_ref().is_some_and(|route| {
            (route.named && !named) || (route.named == named && route.path.as_str() == path)
        });
        if !keep && !path.is_empty() {
            self.route = Some(Route {
                path: path.to_owned().into(),
                named,
            });
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
