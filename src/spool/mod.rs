//! The recorder's disk queue: what was captured waits here until the broker has it, and can be sent again.
//!
//! ```text
//! capture --append--> log on disk ---------> reader (in order, from the acknowledged place on) --> publisher
//!                 `-> newest few MiB in memory -^                 range (any epoch, any numbers) --> resend
//! ```
//!
//! It is a ring: over its limits the oldest files go. What was not sent by then is counted, and the reader
//! meets a gap in its place, so that players learn of it. A place counts as sent once the reader gave it out:
//! from then on it is the publisher's, which holds it until the broker has it. But brokers drop as well: what the limits
//! remove before a player said that it has it is called dropped, too, and counted, once a player turns out to lack it.
//!
//! The acknowledged place is kept in `state.json`, written at most once a second: losing the last second of
//! it only makes duplicates.

mod error;
mod metrics;
mod message;
mod tail;
mod given_up;
mod paced_sum;
mod ledger;
mod state;
mod queue;
mod reader;
mod keeper;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::record::{Epoch, NodeId, Sequence, SequenceRange};
pub use crate::segment::Fsync;

pub use error::Error;
pub use message::Message;
pub use metrics::Metrics;
pub use reader::Reader;

use keeper::Keeper;
use queue::Shared;

/// How a spool is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory; made if it is not there.
    pub dir: PathBuf,
    /// This recorder's name, for the gaps it reports.
    pub node: NodeId,
    /// What all files together may take; up to one file more for a moment.
    pub max_bytes: u64,
    /// How long messages are kept, sent or not; up to `rotate_after` longer.
    pub max_age: Duration,
    /// The size of one file, lowered to an eighth of `max_bytes` where that is less.
    pub segment_bytes: u64,
    /// The time after which a file is sealed.
    pub rotate_after: Duration,
    /// When data is forced onto the disk.
    pub fsync: Fsync,
    /// How much of the newest is kept in memory for the reader.
    pub tail_bytes: usize,
}

impl Config {
    /// The smallest `max_bytes`.
    pub const MIN_MAX_BYTES: u64 = 64 << 10;

    /// The defaults: 4 GiB, 24 hours, files of 16 MiB or one hour, fsync once a second, 4 MiB in memory. The entries of the
    /// file that is written are in memory until it is full, so files are small.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, node: NodeId) -> Self {
        Self {
            dir: dir.into(),
            node,
            max_bytes: 4 << 30,
            max_age: Duration::from_secs(24 * 3600),
            segment_bytes: 16 << 20,
            rotate_after: Duration::from_secs(3600),
            fsync: Fsync::Interval(Duration::from_secs(1)),
            tail_bytes: 4 << 20,
        }
    }
}

/// What a spool has of a range that was asked for again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resend {
    /// What is there, in order, and a gap for what a limit removed unsent. A gap message may start before the range
    /// or end behind it.
    pub messages: Vec<Message>,
    /// Numbers that are gone for good.
    pub gone: Vec<SequenceRange>,
    /// What was not looked at because a limit was reached: ask again for this.
    pub rest: Option<SequenceRange>,
}

/// How full a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Sequence numbers that are not acknowledged and not dropped.
    pub unsent: u64,
    /// The first of them.
    pub oldest_unsent: Option<(Epoch, Sequence)>,
    /// The life of this recorder.
    pub epoch: Epoch,
    /// The largest number in it so far; 0 where there is none.
    pub highest: Sequence,
}

/// The disk queue; clones share it. It is closed when the last of them and the last reader are gone.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Ends its thread when dropped.
    _keeper: Keeper,
}

impl Spool {
    /// The most that one [`Spool::range`] answers with.
    pub const MAX_RESEND_BYTES: usize = 8 << 20;

    /// Opens the spool in `config.dir` and begins a new epoch: the present time in milliseconds since the
    /// Unix epoch, or more where an earlier one was not smaller.
    ///
    /// # Errors
    /// [`Error`] where the directory cannot be used or is in use, [`Error::Node`] where another node left
    /// something unsent in it. What that node sent is left to expire and is never offered.
    pub fn open(config: Config, metrics: Metrics) -> Result<Self, Error> {
        let shared = Arc::new(Shared::open(config, metrics)?);
        let keeper = Keeper::start(&shared)?;
        Ok(Self(Arc::new(Inner {
            shared,
            _keeper: keeper,
        })))
    }

    /// The life of this recorder that began when the spool was opened.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.shared.epoch
    }

    /// Appends messages of this epoch in the order of their numbers; one write. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error`]; then none of them was appended, and the caller drops them with a counted reason.
    pub fn append(&self, messages: &[Message]) -> Result<(), Error> {
        self.0.shared.append(messages)
    }

    /// Reads on from the acknowledged place, messages of earlier epochs first. One at a time: a new reader
    /// takes over from the one before and gives out again what was not acknowledged.
    ///
    /// # Errors
    /// [`Error::Log`] where the disk refuses.
    pub fn reader(&self) -> Result<Reader, Error> {
        Reader::new(Arc::clone(&self.0))
    }

    /// Everything up to this number (of a gap message, its [`Message::last`]) has been delivered.
    pub fn acknowledge(&self, epoch: Epoch, seq: Sequence) {
        self.0.shared.acknowledge(epoch, seq);
    }

    /// A player has settled everything of this epoch up to this number: if the limits remove it, that is no loss. An epoch
    /// of which nothing is known is ignored.
    pub fn confirm(&self, epoch: Epoch, seq: Sequence) {
        self.0.shared.confirm(epoch, seq);
    }

    /// What there is of a range of an epoch: at most `max_messages`, and [`Spool::MAX_RESEND_BYTES`] of them.
    /// Numbers of this epoch that were not appended yet are neither there nor gone.
    ///
    /// # Errors
    /// [`Error::Log`] where the disk refuses.
    pub fn range(
        &self,
        epoch: Epoch,
        range: SequenceRange,
        max_messages: usize,
    ) -> Result<Resend, Error> {
        self.0.shared.range(epoch, range, max_messages)
    }

    /// The largest number of an epoch; `None` where nothing of it is known.
    #[must_use]
    pub fn highest(&self, epoch: Epoch) -> Option<Sequence> {
        self.0.shared.highest(epoch)
    }

    /// The lives before this one of which something is still there, newest first and at most `limit`, each with
    /// its largest number.
    #[must_use]
    pub fn earlier_lives(&self, limit: usize) -> Vec<(Epoch, Sequence)> {
        self.0.shared.earlier_lives(limit)
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    /// Applies the limits, as a thread of the spool does by itself whenever a file is full and once a second.
    ///
    /// # Errors
    /// [`Error`] where the disk refuses; the next run tries again.
    pub fn expire(&self, now: SystemTime) -> Result<(), Error> {
        self.0.shared.expire(now)
    }

    /// Forces messages and the acknowledged place onto the disk.
    ///
    /// # Errors
    /// [`Error`] where the disk refuses.
    pub fn flush(&self) -> Result<(), Error> {
        self.0.shared.save_state()?;
        Ok(self.0.shared.log.sync()?)
    }
}

#[cfg(test)]
mod tests;
