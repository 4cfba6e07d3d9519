//! A connection on which both sides may speak at any time: what comes while we speak, or wait, is held, up to a limit.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

/// How much is held that was said before its turn; past it the peer has to wait.
const HELD_BYTES: usize = 256 << 10;
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;
/// What a peer may still send after we have closed, and for how long, before the connection is dropped: closing with
/// bytes unread would reset it, and what it was told last with it.
const FAREWELL_BYTES: usize = 64 << 10;
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection and what was heard of it before its turn.
pub(super) struct Wire<S> {
    io: S,
    held: BytesMut,
    /// The peer has closed its side.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(io: S) -> Self {
        Self {
            io,
            held: BytesMut::new(),
            closed: false,
        }
    }

    /// What was heard and not taken yet.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Whether the peer has closed its side, and all that it said was taken.
    pub(super) fn is_over(&self) -> bool {
        self.closed && self.held.is_empty()
    }

    /// Takes the first bytes of what is held.
    pub(super) fn take(&mut self, count: usize) {
        self.held.advance(count);
    }

    /// Waits until something is held, or the peer has closed its side.
    pub(super) async fn hear(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while self.held.is_empty() && !self.closed {
                std::task::ready!(self.poll_more(cx))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Hears what is there already, without waiting.
    pub(super) async fn hear_now(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            self.poll_all(cx)
                .map_or(Poll::Ready(Ok(())), |e| Poll::Ready(Err(e)))
        })
        .await
    }

    /// Says something, and holds what comes meanwhile.
    pub(super) async fn say(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while !bytes.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => bytes = &bytes[count..],
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if let Some(error) = self.poll_all(cx) {
                            return Poll::Ready(Err(error));
                        }
                        return Poll::Pending;
                    }
                }
            }
            Pin::new(&mut self.io).poll_flush(cx)
        })
        .await
    }

    /// Waits until then, and holds what comes meanwhile.
    pub(super) async fn rest(&mut self, until: Instant) -> io::Result<()> {
        let mut sleep = std::pin::pin!(tokio::time::sleep_until(until));
        std::future::poll_fn(|cx| match self.poll_all(cx) {
            Some(error) => Poll::Ready(Err(error)),
            None => sleep.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// Says that no more will be said.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        match self.io.shutdown().await {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes, and lets the peer take what it was told.
    pub(super) async fn part(mut self) {
        if self.close().await.is_err() {
            return;
        }
        let farewell = async {
            let mut left = FAREWELL_BYTES;
            while !self.closed && left > 0 {
                self.held.clear();
                if self.hear().await.is_err() {
                    return;
                }
                left = left.saturating_sub(self.held.len());
            }
        };
        // Whoever does not close in time loses the connection.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// Reads until nothing more is there, or enough is held.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        while !self.closed && self.held.len() < HELD_BYTES {
            match self.poll_more(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(error),
                Poll::Pending => return None,
            }
        }
        None
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(READ_BYTES);
        let read = std::task::ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.held))?;
        self.closed = read == 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_comes_while_we_speak_is_held_and_nothing_deadlocks() {
        let (ours, mut theirs) = duplex(64);
        let peer = tokio::spawn(async move {
            // Says everything before it listens.
            theirs.write_all(&[b'a'; 10_000]).await.unwrap();
            let mut heard = vec![0; 10_000];
            theirs.read_exact(&mut heard).await.unwrap();
            heard
        });
        let mut wire = Wire::new(ours);
        wire.say(&[b'b'; 10_000]).await.unwrap();
        assert!(peer.await.unwrap().iter().all(|byte| *byte == b'b'));
        let mut heard = 0;
        while !wire.is_over() {
            wire.hear().await.unwrap();
            heard += wire.held().len();
            wire.take(wire.held().len());
        }
        assert_eq!(heard, 10_000);
    }

    #[tokio::test]
    async fn no_more_is_held_than_the_limit() {
        let (ours, mut theirs) = duplex(1 << 20);
        theirs.write_all(&vec![0; 1 << 20]).await.unwrap();
        let mut wire = Wire::new(ours);
        wire.hear_now().await.unwrap();
        assert!(wire.held().len() < HELD_BYTES + READ_BYTES * 2);
        assert!(wire.held().len() >= HELD_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_closes_is_left_after_a_while() {
        let (ours, mut theirs) = duplex(64);
        let mut wire = Wire::new(ours);
        wire.say(b"bye").await.unwrap();
        wire.part().await;
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
    }
}
