//! What speaks at the other end of a connection, told by the first bytes that came from there.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use arrayvec::ArrayVec;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

/// A protocol that is spoken below anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    Tls,
    /// Bytes of no protocol that is known here.
    Unknown,
    /// The connection was closed without a byte.
    Nothing,
}

impl Spoken {
    fn of(first: &[u8]) -> Self {
        match first {
            [] => Self::Nothing,
            [b'H', b'T', b'T', b'P', b'/', b'1', ..] => Self::Http1,
            // RFC 8446 §5.1: an alert or a handshake record, of version 3.x.
            [0x15 | 0x16, 3, ..] => Self::Tls,
            // RFC 9113 §4.1, §6.5, §6.8: SETTINGS or GOAWAY, on stream 0.
            [_, _, _, 4 | 7, _, 0, 0, 0, 0, ..] => Self::Http2,
            _ => Self::Unknown,
        }
    }
}

/// Enough to tell the protocols apart.
type First = ArrayVec<u8, 9>;

/// The first bytes of the latest connection that was made or has heard its first bytes.
#[derive(Debug, Default)]
pub(super) struct FirstBytes(Mutex<Option<First>>);

impl FirstBytes {
    /// `None` before the first connection.
    pub(super) fn spoken(&self) -> Option<Spoken> {
        self.lock().as_deref().map(Spoken::of)
    }

    /// Watches a new connection. `forwards`: it leads to an HTTP proxy that forwards requests.
    pub(super) fn watch(self: &Arc<Self>, inner: TokioIo<TcpStream>, forwards: bool) -> Seen {
        *self.lock() = Some(First::new());
        Seen {
            inner,
            forwards,
            first: First::new(),
            latest: Arc::clone(self),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<First>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TCP connection whose first bytes are noted.
#[derive(Debug)]
pub(super) struct Seen {
    inner: TokioIo<TcpStream>,
    forwards: bool,
    first: First,
    latest: Arc<FirstBytes>,
}

impl Read for Seen {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let missing = this.first.remaining_capacity().min(buffer.remaining());
        if missing == 0 {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        }
        // A few bytes at a time through memory of our own, which safe code can look at.
        let mut few = [0; 9];
        let mut read = ReadBuf::new(&mut few[..missing]);
        ready!(Pin::new(this.inner.inner_mut()).poll_read(cx, &mut read))?;
        this.first.extend(read.filled().iter().copied());
        *this.latest.lock() = Some(this.first.clone());
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Seen {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }
}

impl Connection for Seen {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.forwards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        for (first, spoken) in [
            (&b""[..], Spoken::Nothing),
            (b"HTTP/1.1 400 Bad", Spoken::Http1),
            (b"HTTP/1.0 ", Spoken::Http1),
            (&[0, 0, 18, 4, 0, 0, 0, 0, 0], Spoken::Http2),
            (&[0, 0, 8, 7, 0, 0, 0, 0, 0], Spoken::Http2),
            (&[0x15, 3, 1, 0, 2, 2], Spoken::Tls),
            (&[0x16, 3, 3], Spoken::Tls),
            (b"SSH-2.0-", Spoken::Unknown),
        ] {
            assert_eq!(Spoken::of(first), spoken, "{first:?}");
        }
    }
}
