//! A recorded stream as a script: who says what next, and when a side closes.
//!
//! [`Turns`] is pure: batches of segments go in, steps come out, one batch at a time. [`Script`] feeds it from the store.
//! What one side says until the other one speaks is given as one piece (up to [`JOIN_BYTES`]) for the side that is
//! compared, and as it passed for the side that is spoken. A stream of which something is missing is refused.

mod ignore;
mod hex;
mod shelf;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::record::{Direction, NotInflated, Record, RecordId, Segment, SegmentBatch, Stream};
use crate::store;

pub(super) use hex::dump;
pub use ignore::{Ignore, IgnoreRule, InvalidPattern};
pub(super) use shelf::Shelf;

/// How many bytes that were said in one go are looked at together, at most.
pub(super) const JOIN_BYTES: usize = 64 << 10;

/// Why a stream cannot be played back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("only a part of the stream was kept")]
    Truncated,
    #[error("no connection to the service was made then")]
    NoService,
    #[error(
        "it followed the upgrade that an HTTP exchange asked for: it is played back with that one"
    )]
    Upgraded,
    #[error("what followed the upgrade is no WebSocket, or broke its protocol")]
    Unframed,
    #[error("a message of it is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("a message of it cannot be inflated")]
    NotInflated(#[source] NotInflated),
    #[error("batch {index} of its segments has not arrived, or is gone")]
    Missing { index: u32 },
    #[error("its segments are not the bytes that its record tells of")]
    Inconsistent,
    #[error("it is no longer in the store")]
    Gone,
    #[error("its segments cannot be read")]
    Store(#[from] store::Error),
}

/// What happens next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// One side says something.
    Said(Piece),
    /// One side closes; it says no more.
    Closed { by: Direction, at_us: u64 },
    /// Nothing any more: the connection was gone.
    End,
}

/// Bytes of one side that passed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: Direction,
    /// Where it stands in all that its side says, from 0.
    pub(super) offset: u64,
    /// From the stream's start to its first segment, microseconds.
    pub(super) at_us: u64,
    /// To its last segment.
    pub(super) last_us: u64,
    pub(super) bytes: Bytes,
    /// What of it may be anything: sorted, apart from each other.
    pub(super) ignored: Vec<Range<usize>>,
}

impl Step {
    /// Whose step it is.
    pub(super) const fn by(&self) -> Option<Direction> {
        match self {
            Self::Said(piece) => Some(piece.from),
            Self::Closed { by, .. } => Some(*by),
            Self::End => None,
        }
    }

    /// When it was over, microseconds since the stream's start.
    pub(super) const fn at_us(&self) -> Option<u64> {
        match self {
            Self::Said(piece) => Some(piece.last_us),
            Self::Closed { at_us, .. } => Some(*at_us),
            Self::End => None,
        }
    }
}

impl Piece {
    /// The first place from `done` on at which `got` is not what is expected.
    pub(super) fn difference(&self, done: usize, got: &[u8]) -> Option<usize> {
        let expected = &self.bytes[done..];
        let mut differing = expected
            .iter()
            .zip(got)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(at, _)| done + at);
        let is_ignored = |at: usize| {
            let after = self.ignored.partition_point(|range| range.start <= at);
            after > 0 && self.ignored[after - 1].contains(&at)
        };
        differing.find(|at| !is_ignored(*at))
    }
}

/// What [`Turns::next`] comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Step(Step),
    /// This batch has to be supplied first.
    Needs(u32),
}

/// Puts a stream's steps together from its batches.
#[derive(Debug)]
pub(super) struct Turns {
    batches: u32,
    supplied: u32,
    queue: VecDeque<Segment>,
    /// How many segments of the queue are known to belong to the next piece, and their bytes.
    scanned: (usize, usize),
    /// How many bytes each side has said so far.
    said: [u64; 2],
    total: [u64; 2],
    closed: [bool; 2],
    /// The side whose segments are put together.
    joined: Direction,
    ignore: Arc<Ignore>,
}

const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Client => 0,
        Direction::Server => 1,
    }
}

impl Turns {
    /// For a stream of which everything was kept; `joined` is the side that is compared.
    pub(super) fn new(
        stream: &Stream,
        joined: Direction,
        ignore: Arc<Ignore>,
    ) -> Result<Self, Unfit> {
        if stream.exchange.is_some() {
            return Err(Unfit::Upgraded);
        }
        if stream.truncated {
            return Err(Unfit::Truncated);
        }
        if stream.upstream.is_none() {
            return Err(Unfit::NoService);
        }
        Ok(Self {
            batches: stream.batches,
            supplied: 0,
            queue: VecDeque::new(),
            scanned: (0, 0),
            said: [0; 2],
            total: [stream.client_bytes, stream.server_bytes],
            closed: [false; 2],
            joined,
            ignore,
        })
    }

