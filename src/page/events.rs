//! The state, told to all who listen (WHATWG HTML, server-sent events).

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::Page;
use crate::telemetry::asked_to_stop;

/// The listeners at a time.
const MOST_STREAMS: usize = 16;
/// How often the state is looked at while anyone listens.
const PAUSE: Duration = Duration::from_millis(500);
/// How long nothing is told when nothing changes.
const SILENCE: Duration = Duration::from_secs(10);
/// A stream ends with the first event after this time, and its browser opens another one: a graceful shutdown
/// waits for all responses, whoever asks for it, and must not wait for ever.
const LIFE: Duration = Duration::from_secs(10);
/// How long a stream has its place, also if its listener does not read.
const KEPT: Duration = LIFE.saturating_add(SILENCE);
/// The last event of a stream that has had its time.
const OVER: &[u8] = b"event: over\ndata: {}\n\n";

pub(super) struct Events {
    /// The latest event; `None` at the end.
    latest: watch::Sender<Option<Bytes>>,
    opened: Notify,
    places: Places,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new(Some(Bytes::new())),
            opened: Notify::new(),
            places: Places::default(),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("streams", &self.latest.receiver_count())
            .finish_non_exhaustive()
    }
}

/// Who has a place, and since when.
#[derive(Default)]
struct Places(Mutex<Vec<(Weak<Place>, Instant)>>);

/// Given back when it is dropped.
struct Place;

impl Places {
    fn take(&self) -> Option<Arc<Place>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(place, since)| place.strong_count() > 0 && since.elapsed() < KEPT);
        if taken.len() >= MOST_STREAMS {
            return None;
        }
        let place = Arc::new(Place);
        taken.push((Arc::downgrade(&place), Instant::now()));
        Some(place)
    }
}

type Receiver = watch::Receiver<Option<Bytes>>;
type Next = Pin<Box<dyn Future<Output = (Option<Bytes>, Receiver)> + Send>>;

/// What one listener gets. A slow one gets the latest event, not all of them.
pub(super) struct Stream {
    first: Option<Bytes>,
    next: Next,
    opened: Instant,
    /// `None`: the stream has ended.
    place: Option<Arc<Place>>,
}

impl Stream {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if self.place.is_none() {
            return Poll::Ready(None);
        }
        let (event, receiver) = ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(next(receiver));
        let is_over = self.opened.elapsed() >= LIFE;
        if is_over || event.is_none() {
            // The browser opens the next stream at once.
            self.place = None;
        }
        Poll::Ready(match is_over {
            true => event.map(|_| Bytes::from_static(OVER)),
            false => event,
        })
    }
}

async fn next(mut receiver: Receiver) -> (Option<Bytes>, Receiver) {
    let event = match receiver.changed().await {
        Ok(()) => receiver.borrow_and_update().clone(),
        Err(_) => None,
    };
    (event, receiver)
}

impl Page {
    /// A stream of events, which begins with the state now; `None` when there are too many.
    pub(super) fn listen(&self) -> Option<Stream> {
        let place = self.events.places.take()?;
        let receiver = self.events.latest.subscribe();
        let is_over = receiver.borrow().is_none();
        self.events.opened.notify_one();
        let first = [b"retry: 1000\n".as_slice(), &event(&self.state())].concat();
        let next: Next = match is_over {
            true => Box::pin(async move { (None, receiver) }),
            false => Box::pin(next(receiver)),
        };
        Some(Stream {
            first: Some(first.into()),
            next,
            opened: Instant::now(),
            place: Some(place),
        })
    }

    /// Tells the state while anyone listens, until the process is asked to stop: a graceful shutdown waits for
    /// all responses. Runs on the I/O thread.
    pub(crate) async fn tell(self: Arc<Self>) {
        let _end = End(&self.events.latest);
        let (mut tell, mut stop) = (pin!(self.tell_for_ever()), pin!(asked_to_stop()));
        poll_fn(|cx| match stop.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => tell.as_mut().poll(cx),
        })
        .await;
    }

    async fn tell_for_ever(&self) {
        let (mut told, mut when) = (Value::Null, Instant::now());
        loop {
            if self.events.latest.receiver_count() == 0 {
                self.events.opened.notified().await;
            }
            sleep(PAUSE).await;
            let state = self.state();
            let changing = without_time(&state);
            if changing != told || when.elapsed() >= SILENCE {
                self.events.latest.send_replace(Some(event(&state).into()));
                (told, when) = (changing, Instant::now());
            }
        }
    }
}

/// Ends all streams, also when the I/O thread ends.
struct End<'a>(&'a watch::Sender<Option<Bytes>>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

fn event(state: &Value) -> Vec<u8> {
    // JSON has no line break outside of its texts, where they are escaped.
    format!("event: state\ndata: {state}\n\n").into_bytes()
}

/// The state without what changes by time alone.
fn without_time(state: &Value) -> Value {
    let mut state = state.clone();
    state["now"] = Value::Null;
    let routes = state["routes"].as_array_mut();
    for route in routes.into_iter().flatten() {
        for name in ["per_second", "p50_ms", "p95_ms", "p99_ms", "stages"] {
            route[name] = Value::Null;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use hyper::server::conn::http1;
    use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    use opentelemetry_sdk::Resource;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::timeout,
    };

    use super::*;
    use crate::{page::TracePageBuilder, telemetry::Settings};

    /// A server that is shut down by anything but `shutdown_signal()`.
    #[tokio::test(start_paused = true)]
    async fn an_open_stream_does_not_hold_up_a_graceful_shutdown_for_ever() {
        let page = Page::new(
            &Settings::default(),
            1 << 20,
            &Resource::builder_empty().build(),
        );
        tokio::spawn(Arc::clone(&page).tell());
        let service = TracePageBuilder::new(Some(Arc::clone(&page)));
        let service = service.authorize(|_| true).build();
        let (mut browser, server) = duplex(1 << 16);
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        let request = b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
        browser.write_all(request).await.unwrap();
        let mut told = Vec::new();
        let opens = async {
            while !told.ends_with(b"\n\n\r\n") {
                browser.read_buf(&mut told).await.unwrap();
            }
        };
        tokio::select! {
            () = opens => {}
            ended = &mut connection => panic!("{ended:?}"),
        }
        connection.as_mut().graceful_shutdown();
        let drained = timeout(LIFE + SILENCE + 2 * PAUSE, connection);
        drained.await.expect("the shutdown waits").unwrap();
        browser.read_to_end(&mut told).await.unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("event: over"), "{told}");
        assert!(told.ends_with("0\r\n\r\n"), "the response is whole: {told}");
        assert!(
            page.events.places.0.lock().unwrap()[0]
                .0
                .upgrade()
                .is_none()
        );
    }
}
