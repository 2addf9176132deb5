use std::sync::Arc;

use super::{Gauges, Metric};

/// What libvips says about its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipsMemory {
    /// Bytes allocated at the moment: `vips_tracked_get_mem`.
    pub memory: usize,
    /// The most bytes that were ever allocated: `vips_tracked_get_mem_highwater`.
    pub max_memory: usize,
    /// Active allocations: `vips_tracked_get_allocs`.
    pub allocs: i32,
}

impl Gauges {
    /// `vips_memory_bytes`, `vips_max_memory_bytes` and `vips_allocs`, asked from libvips: zeros
    /// until it is initialized.
    #[cfg(feature = "libvips")]
    pub fn vips(&self) {
        self.vips_with(|| VipsMemory {
            memory: rs_vips::Vips::tracked_get_mem(),
            max_memory: rs_vips::Vips::tracked_get_mem_highwater(),
            allocs: rs_vips::Vips::tracked_get_allocs(),
        });
    }

    /// The metrics of libvips, for services that bind it in another way than feature `libvips`.
    pub fn vips_with(&self, read: impl Fn() -> VipsMemory + Send + Sync + 'static) {
        let read = Arc::new(read);
        let memory = Arc::clone(&read);
        self.gauge(
            Metric {
                name: "vips_memory_bytes",
                unit: "By",
                description: "libvips memory usage.",
            },
            move || memory().memory.try_into().ok(),
        );
        let max_memory = Arc::clone(&read);
        self.gauge(
            Metric {
                name: "vips_max_memory_bytes",
                unit: "By",
                description: "libvips maximum memory usage.",
            },
            move || max_memory().max_memory.try_into().ok(),
        );
        self.gauge(
            Metric {
                name: "vips_allocs",
                unit: "{allocation}",
                description: "The number of active vips allocations.",
            },
            move || Some(read().allocs.into()),
        );
    }
}
