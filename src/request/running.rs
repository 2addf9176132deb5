//! The requests that are running, for whoever looks.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    StringValue,
    trace::{SpanId, TraceContextExt, TraceId},
};

use super::{RequestState, Route};

/// The parts of the list, each with a lock of its own.
const SHARDS: usize = 16;

/// The requests that have begun and not ended. Entering and leaving takes a few nanoseconds; everything else is
/// found out when someone looks.
#[derive(Default)]
pub(crate) struct RunningRequests {
    shards: [Mutex<Shard>; SHARDS],
}

impl fmt::Debug for RunningRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunningRequests")
    }
}

#[derive(Default)]
struct Shard {
    places: Vec<Option<Weak<RequestState>>>,
    free: Vec<usize>,
}

/// The place of a request in the list.
#[derive(Debug)]
pub(crate) struct Place {
    shard: usize,
    index: usize,
}

/// What a running request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    /// Redacted and cut.
    pub(crate) path: Option<String>,
}

/// A request that was running when someone looked.
#[derive(Debug)]
pub(crate) struct RunningRequest(Arc<RequestState>);

/// Where a running request is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) route: Option<StringValue>,
    pub(crate) age: Duration,
    /// The open stages with their ages, the outermost first.
    pub(crate) stages: Vec<(&'static str, Duration)>,
    /// The ended stages with their durations.
    pub(crate) done: Vec<(&'static str, Duration)>,
}

impl RunningRequests {
    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        // A panic elsewhere must not become one here; the data is whole after every statement.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request has begun.
    pub(crate) fn enter(&self, request: &Arc<RequestState>) -> Place {
        // Requests lie at different addresses, of which the lowest bits are the same.
        let shard = (Arc::as_ptr(request).cast::<u8>() as usize >> 8) % SHARDS;
        let mut list = self.shard(shard);
        let index = list.free.pop().unwrap_or_else(|| {
            list.places.push(None);
            list.places.len() - 1
        });
        list.places[index] = Some(Arc::downgrade(request));
        Place { shard, index }
    }

    /// Notes that the request has ended.
    pub(crate) fn leave(&self, place: &Place) {
        let mut list = self.shard(place.shard);
        list.places[place.index] = None;
        list.free.push(place.index);
    }

    /// The requests that are running now, the oldest first.
    pub(crate) fn now(&self) -> Vec<RunningRequest> {
        let mut found = Vec::new();
        for shard in 0..SHARDS {
            let list = self.shard(shard);
            found.extend(list.places.iter().flatten().filter_map(Weak::upgrade));
        }
        found.sort_by_key(|request| request.clock.started_at());
        found.into_iter().map(RunningRequest).collect()
    }
}

impl RunningRequest {
    pub(crate) fn trace_id(&self) -> TraceId {
        self.0.context.span().span_context().trace_id()
    }

    pub(crate) fn span_id(&self) -> SpanId {
        self.0.context.span().span_context().span_id()
    }

    pub(crate) fn started_at(&self) -> SystemTime {
        self.0.clock.started_at()
    }

    /// The name that its root span has so far.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        match self.0.changed() {
            Some(live) => self.0.layer.name(live.route.as_ref()),
            None => self.0.layer.name(self.0.matched.as_ref()),
        }
    }

    /// What it asks for. That takes as long as its path is.
    pub(crate) fn asked(&self) -> Asked {
        self.0.layer.asked()
    }

    pub(crate) fn progress(&self) -> Progress {
        let (mut route, mut stages, mut done) = (self.0.matched.clone(), Vec::new(), Vec::new());
        if let Some(live) = self.0.changed() {
            route = live.route.clone();
            stages = live.open_stages();
            done = live.stages_done.clone();
        }
        Progress {
            route: route.map(|route: Route| route.path),
            age: self.0.clock.elapsed(),
            stages,
            done,
        }
    }
}
