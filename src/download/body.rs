use pin_project_lite::pin_project;

use super::finish::Finish;
use crate::instrument::{Guarded, guarded_body};

pin_project! {
    /// The response body of [`Download`](super::Download): passes frames on untouched, and
    /// ends the span of the attempt with the last one.
    #[derive(Debug)]
    pub struct DownloadBody<B> {
        #[pin]
        inner: Guarded<B, Finish>,
    }
}

impl<B> DownloadBody<B> {
    pub(super) fn new(inner: Guarded<B, Finish>) -> Self {
        Self { inner }
    }
}

impl<B: Default> Default for DownloadBody<B> {
    fn default() -> Self {
        Self::new(Guarded::new(B::default(), None))
    }
}

guarded_body!(DownloadBody, inner);
