use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::RequestTrace;

/// The bytes that were read of a request's body, where they are counted.
#[derive(Debug, Default)]
pub(crate) struct BodyCount {
    /// One more than the bytes; 0 where they are not counted.
    read: AtomicU64,
}

impl BodyCount {
    pub(crate) fn read(&self) -> Option<u64> {
        self.read.load(Relaxed).checked_sub(1)
    }

    fn add(&self, bytes: usize) {
        // Only one body of a request is read at a time.
        let read = self.read.load(Relaxed).max(1);
        self.read.store(read.saturating_add(bytes as u64), Relaxed);
    }
}

pin_project! {
    /// A request's body whose bytes are counted as the service reads them, from
    /// [`RequestTrace::request_body`].
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        trace: RequestTrace,
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, trace: RequestTrace) -> Self {
        if let Some(count) = trace.body_count() {
            count.add(0);
        }
        Self { inner, trace }
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = this.inner.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(data), Some(count)) = (frame.data_ref(), this.trace.body_count())
        {
            count.add(data.remaining());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
