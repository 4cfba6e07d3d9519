//! Giving space back: whole files are unlinked, oldest first.
//!
//! Entries are hidden all at once under the index's lock; unlinking happens after that and outside every
//! lock, so neither readers nor the appender wait for it. Only on a full disk, where nothing can be appended
//! anyhow, the appender waits.

use std::time::SystemTime;

use super::error::Error;
use super::index::Index;
use super::log::{Log, Shared, Writer, unless_full};
use super::read::entry_at;
use super::rows::Key;
use super::{Entry, Found, Limits, Position, Reclaimed, Write};

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
        let mut total: u64 = index.segments.values().map(|segment| segment.bytes).sum();
        let mut keep = 0;
        let sealed = index.segments.len() - 1;
        for (number, segment) in index.segments.iter().take(sealed) {
            let too_much = limits.max_bytes.is_some_and(|max| total > max);
            let too_old = limits.older_than.is_some_and(|t| segment.last_write < t);
            if !too_much && !too_old {
                break;
            }
            total -= segment.bytes;
            keep = number + 1;
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
        let (_, active) = index.segments.last_key_value().expect("one is active");
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
            segments: taken.len() as u64,
            bytes: taken.iter().map(|segment| segment.bytes).sum(),
            entries: Index::live(taken.iter()),
        };
        let mut leftover = self.leftover.lock();
        leftover.extend(taken.iter().map(|segment| segment.handle.path.clone()));
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
        let keys = self.index.read().replaced_before(number);
        let mut bytes = 0;
        for key in keys {
            if let Some(entry) = self.readable(key)? {
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
        let keys = self.index.read().replaced_before(number);
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.extend(self.readable(key)?);
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

    /// An entry; `None` for one that is damaged, which cannot be saved and goes with its file.
    fn readable(&self, key: Key) -> Result<Option<Found>, Error> {
        let Some(place) = self.index.read().get(key) else {
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
