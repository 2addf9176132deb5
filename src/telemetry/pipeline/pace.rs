//! When a signal may be sent: at once while the collector takes it, and paced while it does not.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Short, so that a collector that is back is noticed before the queue is full.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause that a collector may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Paces all requests of one signal.
///
/// After a failure that is worth another attempt everything waits; then one request goes first, and the
/// others follow when it was taken.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success.
    failures: u32,
    /// No attempt before this.
    pause: Option<Pause>,
    /// A request has gone first, and its outcome is not known.
    probing: bool,
    /// A flush does not want to wait.
    hurried: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    /// The collector has asked for it, so a flush does not shorten it.
    asked: bool,
}

impl State {
    /// The pause that the collector has asked for, unless it is over.
    fn asked(&self, now: Instant) -> Option<Pause> {
        self.pause.filter(|pause| pause.asked && pause.until > now)
    }
}

/// The right to make one attempt.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pace: &'a Pace,
    is_probe: bool,
    is_over: bool,
}

impl Pace {
    /// Waits for the right to make an attempt, at most until `deadline`. A pause that the collector
    /// has asked for is waited out whatever the deadline, and moves it: one request goes first after the
    /// pause, and the others need time to follow.
    pub(crate) async fn turn(&self, deadline: &mut Instant) -> Option<Turn<'_>> {
        loop {
            let changed = self.changed.notified();
            let now = Instant::now();
            let asked;
            let wake = {
                let mut state = self.lock();
                asked = state.asked(now).is_some();
                let waits = state
                    .pause
                    .filter(|pause| pause.until > now && (pause.asked || !state.hurried));
                match waits {
                    None if state.failures == 0 => return Some(self.new_turn(false)),
                    None if !state.probing => {
                        state.probing = true;
                        state.hurried = false;
                        return Some(self.new_turn(true));
                    }
                    _ if !asked && now >= *deadline => return None,
                    None => *deadline,
                    Some(pause) if asked => pause.until,
                    Some(pause) => pause.until.min(*deadline),
                }
            };
            let _ = timeout_at(wake, changed).await;
            if asked {
                *deadline += now.elapsed();
            }
        }
    }

    /// Shortens the pause that waits now, unless the collector has asked for it.
    pub(crate) fn hurry(&self) {
        self.lock().hurried = true;
        self.changed.notify_waiters();
    }

    fn new_turn(&self, is_probe: bool) -> Turn<'_> {
        Turn {
            pace: self,
            is_probe,
            is_over: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// The collector has answered: the others may go on, unless it has asked for a pause meanwhile.
    pub(crate) fn succeeded(mut self) {
        self.is_over = true;
        let mut state = self.pace.lock();
        *state = match state.asked(Instant::now()) {
            None => State::default(),
            // One request goes first after the pause.
            Some(pause) => State {
                failures: state.failures,
                pause: Some(pause),
                probing: state.probing && !self.is_probe,
                hurried: false,
            },
        };
        drop(state);
        self.pace.changed.notify_waiters();
    }

    /// The attempt is worth another one, after the pause that the collector has asked for, if any.
    /// Returns that pause.
    pub(crate) fn failed(mut self, asked: Option<Duration>) -> Option<Duration> {
        self.is_over = true;
        let asked = asked.filter(|pause| !pause.is_zero());
        let asked = asked.map(|pause| pause.min(LONGEST_ASKED));
        let mut state = self.pace.lock();
        let now = Instant::now();
        // No other outcome shortens what the collector has asked for.
        let known = state.asked(now);
        // The other requests that were on their way fail too; that is no further reason to wait.
        if self.is_probe || state.failures == 0 {
            let pause = FIRST_PAUSE.saturating_mul(1 << state.failures.min(8));
            state.failures += 1;
            state.hurried = false;
            state.pause = known.or(Some(Pause {
                until: now + jittered(pause.min(LONGEST_PAUSE)),
                asked: false,
            }));
        }
        if let Some(pause) = asked {
            let until = known.map_or(now + pause, |known| known.until.max(now + pause));
            state.pause = Some(Pause { until, asked: true });
        }
        if self.is_probe {
            state.probing = false;
        }
        drop(state);
        self.pace.changed.notify_waiters();
        asked
    }
}

impl Drop for Turn<'_> {
    /// A request that was given up in between must not keep the others waiting.
    fn drop(&mut self) {
        if !self.is_over && self.is_probe {
            self.pace.lock().probing = false;
            self.pace.changed.notify_waiters();
        }
    }
}

/// The pause ± 25 %, so that many instances do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + random() / 2.0)
}

