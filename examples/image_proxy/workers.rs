//! A fixed number of workers and a bounded queue in front of them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out workers in the order they were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    workers: Arc<Semaphore>,
    /// A place for each request that has a worker or waits for one.
    places: Arc<Semaphore>,
}

/// One worker, taken until dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    _worker: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, thiserror::Error)]
#[error("all workers are busy and the queue is full: try again in a second")]
pub(crate) struct QueueFull;

impl Workers {
    pub(crate) fn new(workers: usize, queue: usize) -> Self {
        Self {
            workers: Arc::new(Semaphore::new(workers)),
            places: Arc::new(Semaphore::new(workers + queue)),
        }
    }

    /// Waits for a worker, or fails at once when the queue is full. Dropping the future gives the place back.
    pub(crate) async fn acquire(&self) -> Result<Worker, QueueFull> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| QueueFull)?;
        // The semaphore is never closed, so this only ever waits.
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        Ok(Worker {
            _worker: worker.map_err(|_| QueueFull)?,
            _place: place,
        })
    }
}
