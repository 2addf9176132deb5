//! What telemetry says about itself.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tower_image_trace::{TelemetryBuilder, telemetry::TelemetryEvent};

use super::otlp::PATIENCE;

/// The events so far, as lines.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<TelemetryEvent>>>);

impl Log {
    pub fn listen(&self, builder: TelemetryBuilder) -> TelemetryBuilder {
        let log = self.0.clone();
        builder.on_event(move |event| log.lock().unwrap().push(event.clone()))
    }

    pub fn events(&self) -> Vec<TelemetryEvent> {
        self.0.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.events().iter().map(ToString::to_string).collect()
    }

    pub fn says(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    /// Waits for a line that contains `text`, and returns it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        eventually(
            || self.says(text),
            || format!("{text:?} in {:#?}", self.lines()),
        );
        let mut lines = self.lines().into_iter();
        lines.find(|line| line.contains(text)).unwrap()
    }
}

#[track_caller]
fn eventually(condition: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}
