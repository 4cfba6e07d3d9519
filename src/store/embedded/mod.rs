//! The store of one player, on its own disk: the segment log with a schema.
//!
//! | kind | id | meta | payload |
//! |---|---|---|---|
//! | record | the record's | its summary | its wire bytes |
//! | chunk, segments | XXH3-128 of record, side and index | | wire bytes |
//! | coverage | XXH3-128 of node and epoch | node and epoch | the coverage; the latest replaces those before |
//!
//! A batch and its coverage are one append, so both are there after a crash or neither is. Files are read and
//! written on the runtime's threads for blocking work. Age hides records at once; the log gives their space
//! back file by file.

mod backups;
mod read;
mod retention;
mod sequence;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::sequence::Orders;
use super::{Batch, Error, Expired, Metrics, Page, Pieces, Query, Receipt, Settled, Stats, Store};
use crate::record::{Fingerprint, Keyring, Record, RecordId, SegmentBatch, Side};
use crate::segment::{self, Log};

pub use self::backups::{BackupError, Backups, MAX_BACKUPS, Made};
pub use crate::segment::{Backup, Fsync};

/// Kinds of entries in the log.
mod kind {
    pub(super) const RECORD: u8 = 1;
    pub(super) const CHUNK: u8 = 2;
    pub(super) const SEGMENTS: u8 = 3;
    pub(super) const COVERAGE: u8 = 4;
}

/// Where the store is and what it keeps.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory; made if it is not there.
    pub path: PathBuf,
    /// Records that started longer ago are hidden, and removed with their file. `None`: never.
    pub max_age: Option<Duration>,
    /// The files together take at most about this; the oldest go first. `None`: no limit.
    pub max_bytes: Option<u64>,
    /// When data is forced onto the disk; the end of the process alone never loses any.
    pub fsync: Fsync,
    /// How large one file gets: also the step in which space is given back.
    pub segment_bytes: u64,
    /// After which time a file is sealed, so that it can go by age.
    pub rotate_after: Duration,
    /// How many entries one listing looks at before it hands out a short page.
    pub scan_limit: usize,
    /// The keys that open what is sealed.
    pub keys: Arc<Keyring>,
}

impl Config {
    /// The defaults: 24 h, 10 GiB, fsync once a second, files of 64 MiB or one hour.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let log = segment::Config::new(path.clone());
        Self {
            path,
            max_age: Some(Duration::from_hours(24)),
            max_bytes: Some(10 << 30),
            fsync: log.fsync,
            segment_bytes: log.segment_bytes,
            rotate_after: log.rotate_after,
            scan_limit: 100_000,
            keys: Arc::default(),
        }
    }
}

/// A store in a directory. Cheap to clone; all clones are the same store.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Taken out by `close`.
    open: RwLock<Option<Arc<Open>>>,
    metrics: Metrics,
    config: Config,
}

/// An open store; its methods block.
#[derive(Debug)]
struct Open {
    log: Log,
    config: Config,
    metrics: Metrics,
    /// Records that started in a millisecond before this are hidden by age.
    hidden_before_ms: AtomicU64,
    /// How many records are hidden, but still in a file; counted anew whenever retention runs.
    hidden: AtomicU64,
    /// Failures of the log's own thread that are counted already.
    disk_failures: AtomicU64,
    orders: Mutex<Orders>,
}

impl Embedded {
    /// Opens the store and hides what is too old. Blocks while it reads the index of the log.
    ///
    /// # Errors
    /// [`Error::Io`] where the directory cannot be used or is in use, [`Error::Full`], and [`Error::Corrupt`]
    /// where a newer program wrote it.
    pub fn open(config: Config, metrics: Metrics) -> Result<Self, Error> {
        let log = segment::Config {
            dir: config.path.clone(),
            segment_bytes: config.segment_bytes,
            rotate_after: config.rotate_after,
            fsync: config.fsync,
        };
        let (log, recovery) = Log::open(log).map_err(|error| failure(&config, error))?;
        if recovery.cut_bytes > 0 {
            tracing::warn!(
                bytes = recovery.cut_bytes,
                "cut off a batch that was not written whole"
            );
        }
        if recovery.reindexed > 0 {
            tracing::warn!(
                files = recovery.reindexed,
                "made the index of sealed files again"
            );
        }
        metrics.reindexed.inc_by(recovery.reindexed);
        for damage in &recovery.damage {
            let (path, offset) = (damage.path.display(), damage.offset);
            tracing::error!(%path, offset, bytes = damage.bytes, "a part of the store cannot be read");
        }
        let open = Open {
            log,
            config: config.clone(),
            metrics: metrics.clone(),
            hidden_before_ms: AtomicU64::new(0),
            hidden: AtomicU64::new(0),
            disk_failures: AtomicU64::new(0),
            orders: Mutex::default(),
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX);
        open.hide_old(now);
        open.count_hidden();
        Ok(Self(Arc::new(Shared {
            open: RwLock::new(Some(Arc::new(open))),
            metrics,
            config,
        })))
    }

