//! The bounded queue between the threads that produce telemetry and the task that sends it.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::{sync::Notify, time::timeout};

use super::{
    deadline::{deadline, until},
    report::SignalReport,
};
use crate::telemetry::settings::Batching;

/// What a queue holds.
pub(crate) trait Item: Send + 'static {
    /// Spans, data points or log records in it.
    fn count(&self) -> u64 {
        1
    }
}

/// How many spans, data points or log records are in a batch.
fn count<T: Item>(batch: &[T]) -> u64 {
    batch.iter().map(Item::count).sum()
}

/// Why items are lost that were neither sent nor refused before the end.
const UNSENT: &str = "not sent before the timeout of the shutdown";

/// For how many items a batch takes memory before they are there.
const LARGEST_RESERVED: usize = 4_096;

/// Items collected into batches of a fixed size.
///
/// Producers never wait: a full queue drops what comes, and counts it. One consumer takes batches in
/// order and settles each before it takes the next, so a flush waits for a single number, "settled up
/// to".
///
/// Each item is counted exactly once: as dropped when it comes, and otherwise by whoever holds it last,
/// be it the consumer, which may hang, or the shutdown, which does not wait for that.
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

struct State<T> {
    open: Vec<T>,
    full: VecDeque<(Instant, Vec<T>)>,
    /// What is in the batch that was taken, until it is counted.
    taken: u64,
    /// Items accepted since the start, those of them that were counted as exported or lost, and those
    /// of which that was said too.
    accepted: u64,
    counted: u64,
    settled: u64,
    flushing: bool,
    closed: bool,
    abandoned: bool,
}

impl<T> State<T> {
    fn pending(&self) -> u64 {
        self.accepted.saturating_sub(self.counted)
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(limits: Batching, report: Arc<SignalReport>) -> Self {
        Self {
            state: Mutex::new(State {
                open: Vec::new(),
                full: VecDeque::new(),
                taken: 0,
                accepted: 0,
                counted: 0,
                settled: 0,
                flushing: false,
                closed: false,
                abandoned: false,
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

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts, because a full queue is megabytes.
impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, pending) = {
            let state = self.lock();
            (state.accepted, state.pending())
        };
        f.debug_struct("Queue")
            .field("accepted", &accepted)
            .field("pending", &pending)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<T: Item> Queue<T> {
    /// Adds an item, or drops and counts it when the queue is full or closed.
    pub(super) fn push(&self, item: T) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return self.report.count_after_shutdown(item.count());
        }
        if state.pending() >= self.limits.max_queue_size as u64 {
            drop(state);
            return self.report.count_dropped(item.count());
        }
        if state.open.capacity() == 0 {
            // A batch may be allowed to be larger than it ever is.
            let batch = self.limits.max_export_batch_size.min(LARGEST_RESERVED);
            state.open.reserve_exact(batch);
        }
        state.open.push(item);
        state.accepted += 1;
        if state.open.len() == self.limits.max_export_batch_size {
            let batch = mem::take(&mut state.open);
            state.full.push_back((Instant::now(), batch));
        } else if !self.limits.schedule_delay.is_zero() {
            return;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// The next batch: a full one, or the open one when the schedule or a flush says so.
    pub(super) async fn next(&self) -> (Vec<T>, Taken<'_, T>) {
        loop {
            let flushing = {
                let mut state = self.lock();
                if let Some((_, batch)) = state.full.pop_front() {
                    return self.take(state, batch);
                }
                mem::take(&mut state.flushing)
            };
            let due = flushing || self.is_due().await;
            let mut state = self.lock();
            if due && state.full.is_empty() && !state.open.is_empty() {
                let batch = mem::take(&mut state.open);
                return self.take(state, batch);
            }
        }
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>, batch: Vec<T>) -> (Vec<T>, Taken<'_, T>) {
        let taken = Taken {
            queue: self,
            length: batch.len() as u64,
            items: count(&batch),
        };
        state.taken = taken.items;
        (batch, taken)
    }

    /// The SDK's flush of a processor.
    pub(super) fn flush_within(&self, timeout: Duration) -> OTelSdkResult {
        match self.wait(self.flush(), deadline(timeout)) {
            0 => Ok(()),
            _ => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

/// A batch that the consumer has taken. When it is dropped, flushes no longer wait for it.
pub(super) struct Taken<'a, T: Item> {
    queue: &'a Queue<T>,
    length: u64,
    /// How many spans, data points or log records it holds.
    pub(super) items: u64,
}

impl<T: Item> Taken<'_, T> {
    /// Counts the batch, unless that has been done already; returns whether `count` was called.
    pub(super) fn count(&self, count: impl FnOnce(&SignalReport)) -> bool {
        let mut state = self.queue.lock();
        let uncounted = mem::take(&mut state.taken) > 0;
        if uncounted {
            state.counted += self.length;
            count(&self.queue.report);
        }
        uncounted
    }
}

impl<T: Item> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        // The I/O thread has ended, or the consumer has panicked.
        if self.count(|report| report.count_lost(self.items)) {
            self.queue.report.lost(self.items, UNSENT);
        }
        let mut state = self.queue.lock();
        if !state.abandoned {
            state.settled += self.length;
        }
        drop(state);
        self.queue.settled.notify_all();
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
        state.counted += old.len() as u64;
        let items = count(&old);
        self.report.count_lost(items);
        drop(state);
        self.report.lost(items, error);
        self.lock().settled += old.len() as u64;
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

    /// Waits until everything up to `target` is settled; returns how many items were neither delivered
    /// nor given up at the deadline.
    fn wait(&self, target: u64, deadline: Instant) -> u64;

    /// Drops all further items.
    fn close(&self);

    /// Gives up everything, because it will not be sent any more, and counts it.
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
            let left = until(deadline);
            if state.settled >= target || left.is_zero() {
                return target.saturating_sub(state.counted);
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
        state.abandoned = true;
        let full = mem::take(&mut state.full);
        let open = mem::take(&mut state.open);
        let queued = full.iter().map(|(_, batch)| count(batch)).sum::<u64>() + count(&open);
        let left = mem::take(&mut state.taken) + queued;
        state.counted = state.accepted;
        state.settled = state.accepted;
        self.report.count_lost(left);
        drop(state);
        self.report.note_lost(left, UNSENT);
        self.settled.notify_all();
    }

    fn limits(&self) -> &Batching {
        &self.limits
    }

    fn pending(&self) -> u64 {
        self.lock().pending()
    }
}
