use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter, MeterProvider},
};

use super::ActiveRequests;
use crate::{in_progress::RequestsInProgress, trace::scope};

/// Values that are asked for whenever metrics are collected, until this is dropped.
///
/// OpenTelemetry has no way to unregister a callback, so the ones registered here only hold weak
/// references: dropping the `Gauges` drops all closures given to it, and their metrics end, even
/// when the meter provider lives on. Registering a name again, with the same attributes, replaces
/// what was registered before.
///
/// A closure that panics is not asked again, since nobody knows what state it left behind; the
/// other metrics go on. With feature `telemetry` an error is logged.
///
/// ```
/// # mod tikv_jemalloc_ctl {
/// #     pub mod epoch { pub fn advance() -> Result<u64, ()> { Ok(1) } }
/// #     pub mod stats { pub mod allocated { pub fn read() -> Result<usize, ()> { Ok(1) } } }
/// # }
/// use tikv_jemalloc_ctl::{epoch, stats};
/// use tower_image_trace::metrics::Gauges;
///
/// // Or those of `telemetry.gauges()`, which every `Telemetry` has.
/// let gauges = Gauges::new(&*opentelemetry::global::meter_provider());
/// gauges.gauge("memory.allocated", "By", "Bytes allocated by the service.", || {
///     epoch::advance().ok()?; // jemalloc's statistics are cached until then
///     stats::allocated::read().ok()?.try_into().ok()
/// });
/// ```
pub struct Gauges {
    meter: Meter,
    active_requests: OnceLock<Arc<ActiveRequests>>,
    sources: Mutex<Vec<Registered>>,
}

struct Registered {
    name: &'static str,
    attributes: Vec<KeyValue>,
    /// The only strong reference to what a callback reads.
    _source: Arc<dyn Any + Send + Sync>,
}

struct Source<F> {
    read: F,
    panicked: AtomicBool,
}

/// What a metric is called, and in which unit it counts.
pub(crate) struct Name {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) description: &'static str,
}

impl Gauges {
    /// Gauges that are read whenever `provider` collects.
    pub fn new(provider: &(impl MeterProvider + ?Sized)) -> Self {
        Self {
            meter: provider.meter_with_scope(scope()),
            active_requests: OnceLock::new(),
            sources: Mutex::default(),
        }
    }

    /// A gauge of the service's own. What `read` gives is reported, `None` is not. It is called
    /// on the thread that collects, so it must be quick.
    ///
    /// `unit` is one of UCUM's, such as `By`, or an annotation such as `{task}`.
    pub fn gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        let name = Name {
            name,
            unit,
            description,
        };
        self.int_gauge(name, Vec::new(), read);
    }

    /// `requests_in_progress` and `images_in_progress`.
    pub fn in_progress(&self, counts: &RequestsInProgress) {
        let requests = counts.clone();
        self.gauge(
            "requests_in_progress",
            "1",
            "The number of requests currently in progress.",
            move || Some(requests.requests()),
        );
        let images = counts.clone();
        self.gauge(
            "images_in_progress",
            "1",
            "The number of images currently in progress.",
            move || Some(images.images()),
        );
    }

    pub(super) fn int_gauge(
        &self,
        name: Name,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        let callback = self.register(&name, attributes, read);
        self.meter
            .i64_observable_gauge(name.name)
            .with_unit(name.unit)
            .with_description(name.description)
            .with_callback(callback)
            .build();
    }

    #[cfg(feature = "tokio")]
    pub(super) fn float_gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let name = Name {
            name,
            unit,
            description,
        };
        let callback = self.register(&name, Vec::new(), read);
        self.meter
            .f64_observable_gauge(name.name)
            .with_unit(name.unit)
            .with_description(name.description)
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
        name: Name,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let callback = self.register(&name, attributes, read);
        self.meter
            .f64_observable_counter(name.name)
            .with_unit(name.unit)
            .with_description(name.description)
            .with_callback(callback)
            .build();
    }

    /// A count that never falls.
    #[cfg(feature = "_export")]
    pub(crate) fn counter(
        &self,
        name: Name,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) {
        let callback = self.register(&name, attributes, read);
        self.meter
            .u64_observable_counter(name.name)
            .with_unit(name.unit)
            .with_description(name.description)
            .with_callback(callback)
            .build();
    }

    /// A value that could be added up over processes.
    #[cfg(any(feature = "_export", all(feature = "process", target_os = "linux")))]
    pub(crate) fn up_down_counter(
        &self,
        name: Name,
        attributes: Vec<KeyValue>,
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        let callback = self.register(&name, attributes, read);
        self.meter
            .i64_observable_up_down_counter(name.name)
            .with_unit(name.unit)
            .with_description(name.description)
            .with_callback(callback)
            .build();
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The counts of `http.server.active_requests`, the same for all layers.
    pub(crate) fn active_requests(&self) -> Arc<ActiveRequests> {
        let counts = self.active_requests.get_or_init(|| {
            let counts = Arc::<ActiveRequests>::default();
            let weak = Arc::downgrade(&counts);
            let metric = ActiveRequests::METRIC;
            self.meter
                .i64_observable_up_down_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_callback(move |instrument| {
                    let Some(counts) = weak.upgrade() else {
                        return;
                    };
                    for (number, series) in counts.counts() {
                        instrument.observe(number, &series.attributes());
                    }
                })
                .build();
            counts
        });
        Arc::clone(counts)
    }

    /// A callback that reports what `read` gives for as long as this `Gauges` exists.
    fn register<T, F>(
        &self,
        name: &Name,
        attributes: Vec<KeyValue>,
        read: F,
    ) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + 'static
    where
        F: Fn() -> Option<T> + Send + Sync + 'static,
    {
        let name = name.name;
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
            attributes: attributes.clone(),
            _source: source,
        });
        drop(sources);
        // The caller's closures end here, where they may do as they like.
        drop(replaced);
        move |instrument| {
            if let Some(source) = weak.upgrade()
                && let Some(value) = source.ask(name)
            {
                instrument.observe(value, &attributes);
            }
        }
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
