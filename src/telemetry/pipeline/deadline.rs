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

/// Runs `work` on a thread of its own and waits for it until `deadline`; whether it has ended by then.
pub(super) fn run_until(
    deadline: Instant,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> bool {
    Running::start(name, work).is_some_and(|running| running.has_ended_by(deadline))
}

/// Work on a thread of its own.
pub(super) struct Running(mpsc::Receiver<()>);

impl Running {
    /// `None` when there can be no further thread.
    pub(super) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Option<Self> {
        let (running, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            work();
            drop(running);
        });
        thread.is_ok().then_some(Self(ended))
    }

    /// Waits for the end until `deadline`.
    pub(super) fn has_ended_by(&self, deadline: Instant) -> bool {
        self.0.recv_timeout(until(deadline)) == Err(RecvTimeoutError::Disconnected)
    }
}
