use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Numbers the attempts of one download. Put the same value, or a clone, into the extensions of each of
/// its requests. From the second attempt on, spans have `http.request.resend_count` (semconv
/// http-spans): 1 for the first retry or redirect.
///
/// ```
/// use http::Request;
/// use tower_image_trace::download::Attempts;
///
/// // A service that retries or follows redirects clones the extensions with the request.
/// let request = Request::get("http://cdn.example/cat.jpg").extension(Attempts::default());
/// # request.body(()).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<AtomicU32>);

impl Attempts {
    /// The number of attempts before this one.
    pub(super) fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
