use std::time::{Duration, Instant, SystemTime};

/// The one clock of a request's spans: a clock step cannot shift one span against another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// Without spans there mostly is nothing to date: the system's time is read only when it is asked for.
    started_at: Option<SystemTime>,
}

impl Clock {
    /// Starts now, and has no date.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: None,
        }
    }

    /// Starts now, with its date.
    pub(crate) fn start_dated() -> Self {
        let mut clock = Self::start();
        clock.started_at = Some(system_time());
        clock
    }

    /// Takes the date of a span that began with it.
    pub(crate) fn date(&mut self, started_at: Option<SystemTime>) {
        self.started_at = started_at;
    }

    pub(crate) fn started_at(&self) -> SystemTime {
        let read = || system_time() - self.elapsed();
        self.started_at.unwrap_or_else(read)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time for what happens now.
    pub(crate) fn now(&self) -> SystemTime {
        self.started_at() + self.elapsed()
    }

    pub(crate) fn at(&self, instant: Instant) -> SystemTime {
        self.started_at() + instant.saturating_duration_since(self.started)
    }
}

#[cfg(not(test))]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
pub(crate) use self::tests::{set_forward, system_time};

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static BEHIND: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    pub(crate) fn system_time() -> SystemTime {
        SystemTime::now() - BEHIND.get()
    }

    /// Starts clocks as if the system's clock were set forward by this much right after.
    pub(crate) fn set_forward(by: Duration) {
        BEHIND.set(by);
    }
}
