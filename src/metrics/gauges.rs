use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

#[cfg(feature = "_export")]
use opentelemetry::StringValue;
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, MeterProvider},
};

use super::{active::ActiveRequests, metric::Metric};
#[cfg(feature = "_export")]
use crate::attribute::ERROR_TYPE;
use crate::{in_progress::RequestsInProgress, instrument::ScopedMeter};

/// Callbacks, read at each collection of metrics until this is dropped.
///
/// OpenTelemetry cannot unregister a callback, so the callbacks registered here hold weak references:
/// dropping the `Gauges` drops all closures given to it and ends their metrics, even when the meter
/// provider lives on. Registering a name again, with the same attributes, replaces the earlier closure.
///
/// A closure that panics is not called again, because its state is unknown; the other metrics go on.
/// With feature `telemetry` an error is logged.
///
/// ```
/// # mod tikv_jemalloc_ctl {
/// #     pub mod epoch { pub fn advance() -> Result<u64, ()> { Ok(1) } }
/// #     pub mod stats { pub mod allocated { pub fn read() -> Result<usize, ()> { Ok(1) } } }
/// # }
/// use tikv_jemalloc_ctl::{epoch, stats};
/// use tower_image_trace::metrics::{Gauges, Metric};
///
/// // Every `Telemetry` has its own: `telemetry.gauges()`.
/// let gauges = Gauges::new(&*opentelemetry::global::meter_provider());
/// let allocated = Metric {
///     name: "memory.allocated",
///     unit: "By",
///     description: "Bytes allocated by the service.",
/// };
/// gauges.gauge(allocated, || {
///     epoch::advance().ok()?; // jemalloc's statistics are cached until then
///     stats::allocated::read().ok()?.try_into().ok()
/// });
/// ```
pub struct Gauges {
    meter: ScopedMeter,
    active_requests: OnceLock<Arc<ActiveRequests>>,
    #[cfg(feature = "page")]
    workers: WatchedWorkers,
    sources: Mutex<Vec<Registered>>,
}

/// Workers and the queue in front of them, as the live page shows them.
#[cfg(feature = "page")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerCounts {
    pub(crate) busy: usize,
    pub(crate) total: usize,
    pub(crate) waiting: usize,
    /// `None`: the queue has no limit.
    pub(crate) queue_size: Option<usize>,
}

/// The workers that were registered last.
#[cfg(feature = "page")]
#[derive(Clone, Default)]
pub(crate) struct WatchedWorkers(Arc<Mutex<Option<Box<ReadWorkers>>>>);

#[cfg(feature = "page")]
type ReadWorkers = dyn Fn() -> WorkerCounts + Send + Sync;

#[cfg(feature = "page")]
impl WatchedWorkers {
    pub(crate) fn watch(&self, read: impl Fn() -> WorkerCounts + Send + Sync + 'static) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = Some(Box::new(read));
    }

    pub(crate) fn now(&self) -> Option<WorkerCounts> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.as_ref().map(|read| read())
    }
}

#[cfg(feature = "page")]
impl fmt::Debug for WatchedWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchedWorkers")
    }
}

struct Registered {
    name: &'static str,
    attributes: Vec<KeyValue>,
    /// The only strong reference to the closure that a callback reads.
    _source: Arc<dyn Any + Send + Sync>,
}

struct Source<F> {
    read: F,
    panicked: AtomicBool,
}

