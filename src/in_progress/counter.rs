use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The counts of a [`RequestsInProgressLayer`](super::RequestsInProgressLayer). Clones share them.
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
