//! Workers are counted right, whoever leaves.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
};

use futures_util::FutureExt;
use tower_image_trace::{
    RequestTrace, RequestsInProgress,
    metrics::Gauges,
    pool::{TooManyRequests, Workers},
};

use crate::support::Recorder;

#[tokio::test]
async fn a_worker_is_an_image_in_progress() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let counts = RequestsInProgress::default();
    let workers = Workers::new(4).with_in_progress(&counts);
    gauges.workers(&workers);
    let trace = RequestTrace::default();
    assert_eq!(recorder.only_series("workers").sum, 4.0);
    assert_eq!(recorder.only_series("workers_utilization").sum, 0.0);

    let first = workers.acquire(&trace).await.unwrap();
    let _second = workers.acquire(&trace).await.unwrap();
    let _third = workers.acquire(&trace).await.unwrap();
    assert_eq!((workers.busy(), counts.images()), (3, 3));
    assert_eq!(recorder.only_series("workers_utilization").sum, 75.0);
    std::thread::spawn(move || drop(first)).join().unwrap();
    assert_eq!((workers.busy(), counts.images()), (2, 2));
    assert_eq!(recorder.only_series("workers_utilization").sum, 50.0);
}

#[tokio::test]
async fn who_leaves_the_queue_frees_its_place() {
    let counts = RequestsInProgress::default();
    let workers = Workers::new(1)
        .with_queue_limit(1)
        .with_in_progress(&counts);
    let trace = RequestTrace::default();
    let worker = workers.acquire(&trace).await.unwrap();
    let mut waiting = Box::pin(workers.acquire(&trace));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there is no second worker"),
        () = std::future::ready(()) => {}
    }
    let refused = workers.acquire(&trace).now_or_never();
    let _full: TooManyRequests = refused.expect("the queue is full").unwrap_err();
    drop(waiting);
    assert_eq!((workers.busy(), counts.images()), (1, 1));

    let waiting = tokio::spawn({
        let workers = workers.clone();
        async move { workers.acquire(&RequestTrace::default()).await }
    });
    drop(worker);
    let worker = waiting.await.unwrap().unwrap();
    assert_eq!((workers.busy(), counts.images()), (1, 1));
    drop(worker);
    assert_eq!((workers.busy(), counts.images()), (0, 0));
}

#[tokio::test]
async fn a_pool_of_any_size() {
    let all = Workers::new(usize::MAX).with_queue_limit(usize::MAX);
    let worker = all.acquire(&RequestTrace::default()).await.unwrap();
    assert_eq!(all.busy(), 1);
    drop(worker);
    let none = Workers::new(0).with_queue_limit(0);
    let trace = RequestTrace::default();
    let refused = none.acquire(&trace).now_or_never();
    refused.expect("there is nothing to wait for").unwrap_err();

    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    gauges.workers(&none);
    assert_eq!(recorder.only_series("workers_utilization").sum, 0.0);
}

/// Looks at the counts in the very moment in which a worker is free again.
struct Look {
    counts: RequestsInProgress,
    seen: Mutex<Option<i64>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        *self.seen.lock().unwrap() = Some(self.counts.images());
    }
}

#[tokio::test]
async fn there_are_never_more_images_than_workers() {
    let counts = RequestsInProgress::default();
    let workers = Workers::new(1).with_in_progress(&counts);
    let trace = RequestTrace::default();
    let worker = workers.acquire(&trace).await.unwrap();
    let look = Arc::new(Look {
        counts,
        seen: Mutex::new(None),
    });
    let waker = Waker::from(Arc::clone(&look));
    let mut next = pin!(workers.acquire(&trace));
    assert!(
        next.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(worker);
    assert_eq!(
        *look.seen.lock().unwrap(),
        Some(0),
        "the next one may begin"
    );
}
