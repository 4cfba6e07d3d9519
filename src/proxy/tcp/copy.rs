//! One direction through our own memory, where a copy is made or TLS ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::pump::{Broken, Doing, Watch, receiver};
use crate::record::Direction;

/// The read buffer of a quiet direction; 10,000 of them are 80 MiB.
const SMALL: usize = 8 << 10;
/// The read buffer of a busy one.
const LARGE: usize = 64 << 10;

pub(super) struct Copy {
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

impl Copy {
    pub(super) fn new(direction: Direction) -> Self {
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
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        watch: &mut impl Watch,
    ) -> Poll<Result<(), Broken>> {
        let (whose, doing) = (receiver(self.direction), Doing::Writing);
        let unwritten = |error| Broken {
            whose,
            doing,
            error,
        };
        loop {
            ready!(self.write(cx, to)).map_err(unwritten)?;
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
                State::Open => {}
            }
            self.buffer.reserve(self.size);
            let read = match poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer) {
                Poll::Ready(read) => read.map_err(|error| Broken {
                    whose: self.direction,
                    doing: Doing::Reading,
                    error,
                })?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(unwritten)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            };
            self.size = if read >= self.size { LARGE } else { SMALL };
            self.rest = self.buffer.split().freeze();
            watch.saw(self.direction, &self.rest);
            if read == 0 {
                self.state = State::Closing;
            }
        }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.rest.has_remaining() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(written);
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }
}
