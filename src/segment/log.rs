//! The log itself: opening, appending, and beginning a new file.
//!
//! One appender at a time holds the writer's lock; the index has its own, which is taken for microseconds and
//! never over a read or a write of a file, so that readers and the appender don't wait for each other's disk.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::error::Error;
use super::files::{Disk, Files, write_full};
use super::frame::{FILE_HEADER, HEAD, REPLACE, TOMBSTONE, Tag, encoded_len, push};
use super::index::{Active, Handle, Index, Known, Place};
use super::recover::{begin, path_of, recover};
use super::rows::{Key, Slot};
use super::upkeep::{Bell, Upkeep};
use super::{
    Appended, Config, Entry, Fsync, MAX_BATCH_BYTES, MAX_META_BYTES, MAX_PAYLOAD_BYTES,
    MAX_SEGMENT_BYTES, Position, Recovery, Write,
};

/// The writer's buffer is given back when a batch made it larger than this.
const KEPT_BUFFER_BYTES: usize = 4 << 20;
/// So many sealed files may wait with their entries in memory until their sidecar is written.
const MAX_UNPACKED: usize = 2;

/// A segment log; share it behind an `Arc`. Dropping it forces what is new onto the disk.
#[derive(Debug)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
    /// Ends its thread when dropped.
    _upkeep: Upkeep,
    /// Held as long as the log is open.
    _lock: Lock,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) files: Arc<dyn Files>,
    pub(super) index: RwLock<Index>,
    pub(super) writer: Mutex<Writer>,
    /// Files that are out of the index but could not be unlinked.
    pub(super) leftover: Mutex<Vec<std::path::PathBuf>>,
    pub(super) sync_failures: AtomicU64,
    pub(super) seal_failures: AtomicU64,
    /// Held by whoever forces a file onto the disk.
    pub(super) syncing: Mutex<()>,
    /// Held by whoever writes sidecars.
    pub(super) sealing: Mutex<()>,
    /// Told when a file was sealed.
    pub(super) bell: Bell,
    /// Whether a file was made since the directory was last synced.
    pub(super) dir_dirty: AtomicBool,
}

/// What only the appender touches.
#[derive(Debug)]
pub(super) struct Writer {
    handle: Arc<Handle>,
    /// Where the next batch goes.
    end: u64,
    since: Instant,
    /// Part of a failed batch may be left behind `end`, so the file takes no more.
    broken: bool,
    buffer: Vec<u8>,
    slots: Vec<(Key, Slot)>,
}

impl Log {
    /// Opens the log in `config.dir`, which is made if it is not there, and reads its index.
    ///
    /// # Errors
    /// [`Error::Locked`] where it is open already, [`Error::Io`] and [`Error::Full`] where the directory
    /// cannot be used, [`Error::Version`], [`Error::SegmentBytes`]. Damage is no error: see [`Recovery`].
    pub fn open(config: Config) -> Result<(Self, Recovery), Error> {
        Self::open_with(config, Arc::new(Disk))
    }

    pub(super) fn open_with(
        config: Config,
        files: Arc<dyn Files>,
    ) -> Result<(Self, Recovery), Error> {
        if !(4096..=MAX_SEGMENT_BYTES).contains(&config.segment_bytes) {
            return Err(Error::SegmentBytes(config.segment_bytes));
        }
        let made = files.create_dir(&config.dir);
        made.map_err(|source| Error::io("make the directory", &config.dir, source))?;
        let lock = lock(&config.dir)?;
        let recovered = recover(&*files, &config)?;
        let (active, mut report) = match recovered.active {
            Some(active) => (active, recovered.report),
            None => {
                let number = recovered.last + 1;
                (
                    create(&config, &config.dir, &*files, number)?,
                    recovered.report,
                )
            }
        };
        let writer = Writer::new(&active);
        let index = Index::new(active, recovered.archive);
        report.segments = index.count() as u64;
        let shared = Arc::new(Shared {
            config,
            files,
            index: RwLock::new(index),
            writer: Mutex::new(writer),
            leftover: Mutex::default(),
            sync_failures: AtomicU64::new(0),
            seal_failures: AtomicU64::new(recovered.unsaved),
            syncing: Mutex::default(),
            sealing: Mutex::default(),
            bell: Bell::default(),
            dir_dirty: AtomicBool::new(true),
        });
        let upkeep = Upkeep::start(&shared)
            .map_err(|s| Error::io("start the thread that looks after", &shared.config.dir, s))?;
        let log = Self {
            shared,
            _upkeep: upkeep,
            _lock: lock,
        };
        Ok((log, report))
    }

    /// Appends a batch: one write, and after a crash all of it is there or nothing. Entries to
    /// [`Write::Insert`] whose id is known are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`] and [`Error::Io`]; then nothing of it is there, and the log can be
    /// used on.
    pub fn append(&self, entries: &[Entry<'_>]) -> Result<Appended, Error> {
        let mut writer = self.shared.writer.lock();
        self.shared.append(&mut writer, entries)
    }

    /// Deletes an entry for good: a later insert of its id does nothing. Tells whether it was there.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn delete(&self, kind: u8, id: u128) -> Result<bool, Error> {
        let mut writer = self.shared.writer.lock();
        if self.shared.place((kind, id)).is_none() {
            return Ok(false);
        }
        let tag = Tag {
            kind,
            flags: TOMBSTONE,
            left: 0,
            id,
            fingerprint: 0,
        };
        writer.clear();
        writer.push(tag, &[], &[]);
        self.shared.commit(&mut writer)?;
        Ok(true)
    }

