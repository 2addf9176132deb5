//! The bounded queue between the threads that produce telemetry and the task that sends it.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::{sync::Notify, time::timeout};

use super::report::SignalReport;
use crate::telemetry::settings::Batching;

/// What a queue holds.
pub(crate) trait Item: fmt::Debug + Send + 'static {
    /// Spans, data points or log records in it.
    fn count(&self) -> u64 {
        1
    }
}

/// How many spans, data points or log records are in a batch.
pub(super) fn count<T: Item>(batch: &[T]) -> u64 {
    batch.iter().map(Item::count).sum()
}

/// Why items are lost that were neither sent nor refused before the end.
pub(super) const UNSENT: &str = "not sent before the timeout of the shutdown";

/// For how many items a batch takes memory before they are there.
const LARGEST_RESERVED: usize = 4_096;

/// Items collected into batches of a fixed size.
///
/// Producers never wait: a full queue drops what comes, and counts it. One consumer takes batches in
/// order and settles each before it takes the next, so a flush waits for a single number, "settled up
/// to".
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    /// A batch is full, or a flush wants the open one.
    ready: Notify,
    /// A flush cuts the pause before the next attempt short.
    hurry: Notify,
    settled: Condvar,
    limits: Batching,
    report: Arc<SignalReport>,
}

#[derive(Debug)]
struct State<T> {
    open: Vec<T>,
    full: VecDeque<(Instant, Vec<T>)>,
    /// Items accepted since the start, and those of them that were delivered or given up.
    accepted: u64,
    settled: u64,
    flushing: bool,
    closed: bool,
}

impl<T> State<T> {
    fn pending(&self) -> u64 {
        self.accepted.saturating_sub(self.settled)
    }

    fn close_batch(&mut self) {
        let batch = mem::take(&mut self.open);
        self.full.push_back((Instant::now(), batch));
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(limits: Batching, report: Arc<SignalReport>) -> Self {
        Self {
            state: Mutex::new(State {
                open: Vec::new(),
                full: VecDeque::new(),
                accepted: 0,
                settled: 0,
                flushing: false,
                closed: false,
            }),
            ready: Notify::new(),
            hurry: Notify::new(),
            settled: Condvar::new(),
            limits,
            report,
        }
    }

    /// The counters of what goes through the queue.
    pub(super) const fn report(&self) -> &Arc<SignalReport> {
        &self.report
    }

    /// The next batch: a full one, or the open one when the schedule or a flush says so.
    pub(super) async fn next(&self) -> Vec<T> {
        loop {
            let flushing = {
                let mut state = self.lock();
                if let Some((_, batch)) = state.full.pop_front() {
                    return batch;
                }
                mem::take(&mut state.flushing)
            };
            let due = flushing || self.is_due().await;
            let mut state = self.lock();
            if due && state.full.is_empty() && !state.open.is_empty() {
                return mem::take(&mut state.open);
            }
        }
    }

    /// Waits for a full batch, or for the end of the schedule's delay, for which it returns true.
    async fn is_due(&self) -> bool {
        let ready = self.ready.notified();
        match self.limits.schedule_delay {
            // Every item says that it is there, and is to be sent at once.
            Duration::ZERO => {
                ready.await;
                true
            }
            delay => timeout(delay, ready).await.is_err(),
        }
    }

    /// Notes that `count` items taken by [`next`](Self::next) were delivered or given up.
    pub(super) fn settle(&self, count: u64) {
        self.lock().settled += count;
        self.settled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Item> Queue<T> {
    /// Adds an item, or drops and counts it when the queue is full or closed.
    pub(super) fn push(&self, item: T) {
        let mut state = self.lock();
        if state.closed || state.pending() >= self.limits.max_queue_size as u64 {
            drop(state);
            return self.report.dropped(item.count());
        }
        if state.open.capacity() == 0 {
            // A batch may be allowed to be larger than it ever is.
            let batch = self.limits.max_export_batch_size.min(LARGEST_RESERVED);
            state.open.reserve_exact(batch);
        }
        state.open.push(item);
        state.accepted += 1;
        if state.open.len() == self.limits.max_export_batch_size {
            state.close_batch();
        } else if !self.limits.schedule_delay.is_zero() {
            return;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// The SDK's flush of a processor.
    pub(super) fn flush_within(&self, timeout: Duration) -> OTelSdkResult {
        match self.wait(self.flush(), deadline(timeout)) {
            0 => Ok(()),
            _ => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

/// What only the way to a collector asks for: it retries, a terminal does not.
#[cfg(feature = "_otlp")]
impl<T: Item> Queue<T> {
    pub(super) const fn export_timeout(&self) -> Duration {
        self.limits.export_timeout
    }

    /// Gives up the batches that were full `age` ago already, and counts what was in them.
    pub(super) fn give_up_older_than(&self, age: Duration, error: &str) {
        let mut state = self.lock();
        let mut old = Vec::new();
        while state
            .full
            .front()
            .is_some_and(|(since, _)| since.elapsed() > age)
        {
            if let Some((_, batch)) = state.full.pop_front() {
                old.extend(batch);
            }
        }
        state.settled += old.len() as u64;
        drop(state);
        self.report.lost(count(&old), error);
        self.settled.notify_all();
    }

    /// Waits before another attempt, but no longer than until the next flush.
    pub(super) async fn pause(&self, pause: Duration) {
        let _ = timeout(pause, self.hurry.notified()).await;
    }
}

/// A queue of any kind of item, as flush, shutdown and metrics see it.
pub(crate) trait AnyQueue: fmt::Debug + Send + Sync {
    /// Asks for everything accepted so far to be sent now; [`wait`](Self::wait) waits for it.
    fn flush(&self) -> u64;

    /// Waits until everything up to `target` is settled; returns the number of items that were not.
    fn wait(&self, target: u64, deadline: Instant) -> u64;

    /// Drops all further items.
    fn close(&self);

    /// Gives up everything, because it will not be sent any more, and counts what was not taken.
    fn abandon(&self);

    fn limits(&self) -> &Batching;

    /// How many items wait or are being sent.
    fn pending(&self) -> u64;
}

impl<T: Item> AnyQueue for Queue<T> {
    fn flush(&self) -> u64 {
        let target = {
            let mut state = self.lock();
            state.flushing = true;
            state.accepted
        };
        self.ready.notify_one();
        self.hurry.notify_one();
        target
    }

    fn wait(&self, target: u64, deadline: Instant) -> u64 {
        let mut state = self.lock();
        loop {
            let pending = target.saturating_sub(state.settled);
            let left = deadline.saturating_duration_since(Instant::now());
            if pending == 0 || left.is_zero() {
                return pending;
            }
            let waited = self.settled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close(&self) {
        self.lock().closed = true;
    }

    fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.settled = state.accepted;
        let full = mem::take(&mut state.full);
        let left = full.iter().map(|(_, batch)| count(batch)).sum::<u64>() + count(&state.open);
        let open = mem::take(&mut state.open);
        drop(state);
        if left > 0 {
            self.report.lost(left, UNSENT);
        }
        self.settled.notify_all();
        drop((full, open));
    }

    fn limits(&self) -> &Batching {
        &self.limits
    }

    fn pending(&self) -> u64 {
        self.lock().pending()
    }
}

/// The moment `timeout` from now; a timeout that is too long to count is taken as a year.
pub(super) fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + timeout.min(YEAR)
}