impl Gauges {
    /// Gauges that are read whenever `provider` collects.
    pub fn new(provider: &(impl MeterProvider + ?Sized + 'static)) -> Self {
        Self {
            meter: ScopedMeter::of(provider),
            active_requests: OnceLock::new(),
            #[cfg(feature = "page")]
            workers: WatchedWorkers::default(),
            sources: Mutex::default(),
        }
    }

    /// Says that all readers of the provider are cumulative, if they are.
    #[cfg(all(feature = "bound-instruments", feature = "telemetry"))]
    pub(crate) fn read_cumulatively(mut self, is_cumulative: bool) -> Self {
        self.meter = self.meter.read_cumulatively(is_cumulative);
        self
    }

    /// A gauge of the service's own. `read` returns its value, or `None` to report nothing. It is
    /// called on the thread that collects, so it must be quick.
    pub fn gauge(&self, metric: Metric, read: impl Fn() -> Option<i64> + Send + Sync + 'static) {
        self.int_gauge(metric, Vec::new(), read);
    }

    /// `requests_in_progress` and `images_in_progress`.
    pub fn in_progress(&self, counts: &RequestsInProgress) {
        let requests = counts.clone();
        self.gauge(
            Metric {
                name: "requests_in_progress",
                unit: "{request}",
                description: "The number of requests currently in progress.",
            },
            move || Some(requests.requests()),
        );
        let images = counts.clone();
        self.gauge(
            Metric {
                name: "images_in_progress",
                unit: "{image}",
                description: "The number of images currently in progress.",
            },
            move || Some(images.images()),
        );
    }

    pub(crate) fn int_gauge(
        &self,
        metric: Metric,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        let callback = self.register(metric, attributes, read);
        self.meter
            .i64_observable_gauge(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.description)
            .with_callback(callback)
            .build();
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn float_gauge(
        &self,
        metric: Metric,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let callback = self.register(metric, Vec::new(), read);
        self.meter
            .f64_observable_gauge(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.description)
            .with_callback(callback)
            .build();
    }

    /// A value that never falls.
    #[cfg(any(
        feature = "tokio-metrics",
        all(feature = "process", target_os = "linux")
    ))]
    pub(super) fn float_counter(
        &self,
        metric: Metric,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let callback = self.register(metric, attributes, read);
        self.meter
            .f64_observable_counter(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.description)
            .with_callback(callback)
            .build();
    }

    /// Counts that never fall, one for each outcome: `None` is success, anything else an `error.type`.
    #[cfg(feature = "_export")]
    pub(crate) fn outcomes(
        &self,
        metric: Metric,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Vec<(Option<StringValue>, u64)> + Send + Sync + 'static,
    ) {
        let ask = self.keep(metric, attributes.clone(), move || Some(read()));
        self.meter
            .u64_observable_counter(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.description)
            .with_callback(move |instrument| {
                for (error_type, count) in ask().unwrap_or_default() {
                    let mut attributes = attributes.clone();
                    attributes.extend(error_type.map(|kind| KeyValue::new(ERROR_TYPE, kind)));
                    instrument.observe(count, &attributes);
                }
            })
            .build();
    }

    /// A value that can be added up over processes.
    #[cfg(any(feature = "_export", all(feature = "process", target_os = "linux")))]
    pub(crate) fn up_down_counter(
        &self,
        metric: Metric,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        let callback = self.register(metric, attributes, read);
        self.meter
            .i64_observable_up_down_counter(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.description)
            .with_callback(callback)
            .build();
    }

    /// The workers that the live page shows.
    #[cfg(feature = "page")]
    pub(crate) const fn watched_workers(&self) -> &WatchedWorkers {
        &self.workers
    }

    pub(crate) fn meter(&self) -> &ScopedMeter {
        &self.meter
    }

    /// The counts of `http.server.active_requests` of all layers with these gauges.
    pub(crate) fn active_requests(&self) -> Arc<ActiveRequests> {
        let counts = &self.active_requests;
        Arc::clone(counts.get_or_init(|| ActiveRequests::new(&self.meter)))
    }

    /// A callback that reports what `read` returns for as long as this `Gauges` exists.
    fn register<T, F>(
        &self,
        metric: Metric,
        attributes: Vec<KeyValue>,
        read: F,
    ) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + 'static
    where
        F: Fn() -> Option<T> + Send + Sync + 'static,
    {
        let ask = self.keep(metric, attributes.clone(), read);
        move |instrument| {
            if let Some(value) = ask() {
                instrument.observe(value, &attributes);
            }
        }
    }

    /// Keeps `read`, in place of an earlier one of the same series. The closure it returns calls `read`
    /// for as long as this `Gauges` exists.
    fn keep<T, F>(
        &self,
        metric: Metric,
        attributes: Vec<KeyValue>,
        read: F,
    ) -> impl Fn() -> Option<T> + Send + Sync + 'static
    where
        F: Fn() -> Option<T> + Send + Sync + 'static,
    {
        let name = metric.name;
        let source = Arc::new(Source {
            read,
            panicked: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&source);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced: Vec<_> = sources
            .extract_if(.., |source| {
                source.name == name && source.attributes == attributes
            })
            .collect();
        sources.push(Registered {
            name,
            attributes,
            _source: source,
        });
        drop(sources);
        // The caller's closures are dropped after the lock: they may use these gauges.
        drop(replaced);
        move || weak.upgrade()?.ask(name)
    }
}

impl<T, F: Fn() -> Option<T>> Source<F> {
    fn ask(&self, name: &'static str) -> Option<T> {
        if self.panicked.load(Ordering::Relaxed) {
            return None;
        }
        // A panic here would end the thread that collects, and all metrics with it.
        let value = catch_unwind(AssertUnwindSafe(&self.read));
        value.unwrap_or_else(|_| {
            self.panicked.store(true, Ordering::Relaxed);
            #[cfg(feature = "telemetry")]
            tracing::error!(metric = name, "a gauge panicked and is not asked again");
            #[cfg(not(feature = "telemetry"))]
            let _ = name;
            None
        })
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set()
            .entries(sources.iter().map(|source| source.name))
            .finish()
    }
}
