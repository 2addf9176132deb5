use tower_layer::Layer;

use super::{InProgress, RequestsInProgress};

/// Counts the requests in progress.
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
