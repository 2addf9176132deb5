//! The end of an attempt: the one place that decides what its span and its measurement say.

use std::{any::Any, fmt, sync::Arc, time::Instant};

use bytes::Buf;
use http::{HeaderMap, Method, Request, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};

use super::{Attempts, config::Config, error, server::Server};
use crate::{
    attribute::{ERROR_TYPE, STAGE_CANCELLED},
    instrument::{Clock, Delivery, Exchange, Level, Said, Side, TextRules, Work},
    metrics::labelled,
    request::{Current, ErrorReport, RequestTrace},
    semconv::{OTHER, int, is_bodiless, protocol_version},
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
    method: &'static str,
    server: Option<Server>,
    head_request: bool,
    connect_request: bool,
    /// The request that the download is for; it records nothing when there is none.
    request: RequestTrace,
    clock: Clock,
    started: Instant,
    delivery: Delivery,
    /// The response's.
    protocol_version: Option<&'static str>,
    finished: bool,
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

        let handle = request.extensions().get::<RequestTrace>().cloned();
        let trace = handle.unwrap_or_else(RequestTrace::current);
        let clock = trace.clock().unwrap_or_else(Clock::start_dated);
        let started = Instant::now();
        let name = match method {
            OTHER => "HTTP",
            known => known,
        };
        let mut span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_start_time(clock.at(started));
        let (texts, more) = config.texts(&trace);
        let mut url = texts.full_url(&request.uri().to_string());
        if let Some(texts) = more {
            url = texts.full_url(&url);
        }
        span.attributes = Some(attributes(request, method, server.as_ref(), url));
        let begun = config.tracer.start(span, &parent);

        if config.propagate.includes(request.uri()) {
            config
                .propagation
                .inject(&begun.context, request.headers_mut());
        }
        Self {
            config: Arc::clone(config),
            context: begun.context,
            recording: begun.is_recording,
            method,
            server,
            head_request: request.method() == Method::HEAD,
            connect_request: request.method() == Method::CONNECT,
            request: trace,
            clock,
            started,
            delivery: Delivery::new(Side::Client),
            protocol_version: None,
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

    fn failed_with(&mut self, report: impl FnOnce(&TextRules) -> ErrorReport) {
        let (texts, more) = self.config.texts(&self.request);
        let mut report = report(texts);
        if let Some(texts) = more {
            report.restrict(texts);
        }
        self.finish(Outcome::Failed(report));
    }

    fn finish(&mut self, outcome: Outcome) {
        if self.finished {
            return;
        }
        self.finished = true;
        let elapsed = self.started.elapsed();
        let error_type = match &outcome {
            Outcome::Failed(report) => Some(report.error_type.clone()),
            _ => self.delivery.error_type(),
        };

        let mut shared = Vec::with_capacity(8);
        if let (Some(status), Some(version)) = (self.delivery.status, self.protocol_version) {
            shared.extend([
                KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
                KeyValue::new("network.protocol.version", version),
            ]);
        }
        if let Some(error_type) = &error_type {
            shared.push(KeyValue::new(ERROR_TYPE, error_type.clone()));
        }

        let ended_at = self.clock.at(self.started) + elapsed;
        if let Outcome::Failed(report) = &outcome {
            // Semconv http-exceptions.
            let event = ("http.client.request.exception", Level::Warn);
            report.log(&self.config.exceptions, event, ended_at, &self.context);
        }
        if self.recording {
            let span = self.context.span();
            span.set_attributes(shared.iter().cloned());
            if self.delivery.status.is_some() {
                span.set_attribute(KeyValue::new(
                    "http.response.body.size",
                    int(self.delivery.bytes),
                ));
            }
            match &outcome {
                Outcome::Cancelled => span.set_attribute(KeyValue::new(STAGE_CANCELLED, true)),
                Outcome::Failed(report) if self.config.exceptions.on_spans => {
                    let attributes = report.event_attributes();
                    span.add_event_with_timestamp("exception", ended_at, attributes);
                }
                Outcome::Failed(_) | Outcome::Completed => {}
            }
            if error_type.is_some() {
                // Semconv http-spans, Status: no description when the status code explains the error.
                span.set_status(Status::error(match &outcome {
                    Outcome::Failed(report) => report.message.to_string(),
                    _ => String::new(),
                }));
            }
            span.end_with_timestamp(ended_at);
        }

        if let Some(metrics) = &self.config.metrics {
            shared.push(KeyValue::new("http.request.method", self.method));
            if let Some(server) = self.server.take() {
                let server = self.config.measured_servers.named(server);
                shared.extend(server.attributes());
            }
            shared.sort_unstable_by(|one, other| one.key.cmp(&other.key));
            let labels = self.request.download_labels();
            if !labels.is_empty() {
                shared = labelled(shared, labels.as_slice());
            }
            metrics.finished(elapsed, &shared);
        }
    }
}

impl Work for Finish {
    type Current = Current;

    fn attach(&mut self) -> Current {
        Current::context(&self.context)
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        self.failed_with(|texts| ErrorReport::panic(payload, texts));
    }

    fn dropped(&mut self) {}
}

impl Exchange for Finish {
    fn head<B>(&mut self, response: &mut Response<B>, body: Said) {
        let (head, connect) = (self.head_request, self.connect_request);
        let bodiless = is_bodiless(head, connect, response.status());
        let is_all = self.delivery.head(response, body, bodiless);
        self.protocol_version = Some(protocol_version(response.version()));
        #[cfg(feature = "hyper-client")]
        self.peer(response);
        if is_all {
            self.completed();
        }
    }

    fn data(&mut self, data: &impl Buf) {
        self.delivery.data(data);
    }

    fn trailers(&mut self, _: &HeaderMap) {}

    fn completed(&mut self) {
        self.finish(Outcome::Completed);
    }

    fn failed<E: fmt::Display + 'static>(&mut self, error: &E) {
        let in_body = self.delivery.status.is_some();
        let config = Arc::clone(&self.config);
        self.failed_with(|texts| error::report(error, &config.error_views, in_body, texts));
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.finish(if self.delivery.is_complete() {
            Outcome::Completed
        } else {
            Outcome::Cancelled
        });
    }
}

