use pin_project_lite::pin_project;

use super::active::Active;
use crate::instrument::{Guarded, guarded_body};

pin_project! {
    /// The response body of [`ImageTrace`](super::ImageTrace): passes frames on untouched, and
    /// ends the request's span with the last one.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: Guarded<B, Active>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(inner: Guarded<B, Active>) -> Self {
        Self { inner }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(Guarded::new(B::default(), None))
    }
}

guarded_body!(ResponseBody, inner);
