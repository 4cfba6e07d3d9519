//! The segment log: append-only files under both the recorder's spool and the embedded store.
//!
//! It knows no protocol: an entry is a kind, a 128-bit id, a 128-bit fingerprint, a small meta and a payload.
//! A batch is one `write` and atomic: after a crash it is there whole or not at all. Nothing is updated in
//! place; retention unlinks whole files, oldest first, so that expiry gives disk back at once and never stalls
//! a writer.
//!
//! ```text
//! directory   lock  0000000000000001.seg  0000000000000001.idx  0000000000000002.seg ...   the last .seg is active
//! .seg        header (32 bytes)  frame  frame ...
//! frame       magic 4 | crc of what follows up to the payload 4 | crc of the payload 4 | left 4 | meta length 4 |
//!             payload length 4 | kind 1 | flags 1 | 0 0 | id 16 | fingerprint 16 | meta | payload
//! .idx        the sidecar of a sealed file: where each entry stands, all metas, a Bloom filter
//! ```
//!
//! Numbers are little-endian. `left` counts down to 0 within a batch: a batch counts once its 0 is there. The
//! checksum over the head makes it safe to make a sidecar again without reading payloads.
//!
//! Memory: about 200 bytes and the meta of each entry of the active file, and of at most three that are being
//! sealed; of a sealed one an open file and some hundred bytes. Sidecars are mapped: the system keeps of them
//! what is asked for and takes it back when memory is short.

mod error;
mod files;
mod map;
mod frame;
mod bloom;
mod scan;
mod sidecar;
mod rows;
mod archive;
mod index;
mod recover;
mod log;
mod seal;
mod page;
mod read;
mod retain;
mod backup;
mod upkeep;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub use backup::Backup;
pub use error::Error;
pub use frame::encoded_len;
pub use log::Log;

/// The longest meta of one entry.
pub const MAX_META_BYTES: usize = u16::MAX as usize;
/// The longest payload of one entry.
pub const MAX_PAYLOAD_BYTES: usize = 256 << 20;
/// The most that one batch may take in its file.
pub const MAX_BATCH_BYTES: usize = 1 << 30;
/// The largest `segment_bytes` that is allowed; places in a file are kept in 32 bits.
pub const MAX_SEGMENT_BYTES: u64 = 2 << 30;

/// When appended data is forced onto the disk; the end of the process alone never loses any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before an append returns.
    Always,
    /// By a thread of the log, this often while there is something new: what a power cut can cost.
    Interval(Duration),
    /// When the system sees fit.
    Never,
}

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory; made if it is not there.
    pub dir: PathBuf,
    /// A file is sealed before it grows over this; only a batch that alone is larger makes a larger file.
    pub segment_bytes: u64,
    /// A file is sealed at the first append after this time.
    pub rotate_after: Duration,
    /// When data is forced onto the disk.
    pub fsync: Fsync,
}

impl Config {
    /// The defaults: 64 MiB or one hour per file, fsync once a second.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            rotate_after: Duration::from_secs(3600),
            fsync: Fsync::Interval(Duration::from_secs(1)),
        }
    }
}

/// What an entry does where its kind and id are known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Nothing: what is there stays, and what was deleted stays deleted.
    Insert,
    /// It takes the place of what is there. Retention carries it forward, so it stays until deleted.
    Replace,
}

/// One thing to append.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Whose ids these are; any number.
    pub kind: u8,
    /// What to do where the id is known.
    pub write: Write,
    /// Its name within its kind; scans run in this order.
    pub id: u128,
    /// By what [`Log::find`] finds it; 0 for nothing.
    pub fingerprint: u128,
    /// What scans show; at most [`MAX_META_BYTES`].
    pub meta: &'a [u8],
    /// The rest; at most [`MAX_PAYLOAD_BYTES`].
    pub payload: &'a [u8],
}

/// A place in the log; grows with every append, over restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The file's number, from 1.
    pub segment: u64,
    /// The byte in it.
    pub offset: u64,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where the first written entry starts; [`Appended::end`] where none was written.
    pub at: Position,
    /// The log's end behind the batch.
    pub end: Position,
    /// Which entries of the batch were known and thus not written, by their place in it.
    pub known: Vec<usize>,
}

/// An entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: u8,
    /// Its id.
    pub id: u128,
    /// Its fingerprint; 0 for none.
    pub fingerprint: u128,
    /// Its meta.
    pub meta: Bytes,
    /// Its payload.
    pub payload: Bytes,
    /// Where it starts.
    pub position: Position,
}

/// What [`Log::scan`] shows of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// Its id.
    pub id: u128,
    /// Its fingerprint; 0 for none.
    pub fingerprint: u128,
    /// Its meta.
    pub meta: &'a [u8],
    /// Where it starts.
    pub position: Position,
}

/// Which way a scan runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Largest id first.
    Newest,
    /// Smallest id first.
    Oldest,
}

/// The ids that a scan looks at.
pub type Ids = RangeInclusive<u128>;

/// What [`Log::read_from`] read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Live entries in the order in which they were appended.
    pub entries: Vec<Found>,
    /// Where to go on.
    pub next: Position,
    /// Bytes that could not be read and were passed over.
    pub skipped: u64,
}

/// What may be removed; every limit that is set is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// All files together take at most this; the active file stays whatever its size.
    pub max_bytes: Option<u64>,
    /// Files that were last written before this moment go, the active one too.
    pub older_than: Option<SystemTime>,
}

/// What retention removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Files.
    pub segments: u64,
    /// Bytes given back.
    pub bytes: u64,
    /// Live entries that went, by kind; without what was carried forward.
    pub entries: std::collections::BTreeMap<u8, u64>,
}

/// How full a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Files.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Entries that can be found, by kind.
    pub entries: std::collections::BTreeMap<u8, u64>,
    /// When the oldest file was begun.
    pub oldest: SystemTime,
    /// How often forcing data onto the disk failed since the log was opened.
    pub sync_failures: u64,
    /// How often the index of a sealed file could not be written since the log was opened.
    pub seal_failures: u64,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Files.
    pub segments: u64,
    /// Bytes of a last batch that was not written whole; they were cut off and had not been acknowledged.
    pub cut_bytes: u64,
    /// Sealed files whose index was missing, damaged or of another format, and was made again.
    pub reindexed: u64,
    /// Whatever could not be read. It was left or copied aside, never deleted.
    pub damage: Vec<Damage>,
}

/// A part of a file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where the bytes are now.
    pub path: PathBuf,
    /// Where in its segment file the damage starts; entries before it can be read.
    pub offset: u64,
    /// How many bytes cannot be read.
    pub bytes: u64,
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;
