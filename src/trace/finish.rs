//! The end of a request: the one place that decides what its span and its measurements say.

use std::{any::Any, borrow::Cow, fmt, sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use bytes::Buf;
#[cfg(feature = "page")]
use http::Uri;
use http::{HeaderMap, Response, StatusCode};
use opentelemetry::{
    KeyValue, StringValue,
    trace::{Status, TraceContextExt},
};

use super::{
    config::{Config, StartLabels},
    facts::Facts,
    response_headers::{
        add_server_timing, add_server_timing_trace, add_timing_allow_origin, add_trace_response,
    },
    rpc::{Call, Named},
};
#[cfg(feature = "page")]
use crate::request::{Asked, Place};
use crate::{
    attribute::{self, ERROR_TYPE},
    instrument::{Delivery, Level, Said, Side, SpanAttributes, SpanEnd},
    intern,
    metrics::{HttpMetrics, Labels, Measurement, RequestSeries, RpcMetrics, labelled},
    request::{
        Current, ErrorReport, Interruption, Layer, Recording, RequestState, RequestTrace, Route,
    },
    semconv::{GrpcCode, int, is_bodiless},
};

/// Owns the root span and the measurements of one request.
///
/// It travels from the service's `call` through the response future into the response body and ends
/// the span exactly once: when one of them reports the outcome, or when it is dropped, which means that
/// the request was cancelled.
#[derive(Debug)]
pub(super) struct Finish {
    state: Arc<RequestState<Root>>,
    /// The same, for what makes it current, while it is not current.
    handle: Option<Arc<RequestState>>,
    attributes: SpanAttributes,
    /// The request is a gRPC call: its span and duration follow semconv rpc, not http.
    call: Option<Box<Call>>,
    delivery: Delivery,
    /// Whether the request's context carries anything for the code that runs in it.
    has_context: bool,
    /// Where the request is listed while it runs.
    #[cfg(feature = "page")]
    place: Option<Place>,
}

/// What the layer keeps of a request, beside what its handles know.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) config: Arc<Config>,
    pub(super) facts: Facts,
    /// The handle of a layer around this one. Its span is the server's.
    pub(super) outer: Option<RequestTrace>,
    /// What the closures of the service's own have made of the request.
    pub(super) labels: Option<Box<StartLabels>>,
    /// For whoever looks while the request runs.
    #[cfg(feature = "page")]
    pub(super) seen: Option<Seen>,
}

/// What is shown of a request while it runs.
#[cfg(feature = "page")]
#[derive(Debug)]
pub(super) struct Seen {
    /// Not redacted: that is done when someone looks.
    pub(super) uri: Uri,
    /// The name of a gRPC call.
    pub(super) call: Option<Cow<'static, str>>,
}

impl Root {
    /// A request is measured once, by the outermost layer that measures.
    fn is_measured_outside(&self) -> bool {
        self.outer.as_ref().is_some_and(RequestTrace::is_measured)
    }

    fn http_metrics(&self) -> Option<&HttpMetrics> {
        let metrics = self.config.http_metrics.as_ref();
        metrics.filter(|_| !self.is_measured_outside())
    }

    fn rpc_metrics(&self) -> Option<&RpcMetrics> {
        let metrics = self.config.rpc_metrics.as_ref();
        metrics.filter(|_| !self.is_measured_outside())
    }
}

impl Layer for Root {
    fn recording(&self) -> &Recording {
        &self.config.recording
    }

    fn measures(&self) -> bool {
        self.config.http_metrics.is_some() || self.is_measured_outside()
    }

    #[cfg(feature = "page")]
    fn name(&self, route: Option<&Route>) -> Cow<'static, str> {
        let call = self.seen.as_ref().and_then(|seen| seen.call.clone());
        call.unwrap_or_else(|| self.facts.span_name(route))
    }

    #[cfg(feature = "page")]
    fn asked(&self) -> Asked {
        let texts = &self.config.recording.texts;
        let path = |seen: &Seen| {
            let path = texts.redaction.path(seen.uri.path());
            texts.cut(&path).into_owned()
        };
        Asked {
            method: self.facts.method,
            path: self.seen.as_ref().map(path),
        }
    }
}

