//! The end of a request: the one place that decides what its span and its measurements say.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Buf;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use opentelemetry::{
    KeyValue, StringValue,
    trace::{Status, TraceContextExt},
};

use super::{
    attributes::{Facts, content_length, int, is_bodiless},
    config::Config,
    rpc::{Call, Code, Named},
};
use crate::{
    attribute::{self, ERROR_TYPE},
    metrics::Measurement,
    request::{ErrorReport, Interruption, RequestState, Route},
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
    pub(super) fn head<B: Body>(&mut self, response: &mut Response<B>) {
        if let Some(recorded) = &self.config().response_headers
            && self.state.recording
        {
            let is_rpc = self.facts.call.is_some();
            let redaction = &self.config().redaction;
            let attributes = recorded.attributes(response.headers(), is_rpc, redaction);
            self.state.context.span().set_attributes(attributes);
        }
        let added = self.config().added_headers;
        added.add(&self.state, response.headers_mut());
        let status = response.status();
        if let Some(call) = &mut self.facts.call {
            call.head(response);
        }
        let awaits_trailers = self
            .facts
            .call
            .as_ref()
            .is_some_and(|call| call.code().is_none());
        let bodiless = is_bodiless(self.facts.head, self.facts.connect, status);
        let announced = if bodiless {
            Some(0)
        } else if awaits_trailers {
            None
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

    pub(super) fn data(&mut self, data: &impl Buf) {
        self.response_body_size += data.remaining() as u64;
        if let Some(call) = &mut self.facts.call {
            call.data(data.chunk());
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(call) = &mut self.facts.call {
            call.trailers(trailers);
        }
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
        self.failed_with(report);
    }

    pub(super) fn panicked(&mut self, payload: &(dyn Any + Send)) {
        self.interrupt(Interruption::Panicked);
        self.failed_with(ErrorReport::panic(payload));
    }

    fn failed_with(&mut self, mut report: ErrorReport) {
        report.redact(&self.config().redaction);
        self.finish(Outcome::Failed(report));
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
        let (route, custom, worked) = {
            let mut live = self.state.live();
            let custom = std::mem::take(&mut live.attributes);
            (live.route.take(), custom, live.worked)
        };
        let mut answer = match self.facts.call.take() {
            Some(call) => self.rpc_answer(call, &outcome, worked),
            None => self.http_answer(&outcome, route.as_ref()),
        };
        if let Some(error_type) = &answer.error_type {
            let error_type = KeyValue::new(ERROR_TYPE, error_type.clone());
            answer.shared.push(error_type);
        }

        if self.state.recording {
            let span = self.state.context.span();
            let mut attributes = answer.shared.clone();
            attributes.append(&mut answer.span_only);
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
            if let Some(name) = answer.span_name {
                span.update_name(name);
            }
            if let Outcome::Failed(report) = &outcome {
                span.add_event("exception", report.event_attributes());
            }
            if answer.error_type.is_some() {
                // Semconv http-spans, Status: no description when the status code says it already.
                span.set_status(Status::error(match &outcome {
                    Outcome::Failed(report) => report.message.to_string(),
                    _ => String::new(),
                }));
            }
            span.end_with_timestamp(self.started_at + elapsed);
        }

        answer.shared.append(&mut answer.metrics_only);
        if let Some(metrics) = &self.config().http_metrics {
            let status = self.head.map(|head| head.status);
            metrics.ended(&self.facts.active_attributes(), elapsed, status);
            if !answer.is_rpc {
                metrics.finished(&Measurement {
                    duration: elapsed,
                    request_body: self.facts.request_body_size,
                    response_body: self.head.map(|_| self.response_body_size),
                    attributes: &answer.shared,
                });
            }
        }
        if answer.is_rpc
            && let Some(metrics) = &self.config().rpc_metrics
        {
            metrics.finished(elapsed, &answer.shared);
        }
    }

    /// Semconv http-spans and http-metrics.
    fn http_answer(&self, outcome: &Outcome, route: Option<&Route>) -> Answer {
        let status = self.head.map(|head| head.status);
        let mut shared = Vec::with_capacity(6);
        if let Some(status) = status {
            shared.push(status_code(status));
        }
        if let Some(route) = route {
            shared.push(KeyValue::new("http.route", route.path.clone()));
        }
        let [method, scheme] = self.facts.active_attributes();
        let version = KeyValue::new("network.protocol.version", self.facts.protocol_version);
        Answer {
            is_rpc: false,
            shared,
            span_only: Vec::new(),
            metrics_only: vec![method, scheme, version],
            span_name: route.map(|route| self.facts.span_name(Some(route))),
            error_type: match (outcome, status) {
                (Outcome::Failed(report), _) => Some(report.error_type.clone()),
                (Outcome::Completed, Some(status)) if status.is_server_error() => {
                    Some(status.as_str().to_owned().into())
                }
                _ => None,
            },
        }
    }

    /// Semconv rpc-spans, rpc-metrics and grpc.
    fn rpc_answer(&self, call: Call, outcome: &Outcome, worked: bool) -> Answer {
        let code = match outcome {
            Outcome::Completed => Some(call.code().unwrap_or(Code::UNKNOWN)),
            Outcome::Cancelled(_) => Some(call.code().unwrap_or(Code::CANCELLED)),
            // The connection breaks off; the service has sent no status.
            Outcome::Failed(_) => call.code(),
        };
        let mut shared = Vec::with_capacity(4);
        if let Some(code) = code {
            shared.push(KeyValue::new("rpc.response.status_code", code.as_str()));
        }
        let named = call.end(&self.config().rpc_methods, worked);
        let mut span_only = Vec::with_capacity(3);
        span_only.extend(self.head.map(|head| status_code(head.status)));
        let redaction = &self.config().redaction;
        let mut span_name = None;
        match &named {
            Named::AtStart(_) => {}
            Named::Learned(method) => {
                span_only.push(named.attribute());
                span_name = Some(method.to_string());
            }
            Named::Reached(claimed) if redaction.path(claimed) == **claimed => {
                span_only.push(KeyValue::new("rpc.method", claimed.to_string()));
                span_name = Some(claimed.to_string());
            }
            Named::Reached(claimed) | Named::Other(claimed) => {
                span_only.push(named.attribute());
                span_only.push(KeyValue::new(
                    "rpc.method_original",
                    redaction.path(claimed).into_owned(),
                ));
            }
        }
        Answer {
            is_rpc: true,
            shared,
            span_only,
            metrics_only: vec![KeyValue::new("rpc.system.name", "grpc"), named.attribute()],
            span_name,
            error_type: match (outcome, code) {
                (Outcome::Failed(report), _) => Some(report.error_type.clone()),
                (Outcome::Completed, Some(code)) if code.is_error() => Some(code.as_str().into()),
                _ => None,
            },
        }
    }
}

/// How the request was answered, in the terms of its protocol.
struct Answer {
    is_rpc: bool,
    /// On the span and the metrics, in one fixed order, which makes the lookup of the series
    /// cheap. Nothing a client could invent is among them: no path, host, or unknown method.
    shared: Vec<KeyValue>,
    span_only: Vec<KeyValue>,
    metrics_only: Vec<KeyValue>,
    /// The span's name, if more is known than at the start.
    span_name: Option<String>,
    error_type: Option<StringValue>,
}

fn status_code(status: StatusCode) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status.as_u16()))
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
