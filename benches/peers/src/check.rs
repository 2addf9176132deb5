use opentelemetry::trace::SpanId;

use super::{
    modes::{BASELINE, Mode, PARENTLESS, Signals},
    pipeline::{Pipeline, seen},
    requests::request,
};

/// Sends one request through each mode and checks the spans and measurements it made. A mode that does
/// not do what its table says must not be measured.
///
/// # Panics
///
/// If a mode made other spans or measurements than it should.
pub(crate) fn check(pipeline: &Pipeline, modes: &[Mode]) {
    println!(
        "{:<70} {:>10} {:>6} {:>8} {:>9}",
        "what one request leaves behind", "attributes", "events", "parent", "durations"
    );
    for mode in modes {
        let signals = mode.table.signals;
        let name = format!("{}: {}", mode.table, mode.name);
        let before = pipeline.durations();
        let mut send = (mode.start)(&request(false));
        seen();
        send();
        let left = seen();
        let durations = pipeline.durations() - before;

        let (layer, caller) = (mode.name != BASELINE, mode.name != PARENTLESS);
        let sampled = layer && signals != Signals::SampledOut;
        let measured = layer && signals == Signals::TracesAndMetrics;
        let parent = if sampled && caller {
            SpanId::from(0x00f0_67aa_0ba9_02b7)
        } else {
            SpanId::INVALID
        };
        assert_eq!(left.started, u32::from(layer), "{name}: spans started");
        assert_eq!(left.ended, u32::from(sampled), "{name}: spans ended");
        assert_eq!(left.parent, parent, "{name}: the span's parent");
        assert_eq!(durations, u64::from(measured), "{name}: durations");
        if sampled {
            let parent = if caller { "caller" } else { "none" };
            println!(
                "{name:<70} {:>10} {:>6} {parent:>8} {durations:>9}",
                left.attributes, left.events
            );
        }
    }
}
