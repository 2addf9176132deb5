use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use super::buckets::{PIXEL_BUCKETS, SIZE_BUCKETS};
use crate::attribute::{RESULT_FORMAT, SOURCE_FORMAT};

/// The pixels and bytes that come in and go out.
#[derive(Debug)]
pub(crate) struct PictureMetrics {
    source: Measured,
    result: Measured,
}

/// The histograms of sources or of results.
#[derive(Debug)]
struct Measured {
    format: &'static str,
    pixels: Histogram<u64>,
    size: Histogram<u64>,
}

impl PictureMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let histogram = |name, unit, description, buckets: &[f64]| {
            meter
                .u64_histogram(name)
                .with_unit(unit)
                .with_description(description)
                .with_boundaries(buckets.to_vec())
                .build()
        };
        Self {
            source: Measured {
                format: SOURCE_FORMAT,
                pixels: histogram(
                    "image.source.pixels",
                    "{pixel}",
                    "Number of pixels of the sources that were decoded.",
                    &PIXEL_BUCKETS,
                ),
                size: histogram(
                    "image.source.size",
                    "By",
                    "Size of the encoded sources.",
                    &SIZE_BUCKETS,
                ),
            },
            result: Measured {
                format: RESULT_FORMAT,
                pixels: histogram(
                    "image.result.pixels",
                    "{pixel}",
                    "Number of pixels of the results.",
                    &PIXEL_BUCKETS,
                ),
                size: histogram(
                    "image.result.size",
                    "By",
                    "Size of the encoded results.",
                    &SIZE_BUCKETS,
                ),
            },
        }
    }

    pub(crate) fn source(&self, format: &'static str, pixels: u64, size: u64) {
        self.source.record(format, pixels, size);
    }

    pub(crate) fn result(&self, format: &'static str, pixels: u64, size: u64) {
        self.result.record(format, pixels, size);
    }
}

impl Measured {
    fn record(&self, format: &'static str, pixels: u64, size: u64) {
        let format = [KeyValue::new(self.format, format)];
        self.pixels.record(pixels, &format);
        self.size.record(size, &format);
    }
}
