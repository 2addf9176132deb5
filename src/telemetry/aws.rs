//! What AWS knows about the place where the service runs.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use opentelemetry_aws::detector::{
    Ec2ResourceDetector, EcsResourceDetector, EksResourceDetector, LambdaResourceDetector,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::ResourceDetector;

use super::queue::deadline;

/// Asks all of EC2, ECS, EKS and Lambda, for at most `timeout`; nothing is found elsewhere.
///
/// The detectors ask over HTTP and block, one request after another, so each has a thread of its own.
pub(super) fn detect(timeout: Duration) -> Vec<Resource> {
    // the most general first, because what comes later replaces what it names too
    let detectors: [Box<dyn ResourceDetector + Send>; 4] = [
        Box::new(Ec2ResourceDetector),
        Box::new(EcsResourceDetector),
        Box::new(EksResourceDetector),
        Box::new(LambdaResourceDetector),
    ];
    let deadline = deadline(timeout);
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
    let left = || deadline.saturating_duration_since(std::time::Instant::now());
    pending
        .into_iter()
        .filter_map(|result| result.recv_timeout(left()).ok())
        .collect()
}
