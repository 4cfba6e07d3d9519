//! Giving space back: whole files are unlinked, oldest first.
//!
//! Entries are hidden all at once under the index's lock; unlinking happens after that and outside every
//! lock, so neither readers nor the appender wait for it. Only on a full disk, where nothing can be appended
//! anyhow, the appender waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::error::Error;
use super::index::Sealed;
use super::log::{Log, Shared, Writer, unless_full};
use super::read::entry_at;
use super::rows::{Counts, Key};
use super::{Entry, Found, Limits, Position, Reclaimed, Write, seal};

/// Files that are out of the index, and the entries that went with them.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) files: Vec<Arc<Sealed>>,
    pub(super) entries: Counts,
}

impl Log {
    /// Applies the limits: [`Log::plan`], then [`Log::unlink_before`].
    ///
    /// # Errors
    /// As [`Log::unlink_before`].
    pub fn retain(&self, limits: &Limits) -> Result<Reclaimed, Error> {
        let keep = self.plan(limits)?;
        self.unlink_before(keep)
    }

    /// The place before which everything would go under these limits. Seals the active file where that is
    /// too old and the disk has room for another.
    ///
    /// # Errors
    /// [`Error::Io`] where no new file can be made.
    pub fn plan(&self, limits: &Limits) -> Result<Position, Error> {
        if let Some(older_than) = limits.older_than {
            self.seal_if_older(older_than)?;
        }
        let index = self.shared.index.read();
        let mut total = index.bytes();
        let mut keep = 0;
        for file in index.archive.files() {
            let too_much = limits.max_bytes.is_some_and(|max| total > max);
            let too_old = limits.older_than.is_some_and(|t| file.last_write < t);
            if !too_much && !too_old {
                break;
            }
            total -= file.bytes;
            keep = file.number() + 1;
        }
        Ok(Position {
            segment: keep,
            offset: 0,
        })
    }

    /// Unlinks the files that lie wholly before `keep`, but never the active one. Entries written with
    /// [`Write::Replace`] are first written again at the end; where the disk is full they are read first and
    /// written once the files are gone, so that a crash in between loses them.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Io`]. Where a file cannot be unlinked, what is in it is hidden all the
    /// same, and the next call tries again.
    pub fn unlink_before(&self, keep: Position) -> Result<Reclaimed, Error> {
        let shared = &*self.shared;
        let active = shared.end().segment;
        let number = keep.segment.min(active);
        match shared.carry_forward(number) {
            Ok(carried) => {
                let mut reclaimed = shared.unlink(number)?;
                reclaimed.bytes = reclaimed.bytes.saturating_sub(carried);
                Ok(reclaimed)
            }
            Err(Error::Full { .. }) => shared.unlink_then_carry(number),
            Err(error) => Err(error),
        }
    }

    fn seal_if_older(&self, older_than: SystemTime) -> Result<(), Error> {
        let mut writer = self.shared.writer.lock();
        let index = self.shared.index.read();
        let active = &index.active;
        let expired = !active.is_empty() && active.last_write < older_than;
        drop(index);
        if expired {
            self.shared.rotate(&mut writer).or_else(unless_full)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Hides and unlinks the files before `number`.
    fn unlink(&self, number: u64) -> Result<Reclaimed, Error> {
        let taken = self.index.write().take_before(number);
        let reclaimed = Reclaimed {
            segments: taken.files.len() as u64,
            bytes: taken.files.iter().map(|file| file.bytes).sum(),
            entries: taken.entries,
        };
        let mut leftover = self.leftover.lock();
        for file in &taken.files {
            let segment = &file.handle.path;
            // The segment first: one without a sidecar would be read as a whole to make it again.
            leftover.extend([segment.clone(), seal::path_of(segment)]);
        }
        while let Some(path) = leftover.first() {
            // In order, so that a tombstone never goes before what it hides.
            match self.files.remove(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::io("remove", path, source)),
            }
            leftover.remove(0);
        }
        Ok(reclaimed)
    }

    /// Writes the replacing entries of the files before `number` again; tells how many bytes that took.
    fn carry_forward(&self, number: u64) -> Result<u64, Error> {
        let mut writer = self.writer.lock();
        let mut bytes = 0;
        for key in self.replaced_before(number) {
            if let Some(entry) = self.readable(key, number)? {
                bytes += self.append_again(&mut writer, &entry)?;
            }
        }
        drop(writer);
        self.sync_carried(bytes)?;
        Ok(bytes)
    }

    /// On a full disk only unlinking makes room to write: the replacing entries wait in memory. The writer is
    /// held meanwhile, so that none of them comes after a newer version.
    fn unlink_then_carry(&self, number: u64) -> Result<Reclaimed, Error> {
        let mut writer = self.writer.lock();
        let mut entries = Vec::new();
        for key in self.replaced_before(number) {
            entries.extend(self.readable(key, number)?);
        }
        let unlinked = self.unlink(number);
        let mut bytes = 0;
        for entry in &entries {
            bytes += self.append_again(&mut writer, entry)?;
        }
        drop(writer);
        self.sync_carried(bytes)?;
        let mut reclaimed = unlinked?;
        reclaimed.bytes = reclaimed.bytes.saturating_sub(bytes);
        Ok(reclaimed)
    }

    fn replaced_before(&self, number: u64) -> BTreeSet<Key> {
        let archive = self.index.read().archive.clone();
        archive.replaced_before(number)
    }

    /// An entry whose valid version stands before file `number`; `None` for one that is damaged, which cannot
    /// be saved and goes with its file.
    fn readable(&self, key: Key, number: u64) -> Result<Option<Found>, Error> {
        let place = self.place(key);
        let Some(place) = place.filter(|place| place.handle.number < number) else {
            return Ok(None);
        };
        match entry_at(&place) {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells how many bytes it took.
    fn append_again(&self, writer: &mut Writer, entry: &Found) -> Result<u64, Error> {
        let again = Entry {
            kind: entry.kind,
            write: Write::Replace,
            id: entry.id,
            fingerprint: entry.fingerprint,
            meta: &entry.meta,
            payload: &entry.payload,
        };
        let appended = self.append(writer, &[again])?;
        Ok(appended.end.offset - appended.at.offset)
    }

    fn sync_carried(&self, bytes: u64) -> Result<(), Error> {
        if bytes > 0 && self.config.fsync != super::Fsync::Never {
            self.sync()?;
        }
        Ok(())
    }
}
