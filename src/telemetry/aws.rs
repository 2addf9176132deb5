//! What AWS knows about the place where the service runs.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use opentelemetry_aws::detector::{
    Ec2ResourceDetector, EcsResourceDetector, EksResourceDetector, LambdaResourceDetector,
};
use opentelemetry_sdk::{Resource, resource::ResourceDetector};

/// How long all detectors together may hold up the start of the service.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Asks EC2, ECS, EKS and Lambda, for at most a second; outside of AWS nothing is found.
///
/// The detectors ask over HTTP and block, one request after another, so each has its own thread.
pub(super) fn detect() -> Vec<Resource> {
    // The most general comes first, because a later detector replaces attributes of the same name.
    let detectors: [Box<dyn ResourceDetector + Send>; 4] = [
        Box::new(Ec2ResourceDetector),
        Box::new(EcsResourceDetector),
        Box::new(EksResourceDetector),
        Box::new(LambdaResourceDetector),
    ];
    let deadline = Instant::now() + TIMEOUT;
    let pending: Vec<_> = detectors
        .into_iter()
        .filter_map(|detector| {
            let (found, result) = mpsc::channel();
            let thread = thread::Builder::new().name("image-trace-aws".to_owned());
            thread
                .spawn(move || drop(found.send(detector.detect())))
                .ok()?;
            Some(result)
        })
        .collect();
    let left = || deadline.saturating_duration_since(Instant::now());
    pending
        .into_iter()
        .filter_map(|result| result.recv_timeout(left()).ok())
        .collect()
}
