//! The boundaries of histograms.

/// Seconds; the boundaries that semconv http-metrics advises for `http.server.request.duration`.
pub(crate) const DURATION_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Pixels, from an icon to a panorama.
pub(crate) const PIXEL_BUCKETS: [f64; 10] = [
    10_000.0,
    100_000.0,
    500_000.0,
    1_000_000.0,
    2_000_000.0,
    5_000_000.0,
    10_000_000.0,
    20_000_000.0,
    50_000_000.0,
    100_000_000.0,
];

/// Bytes, from an icon to a large photograph by factors of four; semconv advises no boundaries for
/// body sizes.
pub(crate) const SIZE_BUCKETS: [f64; 10] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
