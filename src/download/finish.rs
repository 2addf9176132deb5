//! The end of an attempt: the one place that decides what its span and its measurement say.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Buf;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};

use super::{Attempts, config::Config, error, server::Server};
use crate::{
    attribute::{ERROR_TYPE, STAGE_CANCELLED},
    instrument::{Exchange, Work},
    redact::{self, Redaction},
    request::ErrorReport,
    semconv::{OTHER, content_length, int, is_bodiless, protocol_version},
};

/// Owns the span and the measurement of one attempt.
///
/// It travels from the service's `call` through the response future into the response body and ends
/// the span exactly once: when one of them reports the outcome, or when it is dropped, which means that
/// the attempt was cancelled.
#[derive(Debug)]
pub(super) struct Finish {
    config: Arc<Config>,
    context: Context,
    recording: bool,
    method: StringValue,
    server: Option<Server>,
    head_request: bool,
    connect_request: bool,
    started: Instant,
    started_at: SystemTime,
    head: Option<Head>,
    response_body_size: u64,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: StatusCode,
    protocol_version: &'static str,
    /// The bytes that the consumer of the body asks for at most, when that is known.
    announced: Option<u64>,
}

#[derive(Debug)]
enum Outcome {
    Completed,
    Failed(ErrorReport),
    Cancelled,
}

impl Finish {
    /// Opens the span, and writes its context into the request when its origin is to get it.
    pub(super) fn start<B>(config: &Arc<Config>, request: &mut Request<B>) -> Self {
        let method = config.known_methods.name(request.method());
        let server = Server::of(request);
        let parent = request.extensions().get::<Context>().cloned();
        let parent = parent.unwrap_or_else(Context::current);

        let started = Instant::now();
        let started_at = SystemTime::now();
        let name = match method.as_str() {
            OTHER => "HTTP".to_owned(),
            known => known.to_owned(),
        };
        let mut span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_start_time(started_at);
        span.attributes = Some(attributes(request, &method, server.as_ref()));
        let (context, recording) = config.tracer.start(span, &parent, None);

        if config.propagate.includes(request.uri()) {
            config.propagation.inject(&context, request.headers_mut());
        }
        Self {
            config: Arc::clone(config),
            context,
            recording,
            method,
            server,
            head_request: request.method() == Method::HEAD,
            connect_request: request.method() == Method::CONNECT,
            started,
            started_at,
            head: None,
            response_body_size: 0,
            finished: false,
        }
    }

    /// The address behind the server's name, which hyper-util's connector knows.
    #[cfg(feature = "hyper-client")]
    fn peer<B>(&self, response: &Response<B>) {
        use hyper_util::client::legacy::connect::HttpInfo;
        if let Some(peer) = response.extensions().get::<HttpInfo>()
            && self.recording
        {
            let peer = peer.remote_addr();
            self.context.span().set_attributes([
                KeyValue::new("network.peer.address", peer.ip().to_string()),
                KeyValue::new("network.peer.port", i64::from(peer.port())),
            ]);
        }
    }

    fn failed_with(&mut self, mut report: ErrorReport) {
        report.redact(&Redaction::default());
        self.finish(Outcome::Failed(report));
    }