#[derive(Debug)]
enum Outcome {
    Completed,
    Failed(ErrorReport),
    /// In the phase of that name.
    Cancelled(&'static str),
}

impl Finish {
    #[inline]
    pub(super) fn new(
        state: Arc<RequestState<Root>>,
        attributes: SpanAttributes,
        call: Option<Box<Call>>,
        has_context: bool,
    ) -> Self {
        if let Some(metrics) = state.layer.http_metrics() {
            metrics.started(state.layer.facts.active_series());
        }
        #[cfg(feature = "page")]
        let place = state.layer.seen.as_ref().and_then(|_| {
            let running = state.layer.config.running.as_ref()?;
            let request: Arc<RequestState> = Arc::<RequestState<Root>>::clone(&state);
            Some(running.enter(&request))
        });
        let finish = Self {
            #[cfg(feature = "page")]
            place,
            state,
            handle: None,
            attributes,
            call,
            delivery: Delivery::new(Side::Server),
            has_context,
        };
        if let Some(start) = &finish.state.layer.labels {
            finish.add_labels(start.labels.iter().cloned());
        }
        finish
    }

    /// Makes the request and its context current.
    pub(super) fn attach(&mut self) -> Current {
        let handle = self.handle.take();
        let handle = handle.unwrap_or_else(|| Arc::<RequestState<Root>>::clone(&self.state));
        let context = self.has_context.then_some(&self.state.context);
        Current::request(handle, context)
    }

    /// Makes current what was so before.
    pub(super) fn detach(&mut self, current: Current) {
        self.handle = current.end();
    }

    fn add_labels(&self, labels: impl IntoIterator<Item = KeyValue>) {
        let texts = &self.config().recording.texts;
        let mut live = self.state.live();
        for label in labels {
            live.labels.set(texts.label(label));
        }
    }

    fn config(&self) -> &Config {
        &self.state.layer.config
    }

    /// The head of the response is there; its body follows.
    pub(super) fn head<B>(&mut self, response: &mut Response<B>, body: Said) {
        if let Some(metrics) = self.state.layer.http_metrics()
            && metrics.measures_first_byte()
        {
            self.state.live().first_byte = Some(self.state.clock.elapsed());
        }
        if let Some(start) = &self.state.layer.labels
            && let Some(parts) = &start.parts
        {
            self.add_labels(self.config().labels.end(parts, response));
        }
        let config = &*self.state.layer.config;
        if let Some(recorded) = &config.response_headers
            && self.state.is_recording
        {
            let is_rpc = self.call.is_some();
            let texts = &config.recording.texts;
            let span = self.state.context.span();
            self.attributes.add(&span, texts, |attributes| {
                for attribute in recorded.attributes(response.headers(), is_rpc, &texts.redaction) {
                    attributes.other(attribute);
                }
            });
        }
        if config.trace_response {
            add_trace_response(response.headers_mut(), &self.state);
        }
        if let Some(form) = config.server_timing_trace {
            add_server_timing_trace(response.headers_mut(), &self.state, form);
        }
        if let Some(origins) = &config.timing_allow_origin {
            add_timing_allow_origin(response.headers_mut(), origins);
        }
        if config.recording.server_timing {
            add_server_timing(response.headers_mut(), &self.state);
        }
        let facts = &self.state.layer.facts;
        let bodiless = is_bodiless(facts.head, facts.connect, response.status());
        let is_all = self.delivery.head(response, body, bodiless);
        if let Some(call) = &mut self.call {
            call.head(response);
            if call.code().is_none() && !bodiless {
                self.delivery.awaits_trailers();
            }
        }
        if is_all {
            self.completed();
        }
    }

    pub(super) fn data(&mut self, data: &impl Buf) {
        self.delivery.data(data);
        if let Some(call) = &mut self.call {
            call.data(data);
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(call) = &mut self.call {
            call.trailers(trailers);
        }
    }

    pub(super) fn completed(&mut self) {
        self.finish(Outcome::Completed);
    }

    pub(super) fn failed<E: fmt::Display + 'static>(&mut self, error: &E) {
        let config = self.config();
        let report = ErrorReport::of_any(error, &config.error_views, &config.recording.texts);
        self.finish(Outcome::Failed(report));
    }

    pub(super) fn panicked(&mut self, payload: &(dyn Any + Send)) {
        self.interrupt(Interruption::Panicked);
        let report = ErrorReport::panic(payload, &self.config().recording.texts);
        self.finish(Outcome::Failed(report));
    }

    /// The future or body is dropped next. The stages that it holds are told first that their request is
    /// over, so that the phase is the one it was in.
    pub(super) fn dropped(&mut self) {
        if !self.is_complete() {
            self.interrupt(Interruption::Cancelled);
        }
    }

    /// Whether the body has been read to its end.
    fn is_complete(&self) -> bool {
        let has_trailers = self.call.as_ref().is_some_and(|call| call.has_trailers());
        self.state.has_ended() || has_trailers || self.delivery.is_complete()
    }

