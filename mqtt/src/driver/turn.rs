//! One turn of a connection: writes and reads once, or waits until there is something to do.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::error::Disconnected;
use crate::queue::Idle;

use super::Driver;
use super::coalesce::{Arrival, Coalescing};
use super::connect::Connection;
use super::transport::{LowWater, Stream};
use super::write::write_once;

/// Room for one read, in bytes: at rest, and where reads come back full.
pub(super) const READ_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=256 << 10;
/// Answers that wait to be written while more is read, in bytes: twice what a full window of the server's takes. A
/// server that sends and does not read would have us remember them without end.
const ANSWER_BYTES: usize = 512 << 10;

pub(super) struct Socket {
    pub(super) stream: Stream,
    pub(super) received: BytesMut,
    pub(super) coalescing: Coalescing,
    low_water: LowWater,
    read_size: usize,
    needs_flush: bool,
    /// How what is read next will have been found.
    arrival: Arrival,
    answers: Answers,
}

impl Socket {
    /// `coalescing` is the option of that name.
    pub(super) fn new(connection: Connection, coalescing: Duration, now: Instant) -> Self {
        let coalescing = if LowWater::WORKS {
            coalescing
        } else {
            Duration::ZERO
        };
        Self {
            stream: connection.stream,
            received: connection.received,
            coalescing: Coalescing::new(coalescing, now.into_std()),
            low_water: connection.low_water,
            read_size: *READ_BYTES.start(),
            needs_flush: false,
            arrival: Arrival::Next,
            answers: Answers::Flow,
        }
    }
}

/// Whether the server reads what its packets are answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Flow,
    Wait,
}

impl Driver {
    /// Writes and reads once, or waits until there is something to do.
    pub(super) async fn turn(
        &mut self,
        socket: &mut Socket,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<Turn, Disconnected> {
        let Socket {
            stream,
            received,
            coalescing,
            low_water,
            read_size,
            needs_flush,
            arrival,
            answers,
        } = socket;
        let before = *answers;
        *answers = if self.session.outbox().answers() > ANSWER_BYTES {
            Answers::Wait
        } else {
            Answers::Flow
        };
        if (before, *answers) == (Answers::Flow, Answers::Wait) {
            self.shared.counters.answer_pauses.add(1);
        }
        let reading = self.parked.is_none() && *answers == Answers::Flow;
        if reading && received.capacity() - received.len() < *read_size / 2 {
            received.reserve(*read_size);
        }
        let awaited = || self.session.open() + self.shared.queries.len();
        low_water.set(coalescing.asked(awaited));
        let outbox = self.session.outbox();
        let queue = &self.shared.queue;
        let idle = self.idle;
        let mut yielding = pin!(tokio::task::yield_now());
        let mut slept = false;
        poll_fn(|context| {
            let mut turn = Turn::default();
            // What the program has put in meanwhile is not to wait for a look at everything else.
            if std::mem::replace(&mut slept, true)
                && outbox.is_empty()
                && queue.poll_work(context).is_ready()
            {
                turn.told = true;
                return Poll::Ready(Ok(turn));
            }
            if !outbox.is_empty()
                && let Poll::Ready(result) = write_once(outbox, stream, context)
            {
                turn.written = result?;
                *needs_flush = true;
            } else if outbox.is_empty()
                && *needs_flush
                && let Poll::Ready(result) = Pin::new(&mut *stream).poll_flush(context)
            {
                result?;
                *needs_flush = false;
            }
            if reading {
                match poll_read(stream, received, context) {
                    Poll::Ready(result) => {
                        turn.read = Some(result?);
                    }
                    Poll::Pending => *arrival = Arrival::Waited,
                }
            }
            // The next turn begins with a look at the queue and at the clock.
            if turn.written > 0 || turn.read.is_some() {
                return Poll::Ready(Ok(turn));
            }
            turn.told = queue.poll_work(context).is_ready();
            if turn.told || timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(turn));
            }
            if idle == Idle::LooksAgain && yielding.as_mut().poll(context).is_ready() {
                turn.yielded = true;
                return Poll::Ready(Ok(turn));
            }
            Poll::Pending
        })
        .await
        .map_err(Disconnected::from_io)
    }

    /// So many bytes were read.
    pub(super) fn has_read(
        &self,
        socket: &mut Socket,
        count: usize,
        now: std::time::Instant,
    ) -> Result<(), Disconnected> {
        if count == 0 {
            return Err(Disconnected::Closed);
        }
        self.shared.counters.bytes_in.add(count as u64);
        self.shared.counters.reads.add(1);
        let arrival = std::mem::replace(&mut socket.arrival, Arrival::Next);
        socket.coalescing.read(count, arrival, now);
        let left = socket.received.capacity() - socket.received.len();
        let next = if left == 0 {
            socket.read_size * 2
        } else if count < (count + left) / 4 {
            socket.read_size / 2
        } else {
            socket.read_size
        };
        socket.read_size = next.clamp(*READ_BYTES.start(), *READ_BYTES.end());
        Ok(())
    }

    pub(super) fn has_written(&mut self, count: usize, now: std::time::Instant) {
        self.shared.counters.bytes_out.add(count as u64);
        self.session.wrote(now);
        let written = self.session.outbox().written();
        while let Some((mark, _)) = self.unwritten.front()
            && *mark <= written
        {
            let done = self.unwritten.pop_front().and_then(|(_, done)| done);
            self.succeeded.extend(done);
        }
        self.shared.queue.outcomes().succeed(&mut self.succeeded);
    }
}

/// As `read_buf`, which would keep the stream from being written to meanwhile.
fn poll_read(
    stream: &mut Stream,
    into: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    pin!(stream.read_buf(into)).poll(context)
}

/// Lets those that have been handed something run before what is left of this turn: with one thread they cannot
/// otherwise, and what is left, a write above all, takes longer than all they wait for. With several threads it would
/// wake another one.
pub(super) async fn receivers_first() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What happened in one turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) written: usize,
    /// Bytes, or nothing was read.
    pub(super) read: Option<usize>,
    /// The queue has something.
    pub(super) told: bool,
    /// Everything else that could run has had its turn.
    pub(super) yielded: bool,
}
