//! Where a player keeps what arrives: one trait, an embedded and a Redis backend, one contract for both.
//!
//! A batch and the coverage that it settles are committed together, so that what was acknowledged to the
//! broker is what a restart finds. An insert of an id that is there changes nothing: duplicates, resends and
//! two writers are harmless. Matching and replay live elsewhere.

mod query;
mod error;
mod metrics;
mod stored;
mod settled;
mod pieces;
pub mod embedded;
pub mod redis;
#[cfg(test)]
mod contract;

use async_trait::async_trait;
use bytes::Bytes;

use crate::record::{
    Coverage, Epoch, Fingerprint, Item, Keyring, NodeId, Record, RecordId, SegmentBatch, Side, wire,
};

pub use error::Error;
pub use metrics::Metrics;
pub use pieces::{Completeness, Pieces, all_there, completeness, pieces_of};
pub use query::{Cursor, Filter, InvalidCursor, Order, Page, Query, StatusFilter, Summary};

/// An item as it arrived, with the fingerprint under which it will be looked up.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The item and its wire bytes, which are what is kept.
    pub decoded: wire::Decoded,
    /// The request's fingerprint, or that of a service's streams; `None` for what is no record.
    pub fingerprint: Option<Fingerprint>,
}

/// The coverage of one recorder epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The recorder.
    pub node: NodeId,
    /// Its life.
    pub epoch: Epoch,
    /// What of its sequence is settled.
    pub coverage: Coverage,
}

/// What a player has settled of one recorder epoch since its last commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The recorder.
    pub node: NodeId,
    /// Its life.
    pub epoch: Epoch,
    /// What arrived.
    pub arrived: Coverage,
    /// What the recorder said it dropped.
    pub dropped: Coverage,
    /// What nobody has any more.
    pub lost: Coverage,
}

impl News {
    /// No news of this life yet.
    #[must_use]
    pub fn of(node: NodeId, epoch: Epoch) -> Self {
        Self {
            node,
            epoch,
            arrived: Coverage::default(),
            dropped: Coverage::default(),
            lost: Coverage::default(),
        }
    }
}

/// What is committed at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What arrived, in order.
    pub arrivals: Vec<Arrival>,
    /// The new coverage of each epoch that the batch touches. A store with one writer puts it in the place of the old.
    pub settled: Vec<Settled>,
    /// What is new in each of these. A store that several players fill adds it to what is there, so that none undoes what
    /// another one settled.
    pub news: Vec<News>,
    /// Lives whose coverage is of no more use.
    pub forgotten: Vec<(NodeId, Epoch)>,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Records that were not there before.
    pub records: u64,
    /// Chunks and segment batches that were not there before.
    pub pieces: u64,
    /// Items that were there already.
    pub duplicates: u64,
    /// The store knows less of some life than the batch's coverage says: it has lost what it had, and nobody saw it away.
    pub behind: bool,
}

/// What one run of retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Records that can no longer be found.
    pub records: u64,
    /// Bytes given back.
    pub bytes: u64,
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records that can be listed.
    pub records: u64,
    /// Bytes in use on disk or in Redis, as far as the backend knows.
    pub bytes: u64,
    /// Start of the oldest record, microseconds since the Unix epoch.
    pub oldest_us: Option<i64>,
}

/// The item in stored bytes, opened where it is sealed; `name` says which in an error.
fn open(raw: &Bytes, keys: &Keyring, name: impl Fn() -> String) -> Result<Item, Error> {
    let corrupt = |source| Error::Corrupt {
        key: name(),
        source: Box::new(source),
    };
    match wire::open(wire::decode_one(raw).map_err(corrupt)?, keys) {
        (decoded, None) => Ok(decoded.item),
        (_, Some(source)) => Err(Error::Sealed {
            key: name(),
            source,
        }),
    }
}

/// A place for records, shared by all who read and write them.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits a batch, all or nothing as far as a reader can tell; when it returns, what it holds survives
    /// the end of this process.
    ///
    /// # Errors
    /// [`Error`] where nothing of it may be acknowledged; the same batch can be put again.
    async fn put(&self, batch: Batch) -> Result<Receipt, Error>;

    /// The record with this id.
    async fn get(&self, id: RecordId) -> Result<Option<Record>, Error>;

    /// Removes a record with its chunks and segments; tells whether it was there.
    async fn delete(&self, id: RecordId) -> Result<bool, Error>;

    /// One page of records by start time, filtered, newest or oldest first.
    async fn list(&self, query: &Query) -> Result<Page, Error>;

    /// Up to `limit` records with this fingerprint, in the order in which their source saw them.
    async fn lookup(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error>;

    /// Up to `limit` of the newest records with this fingerprint, whichever source saw them, largest id first.
    /// Of requests that overlapped, newer may be the one that began later or the one that ended later.
    async fn newest(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error>;

    /// One chunk of a body; `None` where it has not arrived or is gone.
    async fn chunk(&self, id: RecordId, side: Side, index: u32) -> Result<Option<Bytes>, Error>;

    /// One batch of a stream's segments; `None` where it has not arrived or is gone.
    async fn segments(&self, id: RecordId, index: u32) -> Result<Option<SegmentBatch>, Error>;

    /// The first of the `count` pieces of a record that has not arrived or is gone; `None` where all are there.
    ///
    /// As it stands here it reads each of them.
    async fn first_missing(
        &self,
        id: RecordId,
        of: Pieces,
        count: u32,
    ) -> Result<Option<u32>, Error> {
        for index in 0..count {
            let there = match of {
                Pieces::Body(side) => self.chunk(id, side, index).await?.is_some(),
                Pieces::Segments => self.segments(id, index).await?.is_some(),
            };
            if !there {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// The coverage of every known recorder epoch, as last committed.
    async fn settled(&self) -> Result<Vec<Settled>, Error>;

    /// Applies retention by age and by bytes, as configured, with `now_us` for the present
    /// (microseconds since the Unix epoch).
    async fn expire(&self, now_us: i64) -> Result<Expired, Error>;

    /// How full it is.
    async fn stats(&self) -> Result<Stats, Error>;

    /// Makes all that was put durable and releases what is held; a later call may fail.
    async fn close(&self) -> Result<(), Error>;
}
