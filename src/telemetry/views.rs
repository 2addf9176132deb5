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

/// Adds a view, which says nothing of instruments that are as the SDK has them anyway: a stream of their own would
/// stand beside what a view of the service's makes of them.
///
/// Of two views that make the same stream the SDK takes the first one, so the service's own come before.
pub(super) fn with_view(meters: MeterProviderBuilder, settings: &Settings) -> MeterProviderBuilder {
    let (limit, aggregation) = (settings.series_limit, settings.histogram_aggregation);
    let buckets = settings.histogram_buckets.clone();
    let default_limit = Settings::default().series_limit;
    meters.with_view(move |instrument: &Instrument| {
        let is_histogram = instrument.kind() == InstrumentKind::Histogram;
        let named = buckets.iter().find(|(name, _)| name == instrument.name());
        let aggregation = match (named, aggregation) {
            _ if !is_histogram => None,
            (Some((_, boundaries)), _) => Some(Aggregation::ExplicitBucketHistogram {
                boundaries: boundaries.clone(),
                record_min_max: true,
            }),
            (None, HistogramAggregation::Base2Exponential) => Some(EXPONENTIAL),
            (None, HistogramAggregation::ExplicitBuckets) => None,
        };
        if aggregation.is_none() && limit == default_limit {
            return None;
        }
        let mut stream = Stream::builder().with_cardinality_limit(limit);
        if let Some(aggregation) = aggregation {
            stream = stream.with_aggregation(aggregation);
        }
        // The settings were checked.
        stream.build().ok()
    })
}
