//! An upstream's socket that lets an answer be read though the rest of the request cannot be sent.
//!
//! An upstream may answer early and close while the request is still on its way (RFC 9112 section 9.5): then
//! the write fails while the answer stands in our receive buffer. The HTTP library would give up at the failed
//! write; so that one never returns, and what was received decides.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The socket.
pub(in super::super) struct Outbound<T> {
    io: T,
    closed: Closed,
}

/// Whether the upstream takes nothing more.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Closed(Arc<AtomicBool>);

impl Closed {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl<T> Outbound<T> {
    pub(super) fn new(io: T) -> (Self, Closed) {
        let closed = Closed::default();
        let outbound = Self {
            io,
            closed: closed.clone(),
        };
        (outbound, closed)
    }

    /// A write that failed because the other side has closed is pending for good: the reader ends it all.
    fn judge<R>(&self, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match &written {
            Poll::Ready(Err(error)) if is_closing(error) => {
                self.closed.0.store(true, Relaxed);
                Poll::Pending
            }
            _ => written,
        }
    }
}

fn is_closing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

impl<T: AsyncRead + Unpin> AsyncRead for Outbound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Outbound<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.judge(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