    /// Returns the phase in which the request was interrupted first.
    fn interrupt(&self, interruption: Interruption) -> &'static str {
        let outside_stages = if self.delivery.status.is_some() {
            "response_body"
        } else {
            "handler"
        };
        self.state.live().interrupt(interruption, outside_stages)
    }

    fn finish(&mut self, outcome: Outcome) {
        if self.state.has_ended() {
            return;
        }
        self.state.end();
        #[cfg(feature = "page")]
        if let (Some(place), Some(running)) = (&self.place, &self.state.layer.config.running) {
            running.leave(place);
        }
        let elapsed = self.state.clock.elapsed();
        let (mut labels, mut first_byte) = (Labels::default(), None);
        let (mut custom, mut worked) = (Vec::new(), false);
        let named;
        let mut route = self.state.matched.as_ref();
        if let Some(mut live) = self.state.changed() {
            labels = live.labels.clone();
            first_byte = live.first_byte;
            named = live.route.take();
            route = named.as_ref();
            custom = std::mem::take(&mut live.attributes);
            worked = live.worked;
        }
        if let (Some(outer), false) = (&self.state.layer.outer, labels.is_empty()) {
            outer.labelled_inside(labels.as_slice());
        }
        if let (Some(outer), Some(route)) = (&self.state.layer.outer, route) {
            outer.route_inside(route);
        }
        let times = (elapsed, first_byte);
        let mut ending = Ending::default();
        let is_call = self.call.is_some();
        match self.call.take() {
            Some(call) => {
                self.end_call(*call, &outcome, elapsed, worked, &labels, &mut ending);
            }
            None => self.end_request(&outcome, times, route, &labels, &mut ending),
        }
        if let Outcome::Failed(report) = &outcome {
            self.log(report, elapsed, is_call);
        }
        if self.state.is_recording {
            self.end_span(&mut ending, &outcome, elapsed, custom);
        }
    }

    /// Semconv http-exceptions and rpc-exceptions.
    fn log(&self, report: &ErrorReport, elapsed: Duration, is_call: bool) {
        let event = match is_call {
            true => "rpc.server.call.exception",
            false => "http.server.request.exception",
        };
        let exceptions = &self.config().recording.exceptions;
        let at = self.state.clock.started_at() + elapsed;
        report.log(exceptions, (event, Level::Error), at, &self.state.context);
    }

    /// The bytes of the request's body that were read. Where they were not counted, the announced ones, if
    /// the service has answered: who refuses a request may not have read it, or not all of it.
    fn request_body_size(&self) -> Option<u64> {
        let read = self.state.request_body.read();
        let announced = self.state.layer.facts.announced_body_size;
        let is_answered = |status: StatusCode| status.is_success() || status.is_redirection();
        read.or(announced.filter(|_| self.delivery.status.is_some_and(is_answered)))
    }

    /// Semconv http-spans and http-metrics.
    fn end_request(
        &self,
        outcome: &Outcome,
        (elapsed, first_byte): (Duration, Option<Duration>),
        route: Option<&Route>,
        labels: &Labels,
        ending: &mut Ending,
    ) {
        let facts = &self.state.layer.facts;
        let status = self.delivery.status;
        let error_type = match outcome {
            Outcome::Failed(report) => Some(report.error_type.clone()),
            _ => self.delivery.error_type(),
        };
        let request_body_size = self.request_body_size();
        ending.attributes.extend(
            request_body_size.map(|size| KeyValue::new("http.request.body.size", int(size))),
        );
        if let Some(metrics) = self.state.layer.http_metrics() {
            let series = RequestSeries {
                active: facts.active_series(),
                protocol_version: facts.protocol_version,
                status,
                route: route.map(|route| &route.path),
                error_type: error_type.as_ref(),
            };
            metrics.ended(series.active, elapsed, status);
            let measurement = Measurement {
                duration: elapsed,
                first_byte,
                request_body: request_body_size,
                response_body: status.map(|_| self.delivery.bytes),
            };
            metrics.finished(&series, &measurement, labels);
        }

        ending.attributes.extend(status.map(status_code));
        if let Some(route) = route.filter(|route| !route.is_on_span) {
            ending.span_name = Some(facts.span_name(Some(route)));
            ending.route = Some(route.path.clone());
        }
        ending.error_type = error_type;
    }

