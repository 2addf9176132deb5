use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[cfg(feature = "page")]
use crate::metrics::WorkerCounts;
use crate::{
    in_progress::{ImageGuard, RequestsInProgress},
    metrics::{Gauges, Metric},
    request::RequestTrace,
};

/// A fixed number of workers, and a queue in front of them. Clones share them.
///
/// ```
/// use tower_image_trace::{RequestTrace, pool::{TooManyRequests, Workers}};
///
/// async fn resize(workers: &Workers, trace: &RequestTrace) -> Result<(), TooManyRequests> {
///     let worker = workers.acquire(trace).await?; // stage `queue`
///     // … download and process …
///     drop(worker);
///     Ok(())
/// }
/// # tokio_test(async {
/// # let workers = Workers::new(1).with_queue_limit(0);
/// # resize(&workers, &RequestTrace::default()).await
/// # }).unwrap();
/// # fn tokio_test<T>(future: impl Future<Output = T>) -> T {
/// #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Workers {
    count: usize,
    workers: Arc<Semaphore>,
    /// A place for each request that has a worker or waits for one; `None`: the queue has no limit.
    places: Option<Arc<Semaphore>>,
    #[cfg(feature = "page")]
    queue_limit: Option<usize>,
    in_progress: RequestsInProgress,
    /// How many requests wait for a worker.
    waiting: Arc<AtomicUsize>,
}

/// A request waits until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One worker, busy until this is dropped, on whatever thread.
#[derive(Debug)]
#[must_use = "the worker is idle again when this is dropped"]
pub struct Worker {
    // In this order: there are never more images in progress than busy workers.
    _image: ImageGuard,
    _worker: OwnedSemaphorePermit,
    _place: Option<OwnedSemaphorePermit>,
}

/// All workers are busy and the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all workers are busy and the queue is full")]
#[non_exhaustive]
pub struct TooManyRequests;

impl Workers {
    /// `count` workers, for which any number of requests may wait. With 0 workers, every request waits
    /// forever.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        Self {
            count,
            workers: Arc::new(Semaphore::new(count)),
            places: None,
            #[cfg(feature = "page")]
            queue_limit: None,
            in_progress: RequestsInProgress::default(),
            waiting: Arc::default(),
        }
    }

    /// At most `limit` requests wait; further ones fail at once.
    #[must_use]
    pub fn with_queue_limit(mut self, limit: usize) -> Self {
        let places = self.count.saturating_add(limit);
        let places = Semaphore::new(places.min(Semaphore::MAX_PERMITS));
        self.places = Some(Arc::new(places));
        #[cfg(feature = "page")]
        {
            self.queue_limit = Some(limit);
        }
        self
    }

    /// Counts the images in progress here: one for each busy worker.
    #[must_use]
    pub fn with_in_progress(mut self, in_progress: &RequestsInProgress) -> Self {
        self.in_progress = in_progress.clone();
        self
    }

    /// How many workers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many workers are busy.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.count - self.workers.available_permits()
    }

    /// How many requests wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    #[cfg(feature = "page")]
    fn counts(&self) -> WorkerCounts {
        WorkerCounts {
            busy: self.busy(),
            total: self.count,
            waiting: self.waiting(),
            queue_size: self.queue_limit,
        }
    }

    /// Waits for a worker as stage `queue` of the request, and counts an image as in progress
    /// while it is held. Workers are handed out in the order of the calls.
    ///
    /// Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// The queue is full; the stage records it.
    pub async fn acquire(&self, trace: &RequestTrace) -> Result<Worker, TooManyRequests> {
        trace.queue().run(self.wait()).await
    }

    async fn wait(&self) -> Result<Worker, TooManyRequests> {
        let place = match &self.places {
            Some(places) => {
                let place = Arc::clone(places).try_acquire_owned();
                Some(place.map_err(|_| TooManyRequests)?)
            }
            None => None,
        };
        let waiting = Waiting::new(&self.waiting);
        // The semaphore is never closed, so this only waits.
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        drop(waiting);
        Ok(Worker {
            _worker: worker.map_err(|_| TooManyRequests)?,
            _image: self.in_progress.image(),
            _place: place,
        })
    }
}

impl Gauges {
    /// `workers`, and `workers_utilization`: the busy ones in percent.
    pub fn workers(&self, workers: &Workers) {
        let count = workers.count;
        self.gauge(
            Metric {
                name: "workers",
                unit: "{worker}",
                description: "The number of workers.",
            },
            move || count.try_into().ok(),
        );
        #[cfg(feature = "page")]
        {
            let workers = workers.clone();
            self.watched_workers().watch(move || workers.counts());
        }
        let workers = workers.clone();
        self.float_gauge(
            Metric {
                name: "workers_utilization",
                unit: "%",
                description: "The share of workers that are busy.",
            },
            move || {
                let busy = 100.0 * workers.busy() as f64;
                Some(busy / workers.count.max(1) as f64)
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    /// Run under miri with many schedules too.
    #[test]
    fn threads_share_workers_and_give_all_back() {
        const ROUNDS: usize = if cfg!(miri) { 2 } else { 200 };
        const WORKERS: usize = 1;
        let in_progress = RequestsInProgress::default();
        let workers = Workers::new(WORKERS)
            .with_queue_limit(1)
            .with_in_progress(&in_progress);
        let is_within = || in_progress.images() <= WORKERS as i64 && workers.busy() <= WORKERS;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (workers, is_within) = (&workers, &is_within);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let mut waiting = pin!(workers.wait());
                        if (thread + round) % 3 == 0 {
                            // Asks once and goes away.
                            let asked = waiting
                                .as_mut()
                                .poll(&mut Context::from_waker(Waker::noop()));
                            if asked.is_pending() {
                                continue;
                            }
                            assert!(is_within());
                        } else if let Ok(worker) = block_on(waiting) {
                            assert!(is_within());
                            drop(worker);
                        }
                    }
                });
            }
        });
        assert_eq!((workers.busy(), in_progress.images()), (0, 0));
        let all = [(); 1].map(|()| block_on(workers.wait()).unwrap());
        // The place in the queue is free too.
        let mut next = pin!(workers.wait());
        let asked = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(asked.is_pending());
        assert_eq!(block_on(workers.wait()).err(), Some(TooManyRequests));
        drop(all);
        assert!(block_on(next).is_ok());
    }
}
