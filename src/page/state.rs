//! The state of the service, as the browser gets it.

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{Page, latency::Recent, millis, routes::Route};
use crate::{request::RunningRequest, telemetry::Signal};

/// Further running requests are counted only.
pub(super) const MOST_RUNNING: usize = 100;

impl Page {
    /// `GET api/state`
    pub(super) fn state(&self) -> Value {
        let running = self.running.now();
        let by_name = by_name(&running);
        let routes = self.store.routes.all();
        let routes: Vec<_> = routes
            .iter()
            .map(|route| {
                let running = by_name.get(&*route.name).copied();
                self.route(route, running.unwrap_or_default())
            })
            .collect();
        let in_progress = self.in_progress.get();
        let workers = self.watched.get().and_then(|watched| watched.workers.now());
        let (traces, held) = self.store.size();
        json!({
            "now": millis(SystemTime::now()),
            "service": { "name": self.service_name, "version": self.service_version },
            "running_total": running.len(),
            "running": running.iter().take(MOST_RUNNING).map(request).collect::<Vec<_>>(),
            "routes": routes,
            "requests_in_progress": in_progress.map(|counts| counts.requests()),
            "images_in_progress": in_progress.map(|counts| counts.images()),
            "workers": workers.map(|workers| json!({
                "busy": workers.busy,
                "total": workers.total,
                "waiting": workers.waiting,
                "queue_size": workers.queue_size,
            })),
            "exporters": self.exporters(),
            "memory": {
                "used_bytes": held + self.gathered.bytes(),
                "limit_bytes": self.max_bytes,
                "traces": traces,
            },
            "latest": self.store.version().to_string(),
        })
    }

    fn route(&self, route: &Route, running: usize) -> Value {
        let now = self.store.now();
        let mut counts = route.counts(now);
        let recent = counts
            .latencies
            .as_mut()
            .map(|latencies| latencies.recent(now));
        let stages: Vec<_> = counts
            .stages
            .iter_mut()
            .map(|stage| {
                let recent = stage
                    .latencies
                    .as_mut()
                    .map(|latencies| latencies.recent(now));
                let mut json = json!({
                    "name": stage.name,
                    "count": stage.count,
                    "failed": stage.failed,
                });
                add_quantiles(&mut json, recent.as_ref());
                json
            })
            .collect();
        let mut json = json!({
            "name": route.name,
            "count": counts.count,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "running": running,
            "per_second": recent.as_ref().map_or(0.0, |recent| recent.per_second),
            "samples": route.held(),
            "stages": stages,
        });
        add_quantiles(&mut json, recent.as_ref());
        json
    }

    fn exporters(&self) -> Vec<Value> {
        let pipeline = self.watched.get();
        let Some(pipeline) = pipeline.and_then(|watched| watched.pipeline.upgrade()) else {
            return Vec::new();
        };
        let signals = [
            (Signal::Traces, "traces"),
            (Signal::Metrics, "metrics"),
            (Signal::Logs, "logs"),
        ];
        let health = signals.into_iter().filter_map(|(signal, name)| {
            let health = pipeline.health(signal)?;
            let stats = health.stats;
            Some(json!({
                "signal": name,
                "exported": stats.exported,
                "lost": stats.failed + stats.dropped + stats.after_shutdown,
                "queued": health.queued,
                "failed_exports": health.failed_attempts,
                "last_error": Some(health.last_error).filter(|error| !error.is_empty()),
            }))
        });
        health.collect()
    }
}

/// How many requests are running, by the names of their spans.
pub(super) fn by_name(running: &[RunningRequest]) -> HashMap<Cow<'static, str>, usize> {
    let mut counts = HashMap::new();
    for request in running {
        *counts.entry(request.name()).or_default() += 1;
    }
    counts
}

fn add_quantiles(json: &mut Value, recent: Option<&Recent>) {
    for (name, quantile) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)] {
        json[name] = json!(recent.and_then(|recent| recent.quantile(quantile)));
    }
}

fn request(request: &RunningRequest) -> Value {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (asked, progress) = (request.asked(), request.progress());
    let open = progress.stages.iter();
    let done = progress.done.iter();
    json!({
        "trace_id": request.trace_id().to_string(),
        "span_id": request.span_id().to_string(),
        "name": request.name(),
        "method": asked.method,
        "path": asked.path,
        "route": progress.route.as_ref().map(|route| route.as_str()),
        "started_at": millis(request.started_at()),
        "age_ms": ms(progress.age),
        "stages": open.map(|(name, age)| json!({ "name": name, "age_ms": ms(*age) })).collect::<Vec<_>>(),
        "done": done
            .map(|(name, duration)| json!({ "name": name, "duration_ms": ms(*duration) }))
            .collect::<Vec<_>>(),
    })
}
