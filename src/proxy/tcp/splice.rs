//! One direction through a pipe of the kernel (splice(2)): no byte enters our memory.
//!
//! For plain TCP of which no copy is made: sampled out, paused, or a node that only forwards. Two descriptors
//! per direction is the price, so where there are none left the bytes are copied after all.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::super::stream::Socket;
use super::pump::{Broken, Doing, Watch, receiver};
use crate::record::Direction;

/// What one call may move: a pipe holds 64 KiB unless told otherwise.
const PIPE: usize = 64 << 10;

pub(super) struct Splice {
    direction: Direction,
    inlet: OwnedFd,
    outlet: OwnedFd,
    /// Bytes in the pipe.
    holds: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has passed: should the kernel refuse, the bytes can still be copied.
    Untried,
    Open,
    /// The sender has closed its side, which the receiver is to hear after the rest.
    Closing,
    Closed,
}

/// The kernel cannot splice these sockets; nothing has passed.
pub(super) struct Unable;

impl Splice {
    pub(super) fn new(direction: Direction) -> io::Result<Self> {
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            direction,
            inlet,
            outlet,
            holds: 0,
            state: State::Untried,
        })
    }

    pub(super) const fn direction(&self) -> Direction {
        self.direction
    }

    /// Ready when the sender has closed and the receiver has been told.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Socket,
        to: &mut impl Socket,
        watch: &mut impl Watch,
    ) -> Result<Poll<Result<(), Broken>>, Unable> {
        let (Some(from), Some(to)) = (from.plain(), to.plain()) else {
            return Err(Unable);
        };
        match self.carry(cx, from, to, watch) {
            Poll::Ready(Err(broken))
                if self.state == State::Untried
                    && matches!(
                        broken.error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                    ) =>
            {
                Err(Unable)
            }
            polled => Ok(polled),
        }
    }

    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &mut TcpStream,
        watch: &mut impl Watch,
    ) -> Poll<Result<(), Broken>> {
        let (whose, doing) = (receiver(self.direction), Doing::Writing);
        let unwritten = |error| Broken {
            whose,
            doing,
            error,
        };
        loop {
            ready!(self.drain(cx, to)).map_err(unwritten)?;
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Closing => {
                    let shut = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Closed;
                    match shut {
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(unwritten(error)));
                        }
                        _ => continue,
                    }
                }
                State::Untried | State::Open => {}
            }
            let read = ready!(self.fill(cx, from)).map_err(|error| Broken {
                whose: self.direction,
                doing: Doing::Reading,
                error,
            })?;
            watch.passed(self.direction, read);
            self.holds = read;
            self.state = if read == 0 {
                State::Closing
            } else {
                State::Open
            };
        }
    }

    /// From the socket into the pipe, which is empty: that the kernel would wait is the socket's doing.
    fn fill(&self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            ready!(from.poll_read_ready(cx))?;
            let read = || Ok(splice(from, None, &self.inlet, None, PIPE, flags)?);
            match from.try_io(Interest::READABLE, read) {
                Err(error) if again(&error) => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// From the pipe into the socket, until it is empty.
    fn drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        while self.holds > 0 {
            ready!(to.poll_write_ready(cx))?;
            let write = || Ok(splice(&self.outlet, None, to, None, self.holds, flags)?);
            match to.try_io(Interest::WRITABLE, write) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.holds -= written,
                Err(error) if again(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
