use super::Gauges;

impl Gauges {
    /// The process metrics of semconv: `process.cpu.time`, `process.memory.usage`,
    /// `process.memory.virtual`, `process.thread.count` and `process.unix.file_descriptor.count`.
    /// Only on Linux; elsewhere this does nothing.
    pub fn process(&self) {
        #[cfg(target_os = "linux")]
        linux::register(self);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use opentelemetry::KeyValue;
    use procfs::{
        page_size,
        process::{Process, Stat},
        ticks_per_second,
    };

    use super::super::{Gauges, Metric};

    pub(super) fn register(gauges: &Gauges) {
        cpu_time(gauges, "user", |stat| stat.utime);
        cpu_time(gauges, "system", |stat| stat.stime);
        gauges.up_down_counter(
            Metric {
                name: "process.memory.usage",
                unit: "By",
                description: "The amount of physical memory in use.",
            },
            Vec::new(),
            || (stat()?.rss * page_size()).try_into().ok(),
        );
        gauges.up_down_counter(
            Metric {
                name: "process.memory.virtual",
                unit: "By",
                description: "The amount of committed virtual memory.",
            },
            Vec::new(),
            || stat()?.vsize.try_into().ok(),
        );
        gauges.up_down_counter(
            Metric {
                name: "process.thread.count",
                unit: "{thread}",
                description: "Process threads count.",
            },
            Vec::new(),
            || Some(stat()?.num_threads),
        );
        gauges.up_down_counter(
            Metric {
                name: "process.unix.file_descriptor.count",
                unit: "{file_descriptor}",
                description: "Number of UNIX file descriptors in use by the process.",
            },
            Vec::new(),
            || Process::myself().ok()?.fd_count().ok()?.try_into().ok(),
        );
    }

    fn cpu_time(gauges: &Gauges, mode: &'static str, ticks: fn(&Stat) -> u64) {
        gauges.float_counter(
            Metric {
                name: "process.cpu.time",
                unit: "s",
                description: "Total CPU seconds broken down by different CPU modes.",
            },
            vec![KeyValue::new("cpu.mode", mode)],
            move || Some(ticks(&stat()?) as f64 / ticks_per_second() as f64),
        );
    }

    fn stat() -> Option<Stat> {
        Process::myself().ok()?.stat().ok()
    }
}
