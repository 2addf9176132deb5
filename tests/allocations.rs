//! What a request allocates, beyond what it does without the layer: the numbers of the README,
//! counted the way `cargo bench --bench overhead` counts them. More than these is a step back;
//! when there are fewer, the numbers here and there become smaller.

#[path = "../benches/overhead/floor.rs"]
mod floor;
#[allow(dead_code)]
#[path = "../benches/overhead/measure.rs"]
mod measure;
#[allow(dead_code)]
#[path = "../benches/overhead/modes.rs"]
mod modes;
#[path = "../benches/overhead/requests.rs"]
mod requests;

use modes::{STAGES, modes};

const REQUEST: &[(&str, f64)] = &[
    ("disabled", 0.0),
    // The caller's context, for what is called.
    ("filtered out", 1.0),
    ("filtered out, no traceparent", 0.0),
    ("sampled out", 6.0),
    ("sampled out, after a look at attributes", 8.0),
    ("traces", 9.0),
    ("traces and metrics", 9.0),
    ("traces and metrics, further polls", 9.0),
    // One of them is axum's: `OriginalUri` makes the extensions larger, where the handle has to go in.
    ("sampled out, axum router", 5.0),
    ("traces, axum router", 8.0),
    ("traces and metrics, axum router", 8.0),
];

#[test]
fn of_a_request() {
    let modes = modes();
    let sent = requests::request(false);
    let count = |name: &str| {
        let mode = modes.iter().find(|mode| mode.name == name);
        let mode = mode.unwrap_or_else(|| panic!("no mode {name:?}"));
        (
            measure::allocations(&*mode.start, &sent).count,
            mode.baseline,
        )
    };
    let over = |name: &str| {
        let (allocated, baseline) = count(name);
        allocated - count(baseline).0
    };
    let counted: Vec<_> = REQUEST
        .iter()
        .map(|(name, _)| (*name, over(name)))
        .collect();
    assert_eq!(counted, REQUEST);

    // The bytes of its spans are in the queue's batch, which grows now and then.
    let encoded = over("telemetry, traces");
    assert!((6.0..6.5).contains(&encoded), "{encoded}");

    let each = |more, less| (over(more) - over(less)) / f64::from(STAGES);
    let ours = each("traces, metrics, three stages", "traces and metrics");
    let floor = each("floor: three child spans", "floor: traces and metrics");
    // The first stage of a request makes the list of those that are running.
    assert!(ours <= floor + 1.0, "{ours} a stage, {floor} a bare span");
}
