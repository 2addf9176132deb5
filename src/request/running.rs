//! The requests that are running, for whoever looks.

use std::{
    borrow::Cow,
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
#[derive(Debug, Default)]
pub(crate) struct RunningRequests {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
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
    pub(crate) name: Cow<'static, str>,
    pub(crate) method: &'static str,
    /// Redacted.
    pub(crate) path: Option<String>,
}

/// A request that was running at some moment.
#[derive(Debug)]
pub(crate) struct RunningRequest {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) asked: Asked,
    pub(crate) route: Option<StringValue>,
    pub(crate) started_at: SystemTime,
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

    /// The requests that are running now, the oldest first. The first `most` are listed with their stages.
    pub(crate) fn now(&self, most: usize) -> Vec<RunningRequest> {
        let mut found = Vec::new();
        for shard in 0..SHARDS {
            let list = self.shard(shard);
            found.extend(list.places.iter().flatten().filter_map(Weak::upgrade));
        }
        found.sort_by_key(|request| request.clock.started_at());
        let found = found.iter().enumerate();
        found
            .map(|(index, request)| describe(request, index < most))
            .collect()
    }
}

fn describe(request: &RequestState, with_stages: bool) -> RunningRequest {
    let span = request.context.span();
    let span = span.span_context();
    let (trace_id, span_id) = (span.trace_id(), span.span_id());
    let (mut route, mut stages, mut done) = (request.matched.clone(), Vec::new(), Vec::new());
    if let Some(live) = request.changed() {
        route = live.route.clone();
        if with_stages {
            stages = live.open_stages();
            done = live.stages_done.clone();
        }
    }
    RunningRequest {
        trace_id,
        span_id,
        asked: request.layer.asked(route.as_ref()),
        route: route.map(|route: Route| route.path),
        started_at: request.clock.started_at(),
        age: request.clock.elapsed(),
        stages,
        done,
    }
}
