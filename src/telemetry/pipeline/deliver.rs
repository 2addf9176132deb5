//! One signal's way from its queue to the collector: batch, encode, send, retry, give up.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use super::queue::{Item, Queue};
use crate::telemetry::otlp::{Encoded, Failure, Retry, Transport};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Short, so that the return of a collector is noticed before the queue is full.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What makes the export requests of a signal.
pub(crate) trait Encode<T>: Send + Sync + 'static {
    /// The request for a batch.
    fn encode(&self, batch: Vec<T>) -> impl Future<Output = Encoded> + Send;
}

/// Sends what comes into `queue`, for ever; runs on the I/O thread.
///
/// A batch that the collector could not take for now is retried for the queue's export timeout. When
/// that is over, everything else that has waited as long is given up with it: after a long outage the
/// collector gets what is recent, not what is oldest.
pub(crate) async fn deliver<T: Item>(
    queue: Arc<Queue<T>>,
    encoder: impl Encode<T>,
    mut transport: Transport,
) {
    let window = queue.export_timeout();
    let report = queue.report();
    let mut pause = FIRST_PAUSE;
    loop {
        let (batch, taken) = queue.next().await;
        let items = taken.items;
        let request = encoder.encode(batch).await;
        let started = Instant::now();
        loop {
            match transport.send(&request).await {
                Ok(accepted) => {
                    pause = FIRST_PAUSE;
                    let rejected = accepted.rejected;
                    if taken.count(|report| report.count_exported(items, rejected)) {
                        report.exported(rejected.min(items), &accepted.message);
                    }
                    break;
                }
                Err(failure) => {
                    let left = window.saturating_sub(started.elapsed());
                    let Some(wait) = pause_before_retry(&failure, &mut pause, left) else {
                        if taken.count(|report| report.count_lost(items)) {
                            report.lost(items, &failure.message);
                        }
                        if failure.retry != Retry::Never {
                            queue.give_up_older_than(window, &failure.message);
                        }
                        break;
                    };
                    report.attempt_failed(&failure.message);
                    queue.pause(wait).await;
                }
            }
        }
    }
}

/// How long to wait before the next attempt, at most what is `left`; `None` when there is no other.
fn pause_before_retry(failure: &Failure, pause: &mut Duration, left: Duration) -> Option<Duration> {
    let wait = match failure.retry {
        Retry::Never => return None,
        Retry::After(wait) => wait,
        Retry::Backoff => {
            let wait = *pause;
            *pause = (wait * 2).min(LONGEST_PAUSE);
            // ±25 %, so that many instances do not all come back at the same moment.
            wait.mul_f64(0.75 + random() / 2.0)
        }
    };
    (!left.is_zero()).then(|| wait.min(left))
}

/// A number from 0 to 1 that need not be unpredictable.
fn random() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}
