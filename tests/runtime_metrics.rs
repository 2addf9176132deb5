//! The metrics of the runtime are those of the runtime that was given.

use std::{future::pending, time::Duration};

use tokio::runtime::{Builder, Handle};
use tower_image_trace::metrics::Gauges;

use crate::support::Recorder;

#[tokio::test]
async fn tasks_are_alive_until_they_end_and_queued_until_they_begin() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    gauges.runtime(&Handle::current());
    let sum = |name: &str| recorder.only_series(name).sum;
    assert_eq!(sum("tokio.workers"), 1.0);
    assert_eq!(sum("tokio.alive_tasks"), 0.0);
    for _ in 0..3 {
        tokio::spawn(pending::<()>());
    }
    tokio::task::yield_now().await;
    // From elsewhere a task gets in by the queue that all workers share.
    let handle = Handle::current();
    let elsewhere = std::thread::spawn(move || drop(handle.spawn(async {})));
    elsewhere.join().unwrap();
    assert_eq!(sum("tokio.alive_tasks"), 4.0);
    assert_eq!(sum("tokio.global_queue_depth"), 1.0);
    while sum("tokio.global_queue_depth") > 0.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sum("tokio.alive_tasks"), 3.0);
}

#[cfg(target_has_atomic = "64")]
#[test]
fn each_worker_has_its_own_busy_time_in_seconds() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_time().build().unwrap();
    gauges.runtime(runtime.handle());
    let metrics = runtime.metrics();
    runtime.block_on(async {
        let sleep = || tokio::spawn(tokio::time::sleep(Duration::from_millis(5)));
        for task in [sleep(), sleep(), sleep()] {
            task.await.unwrap();
        }
    });
    drop(runtime);
    let name = "tokio.worker.busy_duration";
    assert_eq!(recorder.series(name).len(), 2);
    let busy = [0, 1].map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64());
    assert!(busy.iter().sum::<f64>() > 0.0);
    for (worker, busy) in busy.into_iter().enumerate() {
        let index = worker.to_string();
        let series = recorder.only_series_of(name, "tokio.worker.index", &index);
        assert_eq!(series.sum, busy, "{worker}");
    }
}
