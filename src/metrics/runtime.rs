use tokio::runtime::Handle;

use super::{Gauges, Metric};

impl Gauges {
    /// `tokio.workers`, `tokio.alive_tasks`, `tokio.global_queue_depth` and, where the platform
    /// has 64-bit atomics, `tokio.worker.busy_duration` of the runtime.
    ///
    /// [`Telemetry`](crate::Telemetry) registers the runtime that it is built on by itself.
    pub fn runtime(&self, runtime: &Handle) {
        let metrics = runtime.metrics();
        let workers = metrics.num_workers();
        self.gauge(
            Metric {
                name: "tokio.workers",
                unit: "{worker}",
                description: "The number of worker threads of the runtime.",
            },
            move || workers.try_into().ok(),
        );
        let tasks = metrics.clone();
        self.gauge(
            Metric {
                name: "tokio.alive_tasks",
                unit: "{task}",
                description: "The number of tasks that have not ended.",
            },
            move || tasks.num_alive_tasks().try_into().ok(),
        );
        let queue = metrics.clone();
        self.gauge(
            Metric {
                name: "tokio.global_queue_depth",
                unit: "{task}",
                description: "The number of tasks in the runtime's global queue.",
            },
            move || queue.global_queue_depth().try_into().ok(),
        );
        #[cfg(target_has_atomic = "64")]
        for worker in 0..workers {
            let metrics = metrics.clone();
            self.float_counter(
                Metric {
                    name: "tokio.worker.busy_duration",
                    unit: "s",
                    description: "How long a worker thread was busy.",
                },
                vec![opentelemetry::KeyValue::new(
                    "tokio.worker.index",
                    worker as i64,
                )],
                move || Some(metrics.worker_total_busy_duration(worker).as_secs_f64()),
            );
        }
    }
}
