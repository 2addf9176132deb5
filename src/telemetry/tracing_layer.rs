//! The service's own `tracing` spans and events.

use std::sync::OnceLock;

use opentelemetry::trace::{Status, TraceContextExt, TracerProvider};
use tracing::{Dispatch, Event, Level, Subscriber, dispatcher::WeakDispatch};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::{Layer, filter::dynamic_filter_fn, layer::Context, registry::LookupSpan};

#[cfg(not(feature = "_export"))]
use super::no_pipeline::is_exporting;
#[cfg(feature = "_export")]
use super::pipeline::is_exporting;
use super::{
    providers::Telemetry,
    settings::{ExceptionSignal, Exporter},
};

impl Telemetry {
    /// A layer for `tracing-subscriber` that has the service's `tracing` spans in its traces and exports its
    /// events as logs: all that a service with `tracing` needs.
    ///
    /// ```no_run
    /// use tower_image_trace::{Telemetry, telemetry::WithTraceIds};
    /// use tracing_subscriber::{Layer, filter::LevelFilter, fmt, prelude::*};
    ///
    /// let telemetry = Telemetry::from_env()?;
    /// tracing_subscriber::registry()
    ///     .with(telemetry.tracing_layer().with_filter(LevelFilter::INFO))
    ///     .with(fmt::layer().event_format(WithTraceIds::new(fmt::format())).with_filter(LevelFilter::INFO))
    ///     .init();
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    ///
    /// - A span (`#[instrument]`, `info_span!`) is a child of the root span, of the stage or of the `tracing`
    ///   span that is current. A stage, or an attempt of a download, that begins in a `tracing` span is its
    ///   child.
    /// - An event is a log record with the ids of the current span
    ///   ([`log_layer`](Self::log_layer)) where logs are exported, and an event of its `tracing` span where
    ///   they are not. [`ExceptionSignal::Both`] makes it both. One of level `ERROR` gives its `tracing` span
    ///   the status `Error`.
    /// - The second line puts the ids into ordinary log lines: see [`WithTraceIds`](super::WithTraceIds).
    /// - What the export itself traces and logs is left out, at every level.
    ///
    /// Fields are recorded as the service writes them: unlike the crate's own texts they are not redacted. The
    /// target, the file, the line and the thread of spans are left out; for these, make a layer of
    /// `tracing-opentelemetry` with a tracer of [`tracer_provider`](Self::tracer_provider).
    #[must_use]
    pub fn tracing_layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let settings = self.settings();
        let exports_logs = settings.logs != Exporter::None;
        let as_events = match settings.exception_signal {
            ExceptionSignal::Both => true,
            _ => !exports_logs && settings.traces != Exporter::None,
        };
        // The live page has the events either way, and once.
        let as_logs = exports_logs || settings.trace_page.is_some() && !as_events;
        let spans = self.makes_spans().then(|| {
            tracing_opentelemetry::layer()
                .with_tracer(self.tracer_provider().tracer("tracing"))
                .with_location(false)
                .with_target(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(dynamic_filter_fn(move |metadata, _| {
                    (metadata.is_span() || as_events) && !is_exporting()
                }))
        });
        let logs = as_logs.then(|| self.log_layer());
        // An `Option` of a layer is not told its dispatcher, so the last one finds no span where there are none. It
        // stands outermost, since `None` there would be taken for a filter that lets nothing through.
        let recorded = Layer::<S>::and_then(spans, logs);
        Layer::<S>::and_then(recorded, ErrorStatus::default())
    }
}

/// Gives a `tracing` span the status `Error` at its first event of that level, whether the span has the
/// event or not.
#[derive(Debug, Default)]
struct ErrorStatus {
    dispatch: OnceLock<WeakDispatch>,
}

impl<S> Layer<S> for ErrorStatus
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // A layer has one subscriber.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR || is_exporting() {
            return;
        }
        let span = context.event_span(event);
        let dispatch = self.dispatch.get().and_then(WeakDispatch::upgrade);
        if let (Some(span), Some(dispatch)) = (span, dispatch)
            && let Some(context) = get_otel_context(&span.id(), &dispatch)
        {
            context.span().set_status(Status::error(""));
        }
    }
}
