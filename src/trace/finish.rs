//! The end of a request: the one place that decides what its span and its measurements say.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{Response, StatusCode};
use http_body::Body;
use opentelemetry::{
    KeyValue,
    trace::{Status, TraceContextExt},
};

use super::{
    attributes::{Facts, content_length, int, is_bodiless},
    config::Config,
};
use crate::{
    attribute::{self, ERROR_TYPE},
    metrics::Measurement,
    request::{ErrorReport, Interruption, RequestState},
};

/// Owns the root span and the measurements of one request.
///
/// It travels from the service's `call` through the response future into the response body and
/// ends the span exactly once: when one of them says how the request went, or else when it is
/// dropped, which means that whoever drove the request lost interest: it was cancelled.
#[derive(Debug)]
pub(super) struct Finish {
    state: Arc<RequestState>,
    facts: Facts,
    started: Instant,
    started_at: SystemTime,
    head: Option<Head>,
    response_body_size: u64,
    /// Where the request was when it was interrupted.
    phase: Option<&'static str>,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: StatusCode,
    /// How many bytes the consumer of the body will ask for at the most, where that is known.
    announced: Option<u64>,
}

#[derive(Debug)]
enum Outcome {
    Completed,
    Failed(ErrorReport),
    Cancelled(&'static str),
}

impl Finish {
    pub(super) fn new(
        state: Arc<RequestState>,
        facts: Facts,
        started: Instant,
        started_at: SystemTime,
    ) -> Self {
        if let Some(metrics) = &state.config.http_metrics {
            metrics.started(&facts.active_attributes());
        }
        Self {
            state,
            facts,
            started,
            started_at,
            head: None,
            response_body_size: 0,
            phase: None,
            finished: false,
        }
    }

    fn config(&self) -> &Config {
        &self.state.config
    }

    /// The response is there, its body is still to come.
    pub(super) fn head<B: Body>(&mut self, response: &Response<B>) {
        let status = response.status();
        let bodiless = is_bodiless(self.facts.head, self.facts.connect, status);
        let announced = if bodiless {
            Some(0)
        } else {
            response
                .body()
                .size_hint()
                .exact()
                .or_else(|| content_length(response.headers()))
        };
        self.head = Some(Head { status, announced });
        if bodiless || response.body().is_end_stream() {
            self.completed();
        }
    }

    pub(super) fn data(&mut self, bytes: usize) {
        self.response_body_size += bytes as u64;
    }

    pub(super) fn completed(&mut self) {
        self.finish(Outcome::Completed);
    }

    pub(super) fn failed<E: fmt::Display + 'static>(&mut self, error: &E) {
        let seen = self
            .config()
            .error_views
            .iter()
            .find_map(|view| view(error));
        let report = match seen {
            Some((error, type_name)) => ErrorReport::of(error, Some(type_name)),
            None => ErrorReport::of_any(error),
        };
        self.finish(Outcome::Failed(report));
    }

    pub(super) fn panicked(&mut self, payload: &(dyn Any + Send)) {
        self.interrupt(Interruption::Panicked);
        self.finish(Outcome::Failed(ErrorReport::panic(payload)));
    }

    /// Called before an unfinished future or body is dropped: what it holds is told that its
    /// request is over, and the phase is the one that it was in.
    pub(super) fn abandoned(&mut self) {
        if !self.is_complete() {
            self.interrupt(Interruption::Cancelled);
        }
    }

    /// Whether a body that is dropped now was read to its end.
    fn is_complete(&self) -> bool {
        // A consumer need not poll again when the announced length is out (hyper does not).
        let announced = self.head.and_then(|head| head.announced);
        self.finished || announced.is_some_and(|announced| self.response_body_size >= announced)
    }

    fn interrupt(&mut self, interruption: Interruption) {
        if self.finished || self.phase.is_some() {
            return;
        }
        let mut live = self.state.live();
        live.interruption = Some(interruption);
        let outside_stages = if self.head.is_some() {
            "response_body"
        } else {
            "handler"
        };
        self.phase = Some(live.innermost_stage().unwrap_or(outside_stages));
    }

    fn finish(&mut self, outcome: Outcome) {
        if self.finished {
            return;
        }
        self.finished = true;
        let elapsed = self.started.elapsed();
        let (route, custom) = {
            let mut live = self.state.live();
            (live.route.take(), std::mem::take(&mut live.attributes))
        };
        let status = self.head.map(|head| head.status);
        let error_type = match (&outcome, status) {
            (Outcome::Failed(report), _) => Some(report.error_type.clone()),
            (Outcome::Completed, Some(status)) if status.is_server_error() => {
                Some(status.as_str().to_owned().into())
            }
            _ => None,
        };

        // One fixed order, which makes the lookup of the series cheap. Nothing a client could
        // invent is among them: no path, host, or unknown method.
        let mut shared = Vec::with_capacity(6);
        if let Some(status) = status {
            shared.push(KeyValue::new(
                "http.response.status_code",
                i64::from(status.as_u16()),
            ));
        }
        if let Some(route) = &route {
            shared.push(KeyValue::new("http.route", route.path.clone()));
        }
        if let Some(error_type) = &error_type {
            shared.push(KeyValue::new(ERROR_TYPE, error_type.clone()));
        }

        if self.state.recording {
            let span = self.state.context.span();
            let mut attributes = shared.clone();
            if self.head.is_some() {
                attributes.push(KeyValue::new(
                    "http.response.body.size",
                    int(self.response_body_size),
                ));
            }
            if let Outcome::Cancelled(phase) = outcome {
                attributes.push(KeyValue::new(attribute::REQUEST_CANCELLED, phase));
            }
            attributes.extend(custom);
            span.set_attributes(attributes);
            if let Some(route) = &route {
                span.update_name(self.facts.span_name(Some(route)));
            }
            if let Outcome::Failed(report) = &outcome {
                span.add_event("exception", report.event_attributes());
            }
            if error_type.is_some() {
                // Semconv http-spans, Status: no description when the status code says it already.
                span.set_status(Status::error(match &outcome {
                    Outcome::Failed(report) => report.message.to_string(),
                    _ => String::new(),
                }));
            }
            span.end_with_timestamp(self.started_at + elapsed);
        }

        if let Some(metrics) = &self.config().http_metrics {
            let active = self.facts.active_attributes();
            let [method, scheme] = active.clone();
            shared.extend([
                method,
                scheme,
                KeyValue::new("network.protocol.version", self.facts.protocol_version),
            ]);
            metrics.finished(
                &active,
                &Measurement {
                    status,
                    duration: elapsed,
                    request_body: self.facts.request_body_size,
                    response_body: self.head.map(|_| self.response_body_size),
                    attributes: &shared,
                },
            );
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if self.is_complete() {
            self.completed();
        } else {
            self.interrupt(Interruption::Cancelled);
            self.finish(Outcome::Cancelled(self.phase.unwrap_or("handler")));
        }
    }
}