/// A number from 0 to 1 that need not be unpredictable.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(3600);

    fn later() -> Instant {
        Instant::now() + LATER
    }

    async fn next_turn(pace: &Pace, mut deadline: Instant) -> Option<Turn<'_>> {
        pace.turn(&mut deadline).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_goes_first_after_a_failure_and_the_others_follow_its_success() {
        let pace = Pace::default();
        let [first, second] = [
            next_turn(&pace, later()).await,
            next_turn(&pace, later()).await,
        ];
        assert_eq!(first.unwrap().failed(None), None);
        assert_eq!(second.unwrap().failed(None), None);
        let started = Instant::now();
        let probe = next_turn(&pace, later()).await.unwrap();
        let waited = started.elapsed();
        assert!(
            waited >= FIRST_PAUSE.mul_f64(0.7) && waited <= FIRST_PAUSE.mul_f64(1.3),
            "{waited:?}"
        );
        let others = next_turn(&pace, Instant::now() + Duration::from_secs(1));
        assert!(others.await.is_none(), "the probe is on its way");
        let (other, ()) = tokio::join!(next_turn(&pace, later()), async { probe.succeeded() });
        assert!(other.is_some());
        assert!(next_turn(&pace, Instant::now()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_two_seconds_and_start_anew_after_a_success() {
        let pace = Pace::default();
        next_turn(&pace, later()).await.unwrap().failed(None);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let started = Instant::now();
            next_turn(&pace, later()).await.unwrap().failed(None);
            pauses.push(started.elapsed().as_secs_f64());
        }
        for (pause, expected) in pauses.iter().zip([0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]) {
            assert!((0.74..1.27).contains(&(pause / expected)), "{pauses:?}");
        }
        assert!(
            pauses[4..].windows(2).any(|pair| pair[0] != pair[1]),
            "no jitter: {pauses:?}"
        );
        next_turn(&pace, later()).await.unwrap().succeeded();
        next_turn(&pace, later()).await.unwrap().failed(None);
        let started = Instant::now();
        next_turn(&pace, later()).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(400));
    }

    #[tokio::test(start_paused = true)]
    async fn an_asked_pause_holds_whatever_the_deadline_and_the_hurry() {
        let pace = Pace::default();
        let asked = Duration::from_secs(120);
        assert_eq!(
            next_turn(&pace, later()).await.unwrap().failed(Some(asked)),
            Some(asked)
        );
        let started = Instant::now();
        pace.hurry();
        let turn = next_turn(&pace, Instant::now()).await;
        assert!(started.elapsed() >= asked, "{:?}", started.elapsed());
        // The longest pause is ten minutes, and none at all is an ordinary one.
        assert_eq!(
            turn.map(|turn| turn.failed(Some(LATER))),
            None.or(Some(Some(LONGEST_ASKED)))
        );
        let started = Instant::now();
        let turn = next_turn(&pace, later()).await.unwrap();
        assert!(started.elapsed() >= LONGEST_ASKED && started.elapsed() < LATER);
        assert_eq!(turn.failed(Some(Duration::ZERO)), None);
        let started = Instant::now();
        next_turn(&pace, later()).await.unwrap();
        let waited = started.elapsed();
        assert!(
            waited > Duration::from_millis(100) && waited < Duration::from_secs(3),
            "{waited:?}"
        );
    }

    // faults C4
    #[tokio::test(start_paused = true)]
    async fn an_asked_pause_holds_whatever_comes_of_other_requests() {
        type End = fn(Turn<'_>);
        let asked = Duration::from_secs(120);
        let ends: [End; 3] = [
            |turn| turn.succeeded(),
            |turn| _ = turn.failed(None),
            |turn| _ = turn.failed(Some(FIRST_PAUSE)),
        ];
        for end in ends {
            for is_probe in [false, true] {
                let pace = Pace::default();
                let first = next_turn(&pace, later()).await.unwrap();
                let mut other = next_turn(&pace, later()).await.unwrap();
                if is_probe {
                    other.failed(None);
                    other = next_turn(&pace, later()).await.unwrap();
                }
                let started = Instant::now();
                first.failed(Some(asked));
                end(other);
                let probe = next_turn(&pace, later()).await.unwrap();
                assert!(started.elapsed() >= asked, "{:?}", started.elapsed());
                assert!(
                    next_turn(&pace, Instant::now()).await.is_none(),
                    "one goes first"
                );
                probe.succeeded();
                assert!(next_turn(&pace, Instant::now()).await.is_some());
            }
        }
    }

    // faults C4
    #[tokio::test(start_paused = true)]
    async fn an_asked_pause_takes_nothing_from_the_time_of_those_who_wait() {
        let pace = Pace::default();
        let asked = Duration::from_secs(120);
        next_turn(&pace, later()).await.unwrap().failed(Some(asked));
        let deadline = || Instant::now() + Duration::from_secs(30);
        let started = Instant::now();
        let attempt = || async {
            let turn = next_turn(&pace, deadline())
                .await
                .expect("there is time left");
            tokio::time::sleep(Duration::from_secs(1)).await;
            turn.succeeded();
        };
        tokio::join!(attempt(), attempt(), attempt());
        assert!(started.elapsed() >= asked, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_hurries_an_ordinary_pause() {
        let pace = Pace::default();
        next_turn(&pace, later()).await.unwrap().failed(None);
        let started = Instant::now();
        let (turn, ()) = tokio::join!(next_turn(&pace, later()), async { pace.hurry() });
        assert!(turn.is_some());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_gives_its_turn_to_the_next() {
        let pace = Pace::default();
        next_turn(&pace, later()).await.unwrap().failed(None);
        drop(next_turn(&pace, later()).await);
        assert!(next_turn(&pace, later()).await.is_some());
    }
}
