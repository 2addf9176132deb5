//! What the SDK makes of measurements.

use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, MeterProviderBuilder, Stream,
};

use super::settings::{HistogramAggregation, Settings};

/// The specification's defaults of exponential histograms.
const EXPONENTIAL: Aggregation = Aggregation::Base2ExponentialHistogram {
    max_size: 160,
    max_scale: 20,
    record_min_max: true,
};

/// Adds a view unless all of it is as the SDK has it anyway.
///
/// Of two views that make the same stream the SDK takes the first one, so the service's own come before.
pub(super) fn with_view(meters: MeterProviderBuilder, settings: &Settings) -> MeterProviderBuilder {
    let (limit, aggregation) = (settings.series_limit, settings.histogram_aggregation);
    let buckets = settings.histogram_buckets.clone();
    let default = Settings::default();
    if limit == default.series_limit
        && aggregation == default.histogram_aggregation
        && buckets.is_empty()
    {
        return meters;
    }
    meters.with_view(move |instrument: &Instrument| {
        let mut stream = Stream::builder().with_cardinality_limit(limit);
        if instrument.kind() == InstrumentKind::Histogram {
            let named = buckets.iter().find(|(name, _)| name == instrument.name());
            stream = match (named, aggregation) {
                (Some((_, boundaries)), _) => {
                    stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
                        boundaries: boundaries.clone(),
                        record_min_max: true,
                    })
                }
                (None, HistogramAggregation::Base2Exponential) => {
                    stream.with_aggregation(EXPONENTIAL)
                }
                (None, HistogramAggregation::ExplicitBuckets) => stream,
            };
        }
        // The settings were checked.
        stream.build().ok()
    })
}