    /// Makes `dir` a store of its own that holds what this one holds at one moment, without copying it: the files
    /// get a second name, and take no more room until they expire here. `dir` is made, or is there and empty, and
    /// lies on the same file system.
    ///
    /// # Errors
    /// [`Error::Io`] where `dir` holds something, cannot be used or lies elsewhere, [`Error::Full`],
    /// [`Error::Closed`]; then `dir` is left without any file of ours.
    pub async fn backup(&self, dir: PathBuf) -> Result<Backup, Error> {
        self.blocking(move |open| open.log.backup(&dir).map_err(|e| open.failed(e)))
            .await
    }

    /// Runs what blocks on a thread for it, and counts its failure.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Open) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let open = self.0.open.read().clone();
        let result = match open {
            None => Err(Error::Closed),
            Some(open) => match tokio::task::spawn_blocking(move || work(&open)).await {
                Ok(result) => result,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                // The runtime shuts down.
                Err(_) => Err(Error::Closed),
            },
        };
        result.map_err(|error| self.0.metrics.failed(error))
    }
}

#[async_trait]
impl Store for Embedded {
    async fn put(&self, batch: Batch) -> Result<Receipt, Error> {
        let receipt = self.blocking(move |open| open.commit(&batch)).await?;
        self.0.metrics.committed(&receipt);
        Ok(receipt)
    }

    async fn get(&self, id: RecordId) -> Result<Option<Record>, Error> {
        self.blocking(move |open| open.record(id)).await
    }

    async fn delete(&self, id: RecordId) -> Result<bool, Error> {
        self.blocking(move |open| open.remove(id)).await
    }

    async fn list(&self, query: &Query) -> Result<Page, Error> {
        let query = query.clone();
        self.blocking(move |open| Ok(open.page(&query))).await
    }

    async fn lookup(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.blocking(move |open| Ok(open.find_all(fingerprint, limit)))
            .await
    }

    async fn newest(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.blocking(move |open| Ok(open.newest_of_all(fingerprint, limit)))
            .await
    }

    async fn chunk(&self, id: RecordId, side: Side, index: u32) -> Result<Option<Bytes>, Error> {
        self.blocking(move |open| open.chunk(id, side, index)).await
    }

    async fn segments(&self, id: RecordId, index: u32) -> Result<Option<SegmentBatch>, Error> {
        self.blocking(move |open| open.segments(id, index)).await
    }

    async fn first_missing(
        &self,
        id: RecordId,
        of: Pieces,
        count: u32,
    ) -> Result<Option<u32>, Error> {
        self.blocking(move |open| Ok(open.first_missing(id, of, count)))
            .await
    }

    async fn settled(&self) -> Result<Vec<Settled>, Error> {
        self.blocking(Open::settled).await
    }

    async fn expire(&self, now_us: i64) -> Result<Expired, Error> {
        self.blocking(move |open| open.expire(now_us)).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.blocking(|open| Ok(open.stats())).await
    }

    async fn close(&self) -> Result<(), Error> {
        let Some(open) = self.0.open.write().take() else {
            return Ok(());
        };
        let config = self.0.config.clone();
        let synced = tokio::task::spawn_blocking(move || open.log.sync()).await;
        match synced {
            Ok(Err(error)) => Err(self.0.metrics.failed(failure(&config, error))),
            _ => Ok(()),
        }
    }
}

impl Open {
    fn failed(&self, error: segment::Error) -> Error {
        failure(&self.config, error)
    }

    /// Whether age hides the record.
    fn is_hidden(&self, id: RecordId) -> bool {
        id.unix_millis() < self.hidden_before_ms.load(Relaxed)
    }

    /// The smallest id that age does not hide.
    fn first_visible(&self) -> u128 {
        u128::from(self.hidden_before_ms.load(Relaxed)) << 80
    }
}

/// What a failure of the log means to the caller.
fn failure(config: &Config, error: segment::Error) -> Error {
    match error {
        segment::Error::Full { .. } => {
            let path = config.path.display();
            Error::Full(format!("{path}: {error}"))
        }
        segment::Error::Io {
            action,
            path,
            source,
        } => Error::Io {
            action,
            path,
            source,
        },
        segment::Error::Damaged { ref path, offset } => Error::Corrupt {
            key: format!("{} at byte {offset}", path.display()),
            source: Box::new(error),
        },
        segment::Error::Version { ref path, .. } => Error::Corrupt {
            key: path.display().to_string(),
            source: Box::new(error),
        },
        segment::Error::TooLarge { .. } => Error::TooLarge {
            path: config.path.clone(),
            source: Box::new(error),
        },
        segment::Error::NotEmpty { ref path } => Error::Io {
            action: "back up into a directory that holds something",
            path: path.clone(),
            source: std::io::Error::new(std::io::ErrorKind::DirectoryNotEmpty, error),
        },
        segment::Error::Locked { .. } | segment::Error::SegmentBytes(_) => Error::Io {
            action: "use the directory",
            path: config.path.clone(),
            source: std::io::Error::other(error),
        },
    }
}

#[cfg(test)]
mod tests;
