//! One signal's way from its queue to the collector: several requests at once, split when they are too
//! large, paced when the collector cannot take them, and counted whatever happens.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{sync::Semaphore, time::Instant};

use super::{
    queue::{Queue, Taken},
    report::{SignalReport, TIMEOUT},
};
use crate::telemetry::otlp::{Accepted, Batch, Failure, Retry, Transport};

/// Sends what comes into a queue to the signal's collector.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: Arc<Queue<Batch>>,
    transport: Transport,
    /// How many items the message of an entry holds.
    count: fn(&[u8]) -> u64,
    /// From so many bytes on, batches are split before they are sent: the collector has refused one of
    /// that size as too large.
    too_large: AtomicUsize,
}

impl Delivery {
    pub(crate) const fn new(
        queue: Arc<Queue<Batch>>,
        transport: Transport,
        count: fn(&[u8]) -> u64,
    ) -> Self {
        Self {
            queue,
            transport,
            count,
            too_large: AtomicUsize::new(usize::MAX),
        }
    }

    /// Sends, for ever, with so many requests on their way at most; runs on the I/O thread.
    ///
    /// A batch that the collector could not take for now is retried for the queue's export timeout. When
    /// that is over, everything else that has waited as long is given up with it: after a long outage
    /// the collector gets what is recent, not what is oldest.
    pub(crate) async fn run(self, in_flight: usize) {
        let delivery = Arc::new(self);
        let permits = Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS)));
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let taken = delivery.queue.next().await;
            let delivery = Arc::clone(&delivery);
            // A panic ends this batch and no other.
            tokio::spawn(async move {
                delivery.send(taken).await;
                drop(permit);
            });
        }
    }

    /// Sends a batch, in parts when it is too large.
    async fn send(&self, mut taken: Taken<Batch>) {
        let mut deadline = Instant::now() + self.queue.export_timeout();
        let mut parts = vec![mem::take(&mut taken.content)];
        let mut lost = Lost::default();
        while let Some(part) = parts.pop() {
            let is_too_large = part.size() >= self.too_large.load(Relaxed);
            if let Some(smaller) = is_too_large.then(|| part.split(self.count)).flatten() {
                parts.extend(smaller.into_iter().rev());
                continue;
            }
            match self.send_part(&part, &mut deadline).await {
                Ok(accepted) => self.accepted(&taken, &part, &accepted),
                Err(Unsent::TooLarge(failure)) => match part.split(self.count) {
                    Some(smaller) => {
                        self.too_large.fetch_min(part.size(), Relaxed);
                        parts.extend(smaller.into_iter().rev());
                    }
                    None => lost.add(&taken, &part, failure),
                },
                Err(Unsent::Refused(failure)) => lost.add(&taken, &part, failure),
                Err(Unsent::TimedOut(failure)) => {
                    let age = self.queue.export_timeout();
                    self.queue.give_up_older_than(age, &failure.message);
                    lost.add(&taken, &part, failure);
                }
            }
        }
        self.report().lost(lost.items, &lost.message);
    }

    fn accepted(&self, taken: &Taken<Batch>, part: &Batch, accepted: &Accepted) {
        // A collector that takes larger requests again is noticed in time, at the price of one refusal
        // now and then.
        let grow = |size: usize| Some(size.saturating_add(size / 64));
        let _ = self.too_large.fetch_update(Relaxed, Relaxed, grow);
        let (items, rejected) = (part.items(), accepted.rejected);
        if taken.count(items, |report| report.count_exported(items, rejected)) {
            self.report()
                .exported(rejected.min(items), &accepted.message);
        }
    }

    /// Makes attempts until the collector has taken or refused the part, or its time is over.
    async fn send_part(&self, part: &Batch, deadline: &mut Instant) -> Result<Accepted, Unsent> {
        let mut last = None;
        loop {
            let Some(turn) = self.queue.pace().turn(deadline).await else {
                // It may never have been its turn.
                return Err(Unsent::TimedOut(last.unwrap_or_else(|| Failure {
                    message: self.report().last_error(),
                    error_type: TIMEOUT.into(),
                    retry: Retry::Never,
                })));
            };
            // What waits for its turn takes the memory of the batch alone.
            let request = self.transport.encode(part);
            match self.transport.send(&request).await {
                Ok(accepted) => {
                    turn.succeeded();
                    return Ok(accepted);
                }
                Err(failure) => {
                    let asked = match failure.retry {
                        Retry::Never => {
                            turn.succeeded();
                            return Err(Unsent::Refused(failure));
                        }
                        Retry::Smaller => {
                            turn.succeeded();
                            return Err(Unsent::TooLarge(failure));
                        }
                        Retry::Backoff => turn.failed(None),
                        Retry::After(pause) => turn.failed(Some(pause)),
                    };
                    if asked.is_some() {
                        // The collector has asked to wait: that is no reason to give up. The pause itself
                        // is added while it is waited out.
                        let after = Instant::now() + self.queue.export_timeout();
                        *deadline = (*deadline).max(after);
                    }
                    self.report().attempt_failed(&failure.message);
                    last = Some(failure);
                }
            }
        }
    }

    fn report(&self) -> &SignalReport {
        self.queue.report()
    }
}

/// Why a part of a batch did not arrive.
enum Unsent {
    TooLarge(Failure),
    Refused(Failure),
    TimedOut(Failure),
}

/// What was lost of a batch and is still to be said.
#[derive(Default)]
struct Lost {
    items: u64,
    message: String,
}

impl Lost {
    /// Counts a part as lost.
    fn add(&mut self, taken: &Taken<Batch>, part: &Batch, failure: Failure) {
        let items = part.items();
        if taken.count(items, |report| report.count_lost(items, failure.error_type)) {
            self.items += items;
            self.message = failure.message;
        }
    }
}