    /// Seals the active file, so that it can be copied or linked; the next append goes to a new one.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Io`] where no new file can be made.
    pub fn seal(&self) -> Result<(), Error> {
        let mut writer = self.shared.writer.lock();
        if writer.end == FILE_HEADER as u64 {
            return Ok(());
        }
        self.shared.rotate(&mut writer)
    }

    /// Where the next batch will start, or an earlier place with nothing between.
    #[must_use]
    pub fn end(&self) -> Position {
        self.shared.end()
    }
}

impl Shared {
    pub(super) fn end(&self) -> Position {
        let index = self.index.read();
        Position {
            segment: index.active.number(),
            offset: index.active.end,
        }
    }

    pub(super) fn append(
        &self,
        writer: &mut Writer,
        entries: &[Entry<'_>],
    ) -> Result<Appended, Error> {
        check(entries)?;
        let known = self.known(entries);
        if known.len() == entries.len() {
            let end = self.end();
            return Ok(Appended {
                at: end,
                end,
                known,
            });
        }
        let count = entries.len() - known.len();
        let mut left = u32::try_from(count).expect("a batch is bounded by bytes far below this");
        let mut skipped = known.iter().peekable();
        writer.clear();
        for (place, entry) in entries.iter().enumerate() {
            if skipped.next_if(|known| **known == place).is_some() {
                continue;
            }
            left -= 1;
            let flags = match entry.write {
                Write::Insert => 0,
                Write::Replace => REPLACE,
            };
            let tag = Tag {
                kind: entry.kind,
                flags,
                left,
                id: entry.id,
                fingerprint: entry.fingerprint,
            };
            writer.push(tag, entry.meta, entry.payload);
        }
        let (at, end) = self.commit(writer)?;
        Ok(Appended { at, end, known })
    }

    /// Writes what is in the writer's buffer and enters it into the index.
    fn commit(&self, writer: &mut Writer) -> Result<(Position, Position), Error> {
        let length = writer.buffer.len() as u64;
        let full = writer.end + length > self.config.segment_bytes;
        let old = writer.since.elapsed() >= self.config.rotate_after;
        let begun = writer.end > FILE_HEADER as u64;
        if writer.broken || (full && begun) {
            self.rotate(writer)?;
        } else if old && begun {
            // An old file that has room serves on where a new one finds none.
            self.rotate(writer).or_else(unless_full)?;
        }
        let (handle, start) = (Arc::clone(&writer.handle), writer.end);
        let written = write_full(&*handle.file, &writer.buffer, start)
            .map_err(|source| Error::io("append to", &handle.path, source))
            .and_then(|()| self.sync_if_always(&handle));
        if let Err(error) = written {
            writer.broken = handle.file.truncate(start).is_err();
            return Err(error);
        }
        handle.dirty.store(true, Ordering::Release);
        writer.end = start + length;
        let end = writer.end;
        let victims = self.victims(&writer.slots);
        let mut index = self.index.write();
        for ((key, mut slot), victim) in writer.slots.drain(..).zip(victims) {
            let meta = slot.offset as usize + HEAD;
            let meta = &writer.buffer[meta..meta + usize::from(slot.meta_len)];
            slot.offset += u32::try_from(start).expect("segment_bytes is checked at open");
            index.apply(key, slot, meta, victim);
        }
        (index.active.end, index.active.bytes) = (end, end);
        index.active.last_write = SystemTime::now();
        drop(index);
        writer.buffer.shrink_to(KEPT_BUFFER_BYTES);
        let place = |offset| Position {
            segment: handle.number,
            offset,
        };
        Ok((place(start), place(end)))
    }

    /// Under [`Fsync::Always`] the sync is part of the write: one that fails is rolled back with it, before
    /// any reader has seen it.
    fn sync_if_always(&self, handle: &Handle) -> Result<(), Error> {
        if self.config.fsync != Fsync::Always {
            return Ok(());
        }
        handle.file.sync().map_err(|source| {
            self.sync_failures.fetch_add(1, Ordering::Relaxed);
            Error::io("sync", &handle.path, source)
        })
    }

    /// In which sealed file the version stands that each of these hides. Only the appender, whose lock is held,
    /// makes versions, so what is found here stays true; at worst retention takes it.
    fn victims(&self, slots: &[(Key, Slot)]) -> Vec<Option<u64>> {
        let mut archive = None;
        let victim = |(key, slot): &(Key, Slot)| {
            if !slot.overrides() {
                return None;
            }
            let archive = archive.get_or_insert_with(|| self.index.read().archive.clone());
            archive.live_place(*key).map(|place| place.handle.number)
        };
        slots.iter().map(victim).collect()
    }

    /// The places in the batch of entries that must not be written.
    fn known(&self, entries: &[Entry<'_>]) -> Vec<usize> {
        let key = |entry: &Entry<'_>| (entry.kind, entry.id);
        // Within a batch in strict order, no entry can repeat another.
        let ordered = entries.is_sorted_by(|a, b| key(a) < key(b));
        let index = self.index.read();
        let archive = index.archive.clone();
        let here: Vec<bool> = entries
            .iter()
            .map(|entry| index.active.rows.get(key(entry)).is_some())
            .collect();
        drop(index);
        let mut seen = HashSet::new();
        let mut known = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            let repeated = !ordered && !seen.insert(key(entry));
            if entry.write == Write::Insert
                && (repeated || here[place] || archive.mentions(key(entry)))
            {
                known.push(place);
            }
        }
        known
    }

    /// Where an entry that may be seen stands.
    pub(super) fn place(&self, key: Key) -> Option<Place> {
        let known = self.index.read().look_up(key);
        match known {
            Known::Here(place) => Some(place),
            Known::Gone => None,
            Known::Elsewhere(archive) => archive.live_place(key),
        }
    }

    /// Begins a new file and seals the one before; on failure the old one stays.
    pub(super) fn rotate(&self, writer: &mut Writer) -> Result<(), Error> {
        let number = writer.handle.number + 1;
        let active = create(&self.config, &self.config.dir, &*self.files, number)?;
        let next = Writer::new(&active);
        self.dir_dirty.store(true, Ordering::Release);
        let mut index = self.index.write();
        index.rotate(active);
        let unpacked = index.archive.unpacked();
        drop(index);
        if unpacked > MAX_UNPACKED {
            // The thread does not keep up: what is in memory stays bounded all the same.
            self.seal_pending();
        } else {
            self.bell.ring();
        }
        let buffer = std::mem::take(&mut writer.buffer);
        let slots = std::mem::take(&mut writer.slots);
        *writer = Writer {
            buffer,
            slots,
            ..next
        };
        Ok(())
    }
}

impl Writer {
    fn new(segment: &Active) -> Self {
        let created = super::recover::time(segment.created_ms);
        let age = created.elapsed().unwrap_or_default();
        let now = Instant::now();
        Self {
            handle: Arc::clone(&segment.handle),
            end: segment.end,
            since: now.checked_sub(age).unwrap_or(now),
            broken: false,
            buffer: Vec::new(),
            slots: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.slots.clear();
    }

    /// Adds a frame to the buffer; its slot's offset counts from the buffer's start.
    fn push(&mut self, tag: Tag, meta: &[u8], payload: &[u8]) {
        let slot = Slot {
            fingerprint: tag.fingerprint,
            offset: u32::try_from(self.buffer.len()).expect("a batch is at most 1 GiB"),
            meta_at: 0,
            meta_len: u16::try_from(meta.len()).expect("metas are checked"),
            flags: tag.flags,
        };
        self.slots.push(((tag.kind, tag.id), slot));
        push(&mut self.buffer, tag, meta, payload);
    }
}

/// A full disk is no failure here.
pub(super) fn unless_full(error: Error) -> Result<(), Error> {
    match error {
        Error::Full { .. } => Ok(()),
        other => Err(other),
    }
}

fn check(entries: &[Entry<'_>]) -> Result<(), Error> {
    let within = |what, bytes, limit| {
        if bytes <= limit {
            Ok(())
        } else {
            Err(Error::TooLarge { what, bytes, limit })
        }
    };
    let mut total = 0;
    for entry in entries {
        within("meta", entry.meta.len(), MAX_META_BYTES)?;
        within("payload", entry.payload.len(), MAX_PAYLOAD_BYTES)?;
        total += encoded_len(entry.meta.len(), entry.payload.len());
        within("batch", total, MAX_BATCH_BYTES)?;
    }
    Ok(())
}

/// Makes the file `number` with its header in a directory.
pub(super) fn create(
    config: &Config,
    dir: &Path,
    files: &dyn Files,
    number: u64,
) -> Result<Active, Error> {
    let path = path_of(dir, number);
    let made = files.create(&path).and_then(|file| {
        let header = begin(&*file, number)?;
        // Otherwise the next sync sees to both.
        if config.fsync == Fsync::Always {
            file.sync()?;
            files.sync_dir(dir)?;
        }
        Ok((file, header))
    });
    let (file, header) = made.map_err(|source| {
        // An empty file that stays is harmless: the next try, or the next open, takes it over.
        let _ = files.remove(&path);
        Error::io("create", &path, source)
    })?;
    let handle = Handle {
        number,
        path,
        file,
        dirty: AtomicBool::new(true),
    };
    Ok(Active::empty(handle, header.created_ms))
}

/// The directory is ours until this is dropped.
#[derive(Debug)]
struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being forked has a copy of it until it runs
        // its program, and would keep the lock that long.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join("lock");
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| Error::io("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path }),
        Err(fs::TryLockError::Error(source)) => Err(Error::io("lock", &path, source)),
    }
}
