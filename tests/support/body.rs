//! A response body that a test feeds frame by frame.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

pub type Fed = Result<Frame<Bytes>, std::io::Error>;

pub struct ChannelBody {
    frames: mpsc::UnboundedReceiver<Fed>,
    exact: Option<u64>,
}

impl ChannelBody {
    pub fn new() -> (mpsc::UnboundedSender<Fed>, Self) {
        let (sender, frames) = mpsc::unbounded_channel();
        (
            sender,
            Self {
                frames,
                exact: None,
            },
        )
    }

    /// A body that says how long it is going to be.
    pub fn with_exact_size(mut self, bytes: u64) -> Self {
        self.exact = Some(bytes);
        self
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Fed>> {
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.exact
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub fn data(bytes: &'static str) -> Fed {
    Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
}