/// The attributes that samplers may look at, with room for those that the end adds.
fn attributes<B>(
    request: &Request<B>,
    method: &'static str,
    server: Option<&Server>,
    url: String,
) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(14);
    attributes.push(KeyValue::new("http.request.method", method));
    if method == OTHER {
        attributes.push(KeyValue::new(
            "http.request.method_original",
            request.method().as_str().to_owned(),
        ));
    }
    attributes.extend(server.into_iter().flat_map(Server::attributes));
    attributes.push(KeyValue::new("url.full", url));
    let resends = request.extensions().get().map_or(0, Attempts::next);
    if resends > 0 {
        attributes.push(KeyValue::new(
            "http.request.resend_count",
            i64::from(resends),
        ));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io, time::Duration};

    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tower::{Layer, ServiceExt, service_fn};

    use crate::{DownloadLayer, ErrorKind, ImageTraceLayer, RequestTrace, instrument::set_forward};

    /// The system's clock is set forward while requests run, and the spans do not notice.
    // faults A14
    #[tokio::test]
    async fn all_of_a_request_has_one_clock() {
        const STEP: Duration = Duration::from_secs(3600);
        let exporter = InMemorySpanExporter::default();
        let tracers = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = ImageTraceLayer::builder().tracer_provider(tracers.clone());
        let layer = layer.metrics(false).build();
        let fetch = |fails: bool| {
            let layer = DownloadLayer::builder().tracer_provider(tracers.clone());
            let client = service_fn(move |_: http::Request<()>| async move {
                set_forward(Duration::ZERO);
                let error = io::Error::other("no source");
                let found = Ok(http::Response::new(String::new()));
                if fails { Err(error) } else { found }
            });
            let request = http::Request::get("http://cdn.example/").body(());
            let client = layer.metrics(false).build().layer(client);
            client.oneshot(request.expect("a request"))
        };
        let service = layer.layer(service_fn(|request: http::Request<()>| async move {
            set_forward(Duration::ZERO);
            let trace = RequestTrace::from_extensions(request.extensions());
            let error = io::Error::other("no picture");
            let noted = trace.stage("noted");
            noted.record_error(&error);
            drop(noted);
            let begun = trace.stage("begun");
            begun.in_scope(|| begun.record_error(&error));
            drop(begun);
            trace.error(ErrorKind::Security, &error);
            trace
                .download("http://cdn.example/")
                .run(fetch(true))
                .await?;
            Ok::<_, io::Error>(http::Response::new(String::new()))
        }));
        set_forward(STEP);
        let request = http::Request::new(());
        service.oneshot(request).await.expect_err("no source");
        assert_all_before(&exporter, STEP);

        // An attempt outside of requests has its own.
        exporter.reset();
        set_forward(STEP);
        fetch(true).await.expect_err("no source");
        assert_all_before(&exporter, STEP);

        // So has one in a request without spans.
        exporter.reset();
        let unseen = ImageTraceLayer::builder().traces(false).metrics(false);
        let service = unseen
            .build()
            .layer(service_fn(|_: http::Request<()>| async {
                fetch(false).await.expect("a source");
                Ok::<_, Infallible>(http::Response::new(String::new()))
            }));
        let request = http::Request::new(());
        service.oneshot(request).await.expect("an answer");
        let spans = exporter.get_finished_spans().expect("spans");
        let age = spans[0].start_time.elapsed().expect("in the past");
        assert!(age < STEP, "{spans:#?}");
    }

    fn assert_all_before(exporter: &InMemorySpanExporter, step: Duration) {
        let spans = exporter.get_finished_spans().expect("spans");
        assert!(!spans.is_empty());
        for span in spans {
            let events = span.events.iter().map(|event| event.timestamp);
            for time in events.chain([span.start_time, span.end_time]) {
                let age = time.elapsed().expect("in the past");
                assert!(age > step / 2, "{age:?}: {span:#?}");
            }
        }
    }
}
