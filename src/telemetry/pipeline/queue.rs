//! The bounded queue between the threads that produce telemetry and the task that sends it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::{sync::Notify, time::timeout};

#[cfg(feature = "_otlp")]
use super::{deadline::bounded, pace::Pace};
use super::{
    deadline::{deadline, until},
    report::{PANIC, SignalReport, TIMEOUT},
};
use crate::telemetry::settings::Batching;

/// What a queue gathers into one batch.
pub(crate) trait Gather: Default + Send + Sync + 'static {
    /// Spans, data points or log records.
    fn items(&self) -> u64;

    /// The memory that they take, in bytes.
    fn size(&self) -> usize;

    /// No further item comes into this batch. Returns the next one, which is empty.
    fn close(&mut self) -> Self {
        Self::default()
    }
}

/// Items that are printed as they are. What they take is not counted.
impl<T: Send + Sync + 'static> Gather for Vec<T> {
    fn items(&self) -> u64 {
        self.len() as u64
    }

    fn size(&self) -> usize {
        0
    }
}

/// A batch has so many bytes at most, unless a single item has more: below the 4 MiB that receivers of
/// gRPC take by default, with room for the headers around the items.
pub(super) const LARGEST_BATCH: usize = (4 << 20) - (64 << 10);

/// Why items are lost that were neither sent nor refused before the end.
const UNSENT: &str = "not sent before the timeout of the shutdown";
/// Why the items of a batch are lost whose export has panicked.
pub(super) const PANICKED: &str = "the export panicked";

/// Items gathered into numbered batches, bounded in number and in bytes.
///
/// Producers never wait: a full queue drops what comes, and counts it. One consumer takes the batches in
/// order and settles each of them, in any order; a flush waits for the batches that were there when it
/// began.
///
/// Each item is counted exactly once: as dropped when it comes, and otherwise by whoever holds it last,
/// be it the consumer, which may hang, or the shutdown, which does not wait for that.
pub(crate) struct Queue<B> {
    state: Mutex<State<B>>,
    /// A batch is full, or a flush wants the open one.
    ready: Notify,
    settled: Condvar,
    limits: Batching,
    max_bytes: usize,
    report: Arc<SignalReport>,
    #[cfg(feature = "_otlp")]
    pace: Pace,
}

struct State<B> {
    open: B,
    /// The number of the open batch.
    number: u64,
    full: VecDeque<Full<B>>,
    /// The batches that are full or being sent, by number.
    unsettled: BTreeMap<u64, Unsettled>,
    /// Items that wait or are being sent, and are not counted yet.
    pending: u64,
    /// Bytes that wait or are being sent.
    bytes: usize,
    closed: bool,
}

struct Full<B> {
    content: B,
    number: u64,
    /// On the runtime's clock.
    #[cfg(feature = "_otlp")]
    since: tokio::time::Instant,
}

struct Unsettled {
    /// Items that were not counted as exported or lost.
    uncounted: u64,
    bytes: usize,
    is_taken: bool,
}

impl<B: Gather> State<B> {
    fn close_batch(&mut self) {
        if self.open.items() == 0 {
            return;
        }
        let next = self.open.close();
        let content = mem::replace(&mut self.open, next);
        let unsettled = Unsettled {
            uncounted: content.items(),
            bytes: content.size(),
            is_taken: false,
        };
        self.unsettled.insert(self.number, unsettled);
        self.full.push_back(Full {
            content,
            number: self.number,
            #[cfg(feature = "_otlp")]
            since: tokio::time::Instant::now(),
        });
        self.number += 1;
    }

    fn settle(&mut self, number: u64) {
        if let Some(batch) = self.unsettled.remove(&number) {
            self.pending -= batch.uncounted;
            self.bytes -= batch.bytes;
        }
    }

    /// The items of the batches before `target` that were not counted, and whether all of these batches
    /// are settled.
    fn before(&self, target: u64) -> (u64, bool) {
        let mut batches = self.unsettled.range(..target).peekable();
        let are_settled = batches.peek().is_none();
        (batches.map(|(_, batch)| batch.uncounted).sum(), are_settled)
    }
}

impl<B: Gather> Queue<B> {
    /// `max_bytes`: what waits or is being sent takes so many bytes at most, unless a single item
    /// takes more.
    pub(crate) fn new(limits: Batching, max_bytes: usize, report: Arc<SignalReport>) -> Self {
        Self {
            state: Mutex::new(State {
                open: B::default(),
                number: 0,
                full: VecDeque::new(),
                unsettled: BTreeMap::new(),
                pending: 0,
                bytes: 0,
                closed: false,
            }),
            ready: Notify::new(),
            settled: Condvar::new(),
            limits,
            max_bytes,
            report,
            #[cfg(feature = "_otlp")]
            pace: Pace::default(),
        }
    }

