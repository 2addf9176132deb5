//! From what the SDK hands over to what the collector gets: queues, the thread that empties them, and
//! the reports about it.
//!
//! `spans`, `metrics` and `logs` fill the queues, `deliver` sends what is in them to a collector at the
//! `pace` that it allows, and `console` prints it.

#[cfg(feature = "_otlp")]
mod at_start;
#[cfg(feature = "console")]
mod console;
mod deadline;
#[cfg(feature = "_otlp")]
mod decided;
#[cfg(feature = "_otlp")]
mod deliver;
#[cfg(any(feature = "_otlp", feature = "page"))]
mod ended;
#[cfg(feature = "page")]
mod gathered;
#[cfg(feature = "_otlp")]
mod head;
mod io_thread;
#[cfg(feature = "_otlp")]
mod keeper;
#[cfg(feature = "logs")]
mod logs;
#[cfg(feature = "_otlp")]
mod metrics;
#[cfg(feature = "_otlp")]
mod pace;
#[cfg(feature = "console")]
mod points;
mod push_reader;
mod queue;
mod report;
mod self_metrics;
mod shutdown;
mod spans;
#[cfg(any(feature = "_otlp", feature = "page"))]
mod waiting;

#[cfg(all(feature = "console", feature = "logs"))]
pub(super) use self::console::print_logs;
#[cfg(feature = "console")]
pub(super) use self::console::{MetricTerminal, print_spans};
#[cfg(any(feature = "_otlp", feature = "page"))]
pub(crate) use self::ended::Ended;
#[cfg(feature = "page")]
pub(crate) use self::ended::{Outcome, Trace};
#[cfg(feature = "page")]
pub(crate) use self::gathered::{Gathered, Taker};
#[cfg(all(feature = "logs", feature = "page"))]
pub(super) use self::logs::GatheredLogs;
#[cfg(all(
    feature = "logs",
    any(feature = "_otlp", feature = "console", feature = "page")
))]
pub(super) use self::logs::LogLimits;
#[cfg(all(feature = "logs", any(feature = "_otlp", feature = "console")))]
pub(super) use self::logs::QueueLogProcessor;
pub(crate) use self::shutdown::Pipeline;
#[cfg(any(feature = "_otlp", feature = "console", feature = "page"))]
pub(super) use self::spans::EndedSpans;
#[cfg(feature = "_otlp")]
pub(super) use self::{
    at_start::AtStart, deliver::Delivery, head::Head, io_thread::is_exporting, keeper::Keeper,
    metrics::QueueMetricExporter, spans::says_cancelled,
};
pub(super) use self::{
    io_thread::IoThread,
    push_reader::PushReader,
    queue::{AnyQueue, Gather, Queue},
    report::Reports,
    self_metrics::register,
    spans::Sampling,
};