    /// The batch that was asked for.
    pub(super) fn supply(&mut self, batch: &SegmentBatch) {
        self.supplied += 1;
        self.queue.extend(batch.segments.iter().cloned());
    }

    /// The next step, or the batch that it takes.
    pub(super) fn next(&mut self) -> Result<Next, Unfit> {
        loop {
            let Some(first) = self.queue.front() else {
                if self.supplied < self.batches {
                    return Ok(Next::Needs(self.supplied));
                }
                if self.said != self.total {
                    return Err(Unfit::Inconsistent);
                }
                return Ok(Next::Step(Step::End));
            };
            let (from, at_us) = (first.direction, first.offset_us);
            if first.missing > 0 {
                return Err(Unfit::Truncated);
            }
            if self.closed[side(from)] && !first.bytes.is_empty() {
                return Err(Unfit::Inconsistent);
            }
            if first.bytes.is_empty() {
                self.queue.pop_front();
                if std::mem::replace(&mut self.closed[side(from)], true) {
                    continue;
                }
                return Ok(Next::Step(Step::Closed { by: from, at_us }));
            }
            let Some(count) = self.run(from) else {
                return Ok(Next::Needs(self.supplied));
            };
            return self
                .piece(from, count)
                .map(|piece| Next::Step(Step::Said(piece)));
        }
    }

    /// How many segments belong to the piece that begins here; `None` where that is not known yet.
    fn run(&mut self, from: Direction) -> Option<usize> {
        if from != self.joined {
            return Some(1);
        }
        loop {
            let (count, bytes) = self.scanned;
            let Some(segment) = self.queue.get(count) else {
                return (self.supplied == self.batches).then_some(count);
            };
            let goes_on = segment.direction == from
                && !segment.bytes.is_empty()
                && segment.missing == 0
                && bytes + segment.bytes.len() <= JOIN_BYTES;
            if count > 0 && !goes_on {
                return Some(count);
            }
            self.scanned = (count + 1, bytes + segment.bytes.len());
        }
    }

    fn piece(&mut self, from: Direction, count: usize) -> Result<Piece, Unfit> {
        self.scanned = (0, 0);
        let segments: Vec<Segment> = self.queue.drain(..count).collect();
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(Unfit::Inconsistent);
        };
        let (at_us, last_us) = (first.offset_us, last.offset_us);
        let bytes = match segments.as_slice() {
            [one] => one.bytes.clone(),
            several => {
                let mut joined = BytesMut::new();
                several
                    .iter()
                    .for_each(|s| joined.extend_from_slice(&s.bytes));
                joined.freeze()
            }
        };
        let said = &mut self.said[side(from)];
        let offset = *said;
        *said += bytes.len() as u64;
        if *said > self.total[side(from)] {
            return Err(Unfit::Inconsistent);
        }
        Ok(Piece {
            from,
            offset,
            at_us,
            last_us,
            ignored: self.ignore.ranges(from, offset, &bytes),
            bytes,
        })
    }
}

/// Where the batches of streams are.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// A batch of a stream's segments; waits up to `patience` for one that has not arrived.
    async fn batch(
        &self,
        id: RecordId,
        index: u32,
        patience: Duration,
    ) -> Result<Arc<SegmentBatch>, Unfit>;
}

/// A stream's steps, read as they are wanted.
pub(super) struct Script {
    stream: Arc<Stream>,
    turns: Turns,
    source: Arc<dyn Source>,
    /// How long to wait for a batch that has not arrived.
    patience: Duration,
}

impl Script {
    pub(super) fn new(
        stream: Arc<Stream>,
        joined: Direction,
        ignore: Arc<Ignore>,
        source: Arc<dyn Source>,
        patience: Duration,
    ) -> Result<Self, Unfit> {
        Ok(Self {
            turns: Turns::new(&stream, joined, ignore)?,
            stream,
            source,
            patience,
        })
    }

    pub(super) const fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// How many bytes are held of it.
    pub(super) fn held(&self) -> usize {
        let segments = self.turns.queue.iter();
        segments.map(|s| s.bytes.len() + size_of::<Segment>()).sum()
    }

    /// How many bytes of a side there were in the steps so far.
    pub(super) const fn said(&self, from: Direction) -> u64 {
        self.turns.said[side(from)]
    }

    pub(super) async fn next(&mut self) -> Result<Step, Unfit> {
        loop {
            match self.turns.next()? {
                Next::Step(step) => return Ok(step),
                Next::Needs(index) => {
                    let batch = self.source.batch(self.stream.id, index, self.patience);
                    self.turns.supply(&*batch.await?);
                }
            }
        }
    }
}

/// The stream with this id; `None` where the record is none.
fn stream_of(record: Record) -> Option<Arc<Stream>> {
    match record {
        Record::Stream(stream) => Some(Arc::from(stream)),
        Record::Exchange(_) => None,
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id: RecordId = self.stream.id;
        f.debug_struct("Script")
            .field("id", &id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
