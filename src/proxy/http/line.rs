//! An HTTP/1.1 client's socket as the HTTP library sees it: inspected on the way in, and with a way for what
//! the library has no words for on the way out.
//!
//! Interim responses (RFC 9110 section 15.2) are written between the library's own messages: it flushes its
//! socket only when it has nothing left to write, and that is where they fit. A client that still sends when
//! its answer is complete is listened to for a moment after the last byte, because closing at once would
//! reset the connection, and the answer with it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::inspect::{Copies, Inspector, Verdict};

/// For how long a client that still sends is listened to after its answer.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How much is read of it in that time, in bytes.
pub(super) const LINGER_BYTES: usize = 64 << 20;
/// How many interim responses wait for their turn; more are not passed on.
const MAX_INTERIM: usize = 16;
/// How many heads wait for their request to be served; the library reads no further ahead than its buffer.
const MAX_HEADS: usize = 4096;

/// The socket.
pub(super) struct Line<T> {
    io: T,
    inspector: Inspector,
    /// What has to wait until it is known whether the connection becomes a tunnel.
    held: Vec<u8>,
    /// How many requests have begun.
    asked: u64,
    /// Whether what the client sent was spoilt.
    spoilt: bool,
    /// What is being written between two messages of the library.
    writing: Bytes,
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
    desk: Arc<Desk>,
}

/// What the requests of a connection and its socket tell each other; both live in one task.
#[derive(Debug, Default)]
pub(super) struct Desk {
    heads: Mutex<VecDeque<Bytes>>,
    interim: Mutex<VecDeque<Bytes>>,
    /// Whether the library has nothing unwritten.
    clean: AtomicBool,
    /// How many requests were answered.
    answered: AtomicU64,
    tunnel: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Desk {
    /// The head of the request that is served next, as it came.
    pub(super) fn head(&self) -> Option<Bytes> {
        self.heads.lock().pop_front()
    }

    /// Has an interim response written before the answer. Whoever calls runs in the connection's task, which
    /// flushes when it is done.
    pub(super) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        let mut waiting = self.interim.lock();
        if waiting.len() >= MAX_INTERIM {
            return;
        }
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        waiting.push_back(head.into());
    }

    /// What comes behind the request that is being served is none of HTTP's.
    pub(super) fn becomes_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// The answer is there.
    pub(super) fn answered(&self, status: StatusCode) {
        if !self.clean.load(Relaxed) {
            // An earlier answer is not written yet, so what waits would come after this one.
            self.interim.lock().clear();
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.becomes_tunnel();
        }
        self.answered.fetch_add(1, Relaxed);
        if let Some(reader) = self.reader.lock().take() {
            reader.wake();
        }
    }
}

impl<T> Line<T> {
    pub(super) fn new(io: T, max_head: usize, copies: Copies) -> (Self, Arc<Desk>) {
        let desk = Arc::new(Desk::default());
        desk.clean.store(true, Relaxed);
        let line = Self {
            io,
            inspector: Inspector::new(max_head, copies),
            held: Vec::new(),
            asked: 0,
            spoilt: false,
            writing: Bytes::new(),
            lingering: None,
            desk: Arc::clone(&desk),
        };
        (line, desk)
    }

    /// What was held back, and the socket.
    pub(super) fn into_parts(self) -> (Vec<u8>, T) {
        (self.held, self.io)
    }

    /// Looks at what was put into `buffer` from `start` on, and takes back what has to wait.
    fn inspect(&mut self, buffer: &mut ReadBuf<'_>, start: usize) {
        let filled = buffer.filled_mut();
        let new = &mut filled[start..];
        match self.inspector.look(new) {
            Verdict::Good => {}
            Verdict::Bad(at) => {
                // No HTTP has a NUL in its heads or its framing: the library answers 400 and closes.
                new[at..].fill(0);
                self.inspector.give_up();
                self.spoilt = true;
            }
            Verdict::Hold(at) => {
                self.held.extend_from_slice(&new[at..]);
                buffer.set_filled(start + at);
            }
        }
        let mut heads = None;
        for head in self.inspector.heads() {
            self.asked += 1;
            let heads = heads.get_or_insert_with(|| self.desk.heads.lock());
            if heads.len() < MAX_HEADS {
                heads.push_back(head);
            }
        }
    }

    /// Gives what was held, once it is known as what it is to be read; pending until then.
    fn poll_held(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<()> {
        if self.inspector.is_held() {
            if self.desk.answered.load(Relaxed) < self.asked {
                *self.desk.reader.lock() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if self.desk.tunnel.load(Relaxed) {
                self.inspector.give_up();
            } else {
                self.inspector.release();
            }
        }
        let held = std::mem::take(&mut self.held);
        let start = buffer.filled().len();
        let length = held.len().min(buffer.remaining());
        buffer.put_slice(&held[..length]);
        self.inspect(buffer, start);
        self.held.extend_from_slice(&held[length..]);
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Line<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.held.is_empty() {
            ready!(this.poll_held(cx, buffer));
            return Poll::Ready(Ok(()));
        }
        let start = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let got = buffer.filled().len() - start;
        this.inspect(buffer, start);
        if got > 0 && buffer.filled().len() == start {
            // All of it is held, which must not look like the end.
            return this.poll_held(cx, buffer).map(Ok);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Line<T> {
    /// Writes the interim responses that wait; only where the library has nothing unwritten.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.writing.is_empty() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.writing))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.writing.advance(written);
            }
            match self.desk.interim.lock().pop_front() {
                Some(next) => self.writing = next,
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// What has to be written before the library may go on.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.writing.is_empty() || self.desk.clean.load(Relaxed) {
            ready!(self.poll_interim(cx))?;
        }
        self.desk.clean.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Line<T> {
    /// Reads and forgets what a client still sends, until it ends or the time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (timer, left) = self
            .lingering
            .get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut scratch = [0; 8192];
        loop {
            if timer.as_mut().poll(cx).is_ready() || *left == 0 {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            let got = buffer.filled().len();
            if read.is_err() || got == 0 {
                return Poll::Ready(());
            }
            *left = left.saturating_sub(got);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Only an empty buffer is flushed (hyper, `Buffered::poll_flush`).
        self.desk.clean.store(true, Relaxed);
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.spoilt || self.inspector.is_within_content() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
