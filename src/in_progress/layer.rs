use tower_layer::Layer;

use super::{InProgress, RequestsInProgress};

/// Counts the requests in progress: from the call until the response's body is dropped.
///
/// Each layer counts, so that a request that passes two with the same counts is two of them: add it once.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use tower_image_trace::RequestsInProgressLayer;
///
/// let (layer, in_progress) = RequestsInProgressLayer::pair();
/// let app: Router = Router::new().route("/", get(async || "…")).layer(layer);
/// assert_eq!(in_progress.requests(), 0);
/// # drop(app);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RequestsInProgressLayer {
    in_progress: RequestsInProgress,
}

impl RequestsInProgressLayer {
    /// A layer and its counts.
    #[must_use]
    pub fn pair() -> (Self, RequestsInProgress) {
        let in_progress = RequestsInProgress::default();
        (
            Self {
                in_progress: in_progress.clone(),
            },
            in_progress,
        )
    }
}

impl<S> Layer<S> for RequestsInProgressLayer {
    type Service = InProgress<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InProgress::new(inner, self.in_progress.clone())
    }
}