    fn finish(&mut self, outcome: Outcome) {
        if self.finished {
            return;
        }
        self.finished = true;
        let elapsed = self.started.elapsed();
        let error_type = match (&outcome, self.head) {
            (Outcome::Failed(report), _) => Some(report.error_type.clone()),
            // For a client 4xx are errors too (semconv http-spans: Status).
            (Outcome::Completed, Some(Head { status, .. }))
                if status.is_client_error() || status.is_server_error() =>
            {
                Some(status.as_str().to_owned().into())
            }
            _ => None,
        };

        let mut shared = Vec::with_capacity(8);
        if let Some(head) = self.head {
            shared.extend([
                KeyValue::new("http.response.status_code", i64::from(head.status.as_u16())),
                KeyValue::new("network.protocol.version", head.protocol_version),
            ]);
        }
        if let Some(error_type) = &error_type {
            shared.push(KeyValue::new(ERROR_TYPE, error_type.clone()));
        }

        if self.recording {
            let span = self.context.span();
            span.set_attributes(shared.iter().cloned());
            if self.head.is_some() {
                span.set_attribute(KeyValue::new(
                    "http.response.body.size",
                    int(self.response_body_size),
                ));
            }
            match &outcome {
                Outcome::Cancelled => span.set_attribute(KeyValue::new(STAGE_CANCELLED, true)),
                Outcome::Failed(report) => span.add_event("exception", report.event_attributes()),
                Outcome::Completed => {}
            }
            if error_type.is_some() {
                // Semconv http-spans, Status: no description when the status code explains the error.
                span.set_status(Status::error(match &outcome {
                    Outcome::Failed(report) => report.message.to_string(),
                    _ => String::new(),
                }));
            }
            span.end_with_timestamp(self.started_at + elapsed);
        }

        if let Some(metrics) = &self.config.metrics {
            shared.push(KeyValue::new("http.request.method", self.method.clone()));
            if let Some(server) = self.server.take() {
                let server = self.config.measured_servers.named(server);
                shared.extend(server.attributes());
            }
            metrics.finished(elapsed, &shared);
        }
    }

    /// Whether a response that is dropped now is complete.
    fn is_complete(&self) -> bool {
        self.head.is_some_and(|head| {
            let read = head
                .announced
                .is_some_and(|announced| self.response_body_size >= announced);
            // A client that wants the picture need not read the body of a redirect or an error.
            read || !head.status.is_success()
        })
    }
}

impl Work for Finish {
    fn context(&self) -> Option<&Context> {
        Some(&self.context)
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        self.failed_with(ErrorReport::panic(payload));
    }

    fn dropped(&mut self) {}
}

impl Exchange for Finish {
    fn head<B: Body>(&mut self, response: &mut Response<B>) {
        let status = response.status();
        let bodiless = is_bodiless(self.head_request, self.connect_request, status);
        let announced = if bodiless {
            Some(0)
        } else {
            response
                .body()
                .size_hint()
                .exact()
                .or_else(|| content_length(response.headers()))
        };
        self.head = Some(Head {
            status,
            protocol_version: protocol_version(response.version()),
            announced,
        });
        #[cfg(feature = "hyper-client")]
        self.peer(response);
        if bodiless || response.body().is_end_stream() {
            self.completed();
        }
    }

    fn data(&mut self, data: &impl Buf) {
        self.response_body_size += data.remaining() as u64;
    }

    fn trailers(&mut self, _: &HeaderMap) {}

    fn completed(&mut self) {
        self.finish(Outcome::Completed);
    }

    fn failed<E: fmt::Display + 'static>(&mut self, error: &E) {
        let in_body = self.head.is_some();
        self.failed_with(error::report(error, &self.config.error_views, in_body));
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.finish(if self.is_complete() {
            Outcome::Completed
        } else {
            Outcome::Cancelled
        });
    }
}

/// The attributes that samplers may look at, with room for those that the end adds.
fn attributes<B>(
    request: &Request<B>,
    method: &StringValue,
    server: Option<&Server>,
) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(14);
    attributes.push(KeyValue::new("http.request.method", method.clone()));
    if method.as_str() == OTHER {
        attributes.push(KeyValue::new(
            "http.request.method_original",
            request.method().as_str().to_owned(),
        ));
    }
    attributes.extend(server.into_iter().flat_map(Server::attributes));
    let url = request.uri().to_string();
    attributes.push(KeyValue::new("url.full", redact::url(&url).into_owned()));
    let resends = request.extensions().get().map_or(0, Attempts::next);
    if resends > 0 {
        attributes.push(KeyValue::new(
            "http.request.resend_count",
            i64::from(resends),
        ));
    }
    attributes
}
