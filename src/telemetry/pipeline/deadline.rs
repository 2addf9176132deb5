//! Waiting for no longer than was allowed.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// The moment `timeout` from now.
pub(super) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + bounded(timeout)
}

/// A timeout that is too long to count is taken as a year.
pub(super) fn bounded(timeout: Duration) -> Duration {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    timeout.min(YEAR)
}

/// How long it is until `deadline`.
pub(super) fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Work on a thread of its own, which tells whether it has succeeded.
pub(super) struct Running(mpsc::Receiver<bool>);

/// What is known of such work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Succeeded,
    /// It has said so, has panicked, or has found no thread.
    Failed,
    Pending,
}

impl Running {
    pub(super) fn start(name: &str, work: impl FnOnce() -> bool + Send + 'static) -> Self {
        let (tell, told) = mpsc::channel();
        let work = move || {
            // Nobody may be waiting any more.
            let _ = tell.send(work());
        };
        // Without a thread there is nobody who tells.
        drop(thread::Builder::new().name(name.to_owned()).spawn(work));
        Self(told)
    }

    /// Waits for the end until `deadline`.
    pub(super) fn by(&self, deadline: Instant) -> Progress {
        match self.0.recv_timeout(until(deadline)) {
            Ok(true) => Progress::Succeeded,
            Ok(false) | Err(RecvTimeoutError::Disconnected) => Progress::Failed,
            Err(RecvTimeoutError::Timeout) => Progress::Pending,
        }
    }
}
