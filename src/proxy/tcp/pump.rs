//! Both directions of one connection, in one task: no lock, no split, each waits only for its own sockets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::super::Metrics;
use crate::capture::StreamTee;
use crate::record::{Direction, Outcome, UpstreamFailure};

/// The read buffer of a quiet direction; 10,000 of them are 80 MiB.
const SMALL: usize = 8 << 10;
/// The read buffer of a busy one.
const LARGE: usize = 64 << 10;

/// One direction.
struct Lane {
    direction: Direction,
    buffer: BytesMut,
    size: usize,
    /// What was read and not written yet.
    rest: Bytes,
    unflushed: bool,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Open,
    /// The sender has closed its side, which the receiver is to hear after the rest.
    Closing,
    Closed,
}

/// A socket failed: whose, and how.
struct Broken {
    whose: Direction,
    error: io::Error,
}

/// Carries bytes both ways until both sides have closed, one breaks off, or nothing moves for `idle`.
pub(super) async fn run(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    tee: Option<&StreamTee>,
    idle: Duration,
    metrics: &Metrics,
) -> Outcome {
    let mut up = Lane::new(Direction::Client);
    let mut down = Lane::new(Direction::Server);
    let mut timer = Box::pin(tokio::time::sleep(idle));
    let mut moved = Instant::now();
    let ended = std::future::poll_fn(|cx| {
        let mut saw = |direction: Direction, bytes: &Bytes| {
            moved = Instant::now();
            let counter = match direction {
                Direction::Client => &metrics.bytes_in,
                Direction::Server => &metrics.bytes_out,
            };
            counter.inc_by(bytes.len() as u64);
            if let Some(tee) = tee {
                tee.segment(direction, bytes);
            }
        };
        let upward = up.poll(cx, client, server, &mut saw)?;
        let downward = down.poll(cx, server, client, &mut saw)?;
        if upward.is_ready() && downward.is_ready() {
            return Poll::Ready(Ok(Outcome::Ok));
        }
        poll_idle(&mut timer, moved, idle, cx).map(Ok)
    });
    ended.await.unwrap_or_else(Broken::outcome)
}

fn poll_idle(
    timer: &mut Pin<Box<Sleep>>,
    moved: Instant,
    idle: Duration,
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    // The timer is moved on when it fires, not with each byte.
    while timer.as_mut().poll(cx).is_ready() {
        let deadline = moved + idle;
        if deadline <= Instant::now() {
            let why: Arc<str> = format!("silent for {} s", idle.as_secs_f64()).into();
            return Poll::Ready(Outcome::ProxyClosed(why));
        }
        timer.as_mut().reset(deadline);
    }
    Poll::Pending
}

impl Lane {
    fn new(direction: Direction) -> Self {
        Self {
            direction,
            buffer: BytesMut::new(),
            size: SMALL,
            rest: Bytes::new(),
            unflushed: false,
            state: State::Open,
        }
    }

    /// Ready when the sender has closed and the receiver has been told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        saw: &mut impl FnMut(Direction, &Bytes),
    ) -> Poll<Result<(), Broken>> {
        let (sender, receiver) = self.ends();
        loop {
            while self.rest.has_remaining() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest))
                    .and_then(|n| {
                        if n == 0 {
                            Err(io::ErrorKind::WriteZero.into())
                        } else {
                            Ok(n)
                        }
                    })
                    .map_err(|error| Broken {
                        whose: receiver,
                        error,
                    })?;
                self.rest.advance(written);
                self.unflushed = true;
            }
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Closing => {
                    let shut = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Closed;
                    match shut {
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(Broken {
                                whose: receiver,
                                error,
                            }));
                        }
                        _ => continue,
                    }
                }
                State::Open => {}
            }
            self.buffer.reserve(self.size);
            let read = match poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer) {
                Poll::Ready(read) => read.map_err(|error| Broken {
                    whose: sender,
                    error,
                })?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|error| Broken {
                            whose: receiver,
                            error,
                        })?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            };
            self.size = if read >= self.size { LARGE } else { SMALL };
            self.rest = self.buffer.split().freeze();
            saw(self.direction, &self.rest);
            if read == 0 {
                self.state = State::Closing;
            }
        }
    }

    const fn ends(&self) -> (Direction, Direction) {
        match self.direction {
            Direction::Client => (Direction::Client, Direction::Server),
            Direction::Server => (Direction::Server, Direction::Client),
        }
    }
}

impl Broken {
    fn outcome(self) -> Outcome {
        match self.whose {
            Direction::Client => Outcome::ClientClosed,
            Direction::Server => {
                Outcome::UpstreamFailed(UpstreamFailure::Reset, self.error.to_string().into())
            }
        }
    }
}
