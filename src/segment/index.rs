//! What is known in memory: the entries of the active file, and for each sealed one where its sidecar is.
//!
//! The lock around this is held for microseconds. Sidecars are searched after it is given back, over the
//! archive as it was, so that neither a reader nor the appender waits while a page comes from the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::Position;
use super::archive::Archive;
use super::files::File;
use super::frame::FILE_HEADER;
use super::retain::Taken;
use super::rows::{Counts, Key, OpenRows, Rows, Slot};

/// An open file; stays readable while anyone holds it, unlinked or not.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn File>,
    /// Whether something was written since the last sync.
    pub(super) dirty: AtomicBool,
}

/// One file of the log.
#[derive(Debug)]
pub(super) struct Segment<R> {
    pub(super) handle: Arc<Handle>,
    /// Up to here the file holds whole batches.
    pub(super) end: u64,
    /// What it takes on disk, with its sidecar.
    pub(super) bytes: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) created_ms: u64,
    pub(super) last_write: SystemTime,
    pub(super) seen: Seen,
    pub(super) rows: R,
}

/// How much of a file the rows stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Whole,
    /// The disk refused to read the rest; it may not do so the next time.
    Part,
}

/// A file that nothing is appended to.
pub(super) type Sealed = Segment<Rows>;
/// The file that grows.
pub(super) type Active = Segment<OpenRows>;

impl Active {
    /// A file with nothing in it but its header.
    pub(super) fn empty(handle: Handle, created_ms: u64) -> Self {
        Self {
            handle: Arc::new(handle),
            end: FILE_HEADER as u64,
            bytes: FILE_HEADER as u64,
            created_ms,
            last_write: super::recover::time(created_ms),
            seen: Seen::Whole,
            rows: OpenRows::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes <= FILE_HEADER as u64
    }
}

impl<R> Segment<R> {
    pub(super) fn number(&self) -> u64 {
        self.handle.number
    }

    /// The same file with other rows, which take `bytes` more on disk.
    pub(super) fn with<S>(self, rows: impl FnOnce(R) -> S, bytes: u64) -> Segment<S> {
        Segment {
            handle: self.handle,
            end: self.end,
            bytes: self.bytes + bytes,
            created_ms: self.created_ms,
            last_write: self.last_write,
            seen: self.seen,
            rows: rows(self.rows),
        }
    }
}

/// An entry and the file it is in.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) id: u128,
    pub(super) handle: Arc<Handle>,
    pub(super) slot: Slot,
}

impl Place {
    pub(super) fn position(&self) -> Position {
        Position {
            segment: self.handle.number,
            offset: u64::from(self.slot.offset),
        }
    }
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) active: Active,
    pub(super) archive: Archive,
    /// How many entries of each file can be found.
    live: BTreeMap<u64, Counts>,
    /// By kind, the smallest id that may be seen.
    hidden: BTreeMap<u8, u128>,
}

/// What the active file says of an id.
#[derive(Debug)]
pub(super) enum Known {
    /// This: look no further.
    Here(Place),
    /// That it was deleted, or nobody may see it.
    Gone,
    /// Nothing: these may.
    Elsewhere(Archive),
}

impl Index {
    pub(super) fn new(active: Active, archive: Archive) -> Self {
        let mut index = Self {
            live: archive.live(),
            active,
            archive,
            hidden: BTreeMap::new(),
        };
        let overriding: Vec<Key> = {
            let rows = index.active.rows.rows();
            rows.filter(|(_, slot)| slot.overrides())
                .map(|(key, _)| key)
                .collect()
        };
        for key in overriding {
            let victim = index
                .archive
                .live_place(key)
                .map(|place| place.handle.number);
            index.uncount(key.0, victim);
        }
        index
    }

    pub(super) fn look_up(&self, key: Key) -> Known {
        if self.is_hidden(key) {
            return Known::Gone;
        }
        match self.active.rows.get(key) {
            Some(slot) if slot.is_tombstone() => Known::Gone,
            Some(slot) => Known::Here(Place {
                id: key.1,
                handle: Arc::clone(&self.active.handle),
                slot,
            }),
            None => Known::Elsewhere(self.archive.clone()),
        }
    }

    pub(super) fn is_hidden(&self, (kind, id): Key) -> bool {
        id < self.hidden_below(kind)
    }

    pub(super) fn hidden_below(&self, kind: u8) -> u128 {
        self.hidden.get(&kind).copied().unwrap_or_default()
    }

    pub(super) fn hide_below(&mut self, kind: u8, id: u128) {
        let below = self.hidden.entry(kind).or_default();
        *below = id.max(*below);
    }

    /// Enters a frame that was written to the active file. `victim` is the sealed file in which the version
    /// stands that it hides, if there is one.
    pub(super) fn apply(&mut self, key: Key, slot: Slot, meta: &[u8], victim: Option<u64>) {
        let before = self.active.rows.put(key, slot, meta);
        if before.is_none() {
            self.uncount(key.0, victim);
        }
    }

    fn uncount(&mut self, kind: u8, file: Option<u64>) {
        let count = file
            .and_then(|number| self.live.get_mut(&number))
            .and_then(|counts| counts.get_mut(&kind));
        if let Some(count) = count {
            *count = count.saturating_sub(1);
        }
    }

    /// Puts the active file among the sealed ones, and another in its place.
    pub(super) fn rotate(&mut self, next: Active) {
        let full = std::mem::replace(&mut self.active, next).with(Rows::Open, 0);
        self.live.insert(full.number(), full.rows.live());
        self.archive.push(full);
    }

    /// Takes the files before `number` out; nobody finds what is in them from here on.
    pub(super) fn take_before(&mut self, number: u64) -> Taken {
        let kept = self.live.split_off(&number);
        let gone = std::mem::replace(&mut self.live, kept);
        Taken {
            files: self.archive.take_before(number),
            entries: sum(gone.values()),
        }
    }

    /// The entries that can be found, by kind.
    pub(super) fn live(&self) -> Counts {
        let active = self.active.rows.live();
        sum(self.live.values().chain([&active]))
    }

    /// The number of files.
    pub(super) fn count(&self) -> usize {
        self.archive.files().len() + 1
    }

    pub(super) fn bytes(&self) -> u64 {
        let sealed: u64 = self.archive.files().iter().map(|file| file.bytes).sum();
        sealed + self.active.bytes
    }
}

fn sum<'a>(files: impl Iterator<Item = &'a Counts>) -> Counts {
    let mut sum = Counts::new();
    for (kind, count) in files.flatten().filter(|(_, count)| **count > 0) {
        *sum.entry(*kind).or_default() += count;
    }
    sum
}
