use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The counts of a [`RequestsInProgressLayer`](super::RequestsInProgressLayer). Clones share them.
///
/// The layer counts requests. Images are counted by the service, with [`image`](Self::image) or through its
/// [`Workers`](crate::pool::Workers::with_in_progress):
///
/// ```
/// use tower_image_trace::RequestsInProgress;
///
/// let in_progress = RequestsInProgress::default();
/// let image = in_progress.image();
/// assert_eq!((in_progress.requests(), in_progress.images()), (0, 1));
/// drop(image);
/// assert_eq!(in_progress.images(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestsInProgress {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicI64,
    images: AtomicI64,
}

impl RequestsInProgress {
    /// The number of requests in progress.
    #[must_use]
    pub fn requests(&self) -> i64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// The number of images in progress.
    #[must_use]
    pub fn images(&self) -> i64 {
        self.counts.images.load(Ordering::Relaxed)
    }

    /// Counts an image as in progress until the guard is dropped, on whatever thread.
    #[must_use = "the image counts until the guard is dropped"]
    pub fn image(&self) -> ImageGuard {
        self.counts.images.fetch_add(1, Ordering::Relaxed);
        ImageGuard {
            counts: Arc::clone(&self.counts),
        }
    }

    pub(super) fn request(&self) -> RequestGuard {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        RequestGuard {
            counts: Arc::clone(&self.counts),
        }
    }
}

/// An image in progress, from [`RequestsInProgress::image`].
#[derive(Debug)]
pub struct ImageGuard {
    counts: Arc<Counts>,
}

impl Drop for ImageGuard {
    fn drop(&mut self) {
        self.counts.images.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct RequestGuard {
    counts: Arc<Counts>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.counts.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run under miri with many schedules too.
    #[test]
    fn threads_leave_nothing_in_progress() {
        const ROUNDS: usize = if cfg!(miri) { 2 } else { 500 };
        let in_progress = RequestsInProgress::default();
        let watched = in_progress.image();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let request = in_progress.request();
                        let image = in_progress.image();
                        assert!((1..=2).contains(&in_progress.requests()));
                        assert!((2..=3).contains(&in_progress.images()));
                        // Ended by another thread than the one that began it.
                        scope.spawn(move || drop((image, request))).join().unwrap();
                    }
                });
            }
        });
        assert_eq!((in_progress.requests(), in_progress.images()), (0, 1));
        drop(watched);
        assert_eq!(in_progress.images(), 0);
    }
}
