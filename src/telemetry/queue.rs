//! The bounded queue between whoever produces telemetry and the task that sends it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::settings::Batching;

/// Items collected into batches of fixed size.
///
/// Producers never wait: a full queue refuses. One consumer takes batches in order and settles each
/// before it takes the next, so "settled up to" is one number that a flush can wait for.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// A batch is full, or a flush wants the open one.
    ready: Notify,
    /// A flush does not want to wait for the pause before the next attempt.
    hurry: Notify,
    settled: Condvar,
    limits: Batching,
}

#[derive(Debug)]
struct State<T> {
    open: Vec<T>,
    full: VecDeque<(Instant, Vec<T>)>,
    /// Items ever accepted, and those of them that were delivered or given up.
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
        let batch = std::mem::take(&mut self.open);
        self.full.push_back((Instant::now(), batch));
    }
}

impl<T> Queue<T> {
    pub(super) fn new(limits: Batching) -> Self {
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
        }
    }

    pub(super) const fn limits(&self) -> &Batching {
        &self.limits
    }

    /// Adds an item, or refuses it when the queue is full or closed.
    pub(super) fn push(&self, item: T) -> bool {
        let mut state = self.lock();
        if state.closed || state.pending() >= self.limits.max_queue_size as u64 {
            return false;
        }
        if state.open.capacity() == 0 {
            state.open.reserve_exact(self.limits.max_export_batch_size);
        }
        state.open.push(item);
        state.accepted += 1;
        if state.open.len() == self.limits.max_export_batch_size {
            state.close_batch();
            drop(state);
            self.ready.notify_one();
        }
        true
    }

    /// The next batch: a full one, or what has come together when the schedule or a flush says so.
    pub(super) async fn next(&self) -> Vec<T> {
        loop {
            let flushing = {
                let mut state = self.lock();
                if let Some((_, batch)) = state.full.pop_front() {
                    return batch;
                }
                std::mem::take(&mut state.flushing)
            };
            let due = flushing
                || timeout(self.limits.schedule_delay, self.ready.notified())
                    .await
                    .is_err();
            let mut state = self.lock();
            if due && state.full.is_empty() && !state.open.is_empty() {
                return std::mem::take(&mut state.open);
            }
        }
    }

    /// Notes that `count` items taken by [`next`](Self::next) were delivered or given up.
    pub(super) fn settle(&self, count: u64) {
        self.lock().settled += count;
        self.settled.notify_all();
    }

    /// Gives up the batches that were full `age` ago already, and returns what was in them.
    pub(super) fn settle_older_than(&self, age: Duration) -> Vec<T> {
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
        self.settled.notify_all();
        old
    }

    /// Waits before another attempt, but no longer than until somebody flushes.
    pub(super) async fn pause(&self, pause: Duration) {
        let _ = timeout(pause, self.hurry.notified()).await;
    }

    /// Asks for everything accepted so far to be sent now; [`wait`](Self::wait) waits for it.
    pub(super) fn flush(&self) -> u64 {
        let target = {
            let mut state = self.lock();
            state.flushing = true;
            state.accepted
        };
        self.ready.notify_one();
        self.hurry.notify_one();
        target
    }

    /// Waits until everything up to `target` is settled; the number of items for which it was not.
    pub(super) fn wait(&self, target: u64, deadline: Instant) -> u64 {
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

    /// Gives up everything, because nobody will take it any more, and returns what was not taken.
    pub(super) fn abandon(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        state.settled = state.accepted;
        let full = std::mem::take(&mut state.full);
        let mut left: Vec<T> = full.into_iter().flat_map(|(_, batch)| batch).collect();
        left.append(&mut state.open);
        drop(state);
        self.settled.notify_all();
        left
    }

    /// Refuses all further items.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// How many items wait or are being sent.
    pub(super) fn pending(&self) -> i64 {
        self.lock().pending().try_into().unwrap_or(i64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // nothing that holds the lock can panic half-way through a change
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment `timeout` from now; a timeout that is too long to count is taken as a year.
pub(super) fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + timeout.min(YEAR)
}