    /// Adds `items` that take `bytes` with `add`, or drops and counts them when the queue is full or
    /// closed.
    pub(crate) fn push(&self, items: u64, bytes: usize, add: impl FnOnce(&mut B)) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return self.report.count_after_shutdown(items);
        }
        let is_full = state.pending + items > self.limits.max_queue_size as u64
            || state.bytes.saturating_add(bytes) > self.max_bytes;
        if is_full && state.pending > 0 {
            drop(state);
            return self.report.count_dropped(items);
        }
        let mut is_ready = self.limits.schedule_delay.is_zero();
        if state.open.size() + bytes > LARGEST_BATCH {
            state.close_batch();
            is_ready = true;
        }
        add(&mut state.open);
        state.pending += items;
        state.bytes += bytes;
        if state.open.items() >= self.limits.max_export_batch_size as u64 {
            state.close_batch();
            is_ready = true;
        }
        drop(state);
        if is_ready {
            self.ready.notify_one();
        }
    }

    /// The next batch: a full one, or the open one when the schedule or a flush says so.
    pub(super) async fn next(self: &Arc<Self>) -> Taken<B> {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            if self.is_due().await {
                self.lock().close_batch();
            }
        }
    }

    fn take(self: &Arc<Self>) -> Option<Taken<B>> {
        let mut state = self.lock();
        let Full {
            content, number, ..
        } = state.full.pop_front()?;
        if let Some(batch) = state.unsettled.get_mut(&number) {
            batch.is_taken = true;
        }
        self.report.count_taken(content.items());
        drop(state);
        Some(Taken {
            queue: Arc::clone(self),
            content,
            number,
        })
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

    /// The SDK's flush of a processor.
    pub(super) fn flush_within(&self, timeout: Duration) -> OTelSdkResult {
        match self.wait(self.flush(), deadline(timeout)) {
            0 => Ok(()),
            _ => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

impl<B> Queue<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts, because a full queue is megabytes.
impl<B> fmt::Debug for Queue<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pending, bytes) = {
            let state = self.lock();
            (state.pending, state.bytes)
        };
        f.debug_struct("Queue")
            .field("pending", &pending)
            .field("bytes", &bytes)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A batch that the consumer has taken. When it is dropped, what was not counted is lost, and flushes no
/// longer wait for it.
pub(super) struct Taken<B: Gather> {
    queue: Arc<Queue<B>>,
    pub(super) content: B,
    number: u64,
}

impl<B: Gather> Taken<B> {
    /// Counts `items` of the batch, unless the shutdown has done that already; returns whether `count`
    /// was called.
    pub(super) fn count(&self, items: u64, count: impl FnOnce(&SignalReport)) -> bool {
        let mut state = self.queue.lock();
        let Some(batch) = state.unsettled.get_mut(&self.number) else {
            return false;
        };
        batch.uncounted -= items;
        state.pending -= items;
        count(&self.queue.report);
        true
    }

    pub(super) fn report(&self) -> &SignalReport {
        &self.queue.report
    }

    fn uncounted(&self) -> u64 {
        let state = self.queue.lock();
        let batch = state.unsettled.get(&self.number);
        batch.map_or(0, |batch| batch.uncounted)
    }
}

impl<B: Gather> Drop for Taken<B> {
    fn drop(&mut self) {
        let left = self.uncounted();
        if left > 0 {
            // The export has panicked, or the I/O thread has ended.
            let (kind, reason) = match thread::panicking() {
                true => (PANIC, PANICKED),
                false => (TIMEOUT, UNSENT),
            };
            if self.count(left, |report| report.count_lost(left, kind.into())) {
                self.report().lost(left, reason);
            }
        }
        self.queue.lock().settle(self.number);
        self.queue.settled.notify_all();
    }
}

/// What only the way to a collector asks for: it retries, a terminal does not.
#[cfg(feature = "_otlp")]
impl<B: Gather> Queue<B> {
    pub(super) fn report(&self) -> &SignalReport {
        &self.report
    }

    pub(super) const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Closes the open batch, so that it is sent now.
    pub(super) fn cut(&self) {
        self.lock().close_batch();
        self.ready.notify_one();
    }

    pub(super) fn export_timeout(&self) -> Duration {
        bounded(self.limits.export_timeout)
    }

    /// Gives up the batches that were full `age` ago already, and counts what was in them.
    pub(super) fn give_up_older_than(&self, age: Duration, error: &str) {
        let mut state = self.lock();
        let is_old = |batch: &Full<B>| batch.since.elapsed() > age;
        let old = state.full.iter().take_while(|batch| is_old(batch)).count();
        let old: Vec<_> = state.full.drain(..old).collect();
        let mut items = 0;
        for batch in &old {
            if let Some(batch) = state.unsettled.get_mut(&batch.number) {
                items += mem::take(&mut batch.uncounted);
            }
        }
        state.pending -= items;
        self.report.count_given_up(items);
        drop(state);
        self.report.lost(items, error);
        let mut state = self.lock();
        old.iter().for_each(|batch| state.settle(batch.number));
        drop(state);
        self.settled.notify_all();
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

impl<B: Gather> AnyQueue for Queue<B> {
    fn flush(&self) -> u64 {
        let mut state = self.lock();
        state.close_batch();
        let target = state.number;
        drop(state);
        self.ready.notify_one();
        #[cfg(feature = "_otlp")]
        self.pace.hurry();
        target
    }

    fn wait(&self, target: u64, deadline: Instant) -> u64 {
        let mut state = self.lock();
        loop {
            let (uncounted, are_settled) = state.before(target);
            let left = until(deadline);
            if are_settled || left.is_zero() {
                return uncounted;
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
        state.close_batch();
        let full = mem::take(&mut state.full);
        let [mut taken, mut queued] = [0; 2];
        for batch in mem::take(&mut state.unsettled).into_values() {
            match batch.is_taken {
                true => taken += batch.uncounted,
                false => queued += batch.uncounted,
            }
        }
        (state.pending, state.bytes) = (0, 0);
        self.report.count_lost(taken, TIMEOUT.into());
        self.report.count_given_up(queued);
        drop(state);
        drop(full);
        self.report.note_lost(taken + queued, UNSENT);
        self.settled.notify_all();
    }

    fn limits(&self) -> &Batching {
        &self.limits
    }

    fn pending(&self) -> u64 {
        self.lock().pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{event::Sink, signal::Signal};

    fn queue() -> Arc<Queue<Vec<u32>>> {
        let report = Arc::new(SignalReport::new(Signal::Traces, Sink::default()));
        Arc::new(Queue::new(Batching::SPANS, usize::MAX, report))
    }

    fn push(queue: &Queue<Vec<u32>>, item: u32) {
        queue.push(1, 0, |batch| batch.push(item));
    }

    #[cfg(feature = "_otlp")]
    #[tokio::test(start_paused = true)]
    async fn a_flush_hurries_the_pause_before_a_retry() {
        let queue = queue();
        let mut later = tokio::time::Instant::now() + Duration::from_secs(3600);
        queue.pace().turn(&mut later).await.unwrap().failed(None);
        let started = tokio::time::Instant::now();
        queue.flush();
        assert!(queue.pace().turn(&mut later).await.is_some());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[cfg(feature = "_otlp")]
    #[tokio::test(start_paused = true)]
    async fn after_a_long_outage_the_recent_goes_first() {
        let queue = queue();
        for item in 0..4 {
            push(&queue, item);
            queue.cut();
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        // The batches were full 40, 30, 20 and 10 s ago.
        queue.give_up_older_than(Duration::from_secs(25), "the collector was away");
        assert_eq!(queue.next().await.content, [2]);
        assert_eq!(
            queue.report.stats().failed,
            3,
            "two given up, and one not sent"
        );
        assert_eq!(queue.pending(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_cut_by_number_by_size_and_by_time() {
        let queue = queue();
        (0..513).for_each(|item| push(&queue, item));
        assert_eq!(queue.next().await.content.len(), 512);
        let started = tokio::time::Instant::now();
        assert_eq!(queue.next().await.content, [512]);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn each_item_is_counted_once_whoever_counts_it() {
        let queue = queue();
        (0..4).for_each(|item| push(&queue, item));
        let target = queue.flush();
        let taken = queue.next().await;
        push(&queue, 4);
        assert!(taken.count(1, |report| report.count_exported(1, 0)));
        assert_eq!(queue.wait(target, Instant::now()), 3);
        queue.abandon();
        assert!(!taken.count(3, |_| unreachable!("counted by the shutdown")));
        drop(taken);
        push(&queue, 5);
        let stats = queue.report.stats();
        assert_eq!(
            (stats.exported, stats.failed, stats.after_shutdown),
            (1, 4, 1)
        );
        assert_eq!(
            (queue.pending(), queue.wait(u64::MAX, Instant::now())),
            (0, 0)
        );
    }

    /// Runs under miri too, which tries many orders.
    #[test]
    fn threads_that_push_and_flush_wait_for_what_was_there() {
        const EACH: u32 = 12;
        let queue = queue();
        let produce = || {
            for item in 0..EACH {
                push(&queue, item);
                if item % 5 == 0 || item == EACH - 1 {
                    let target = queue.flush();
                    let patience = deadline(Duration::from_secs(60));
                    assert_eq!(queue.wait(target, patience), 0);
                }
            }
        };
        let consume = || async {
            let mut left = 2 * u64::from(EACH);
            while left > 0 {
                let taken = queue.next().await;
                let items = taken.content.items();
                assert!(taken.count(items, |report| report.count_exported(items, 0)));
                left -= items;
            }
        };
        thread::scope(|scope| {
            scope.spawn(produce);
            scope.spawn(produce);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            let bounded = async { timeout(Duration::from_secs(60), consume()).await };
            runtime.unwrap().block_on(bounded).unwrap();
        });
        let stats = queue.report.stats();
        assert_eq!(stats.exported, 2 * u64::from(EACH));
        assert_eq!((queue.pending(), queue.lock().unsettled.len()), (0, 0));
    }
}