    /// Semconv rpc-spans, rpc-metrics and grpc.
    fn end_call(
        &self,
        call: Call,
        outcome: &Outcome,
        elapsed: Duration,
        worked: bool,
        labels: &Labels,
        ending: &mut Ending,
    ) {
        let code = match outcome {
            Outcome::Completed => Some(call.code().unwrap_or(GrpcCode::Unknown)),
            Outcome::Cancelled(_) => Some(call.code().unwrap_or(GrpcCode::Cancelled)),
            // The connection breaks off, and no status was sent.
            Outcome::Failed(_) => call.code(),
        };
        let error_type = match (outcome, code) {
            (Outcome::Failed(report), _) => Some(report.error_type.clone()),
            (_, Some(code)) if code.is_server_error() => Some(code.as_str().into()),
            _ => None,
        };
        let code = code.map(|code| KeyValue::new("rpc.response.status_code", code.as_str()));
        let named = call.end(&self.config().rpc_methods, worked);
        let status = self.delivery.status;
        if let Some(metrics) = self.state.layer.http_metrics() {
            metrics.ended(self.state.layer.facts.active_series(), elapsed, status);
        }
        if let Some(metrics) = self.state.layer.rpc_metrics() {
            let mut attributes: ArrayVec<KeyValue, 4> = ArrayVec::new();
            attributes.extend(
                error_type
                    .clone()
                    .map(|kind| KeyValue::new(ERROR_TYPE, kind)),
            );
            attributes.push(named.attribute());
            attributes.extend(code.clone());
            attributes.push(KeyValue::new("rpc.system.name", "grpc"));
            match labels.is_empty() {
                true => metrics.finished(elapsed, &attributes),
                false => metrics.finished(elapsed, &labelled(attributes, labels.as_slice())),
            }
        }

        ending.attributes.extend(code);
        ending.attributes.extend(status.map(status_code));
        let texts = &self.config().recording.texts;
        let redaction = &texts.redaction;
        match &named {
            Named::AtStart(_) => {}
            Named::Learned(method) => {
                ending.attributes.push(named.attribute());
                ending.span_name = Some(intern::name(method));
            }
            Named::Reached(claimed) if redaction.path(claimed) == **claimed => {
                let method = KeyValue::new("rpc.method", claimed.to_string());
                ending.attributes.push(method);
                ending.span_name = Some(texts.cut(claimed).into_owned().into());
            }
            Named::Reached(claimed) | Named::Other(claimed) => {
                ending.attributes.push(named.attribute());
                ending.attributes.push(KeyValue::new(
                    "rpc.method_original",
                    redaction.path(claimed).into_owned(),
                ));
            }
        }
        ending.error_type = error_type;
    }

    fn end_span(
        &mut self,
        ending: &mut Ending,
        outcome: &Outcome,
        elapsed: Duration,
        custom: Vec<KeyValue>,
    ) {
        if self.delivery.status.is_some() {
            let size = KeyValue::new("http.response.body.size", int(self.delivery.bytes));
            ending.attributes.push(size);
        }
        if let Outcome::Cancelled(phase) = outcome {
            let phase = KeyValue::new(attribute::REQUEST_CANCELLED, *phase);
            ending.attributes.push(phase);
        }
        let mut status = Status::Unset;
        if let Some(error_type) = ending.error_type.take() {
            ending
                .attributes
                .push(KeyValue::new(ERROR_TYPE, error_type));
            // Semconv http-spans, Status: no description when the status code explains the error.
            status = Status::error(match outcome {
                Outcome::Failed(report) => report.message.to_string(),
                _ => String::new(),
            });
        }
        self.config()
            .recording
            .texts
            .cut_all(&mut ending.attributes);
        let end = SpanEnd {
            at: self.state.clock.started_at() + elapsed,
            name: ending.span_name.take(),
            last: &mut ending.attributes.drain(..),
            route: ending.route.take(),
            of_service: custom,
            status,
            exception: match outcome {
                Outcome::Failed(report) if self.config().recording.exceptions.on_spans => {
                    Some(report.event_attributes())
                }
                _ => None,
            },
        };
        std::mem::take(&mut self.attributes).end(&self.state.context.span(), end);
    }
}

/// What is added to the span at its end, in the terms of the request's protocol.
#[derive(Default)]
struct Ending {
    attributes: ArrayVec<KeyValue, 8>,
    error_type: Option<StringValue>,
    /// Another route than the one that the span began with.
    route: Option<StringValue>,
    /// The new name, when more is known than at the start.
    span_name: Option<Cow<'static, str>>,
}

fn status_code(status: StatusCode) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status.as_u16()))
}

impl Drop for Finish {
    fn drop(&mut self) {
        if self.is_complete() {
            self.completed();
        } else if std::thread::panicking() {
            // A panic outside of what is watched, such as in a size hint of the body.
            self.panicked(&"panic");
        } else {
            let phase = self.interrupt(Interruption::Cancelled);
            self.finish(Outcome::Cancelled(phase));
        }
    }
}
