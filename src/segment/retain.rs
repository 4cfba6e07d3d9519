//! Giving space back: whole files are unlinked, oldest first.
//!
//! Entries are hidden all at once under the index's lock; unlinking happens after that and outside every
//! lock, so neither readers nor the appender wait for it.

use std::time::SystemTime;

use super::error::Error;
use super::index::Index;
use super::log::{Log, Shared};
use super::read::entry_at;
use super::{Entry, Limits, Position, Reclaimed, Write};

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
    /// too old.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Io`] where no new file can be made.
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
    /// [`Write::Replace`] are first written again at the end.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Io`]. Where a file cannot be unlinked, what is in it is hidden all the
    /// same, and the next call tries again.
    pub fn unlink_before(&self, keep: Position) -> Result<Reclaimed, Error> {
        let shared = &*self.shared;
        let active = shared.end().segment;
        let number = keep.segment.min(active);
        let carried = shared.carry_forward(number)?;
        let taken = shared.index.write().take_before(number);
        let mut reclaimed = Reclaimed {
            segments: taken.len() as u64,
            bytes: taken.iter().map(|segment| segment.bytes).sum(),
            entries: Index::live(taken.iter()),
        };
        reclaimed.bytes = reclaimed.bytes.saturating_sub(carried);
        let mut leftover = shared.leftover.lock();
        leftover.extend(taken.iter().map(|segment| segment.handle.path.clone()));
        while let Some(path) = leftover.first() {
            // In order, so that a tombstone never goes before what it hides.
            match shared.files.remove(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::io("remove", path, source)),
            }
            leftover.remove(0);
        }
        Ok(reclaimed)
    }

    fn seal_if_older(&self, older_than: SystemTime) -> Result<(), Error> {
        let mut writer = self.shared.writer.lock();
        let index = self.shared.index.read();
        let (_, active) = index.segments.last_key_value().expect("one is active");
        let expired = !active.is_empty() && active.last_write < older_than;
        drop(index);
        if expired {
            self.shared.rotate(&mut writer)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Writes the replacing entries of the files before `number` again; tells how many bytes that took.
    fn carry_forward(&self, number: u64) -> Result<u64, Error> {
        let mut writer = self.writer.lock();
        let keys = self.index.read().replaced_before(number);
        let mut bytes = 0;
        for key in &keys {
            let Some(place) = self.index.read().get(*key) else {
                continue;
            };
            // One that is damaged cannot be saved; it goes with its file.
            let entry = match entry_at(&place) {
                Ok(entry) => entry,
                Err(Error::Damaged { .. }) => continue,
                Err(error) => return Err(error),
            };
            let appended = self.append(
                &mut writer,
                &[Entry {
                    kind: entry.kind,
                    write: Write::Replace,
                    id: entry.id,
                    fingerprint: entry.fingerprint,
                    meta: &entry.meta,
                    payload: &entry.payload,
                }],
            )?;
            bytes += appended.end.offset - appended.at.offset;
        }
        drop(writer);
        if bytes > 0 && self.config.fsync != super::Fsync::Never {
            self.sync()?;
        }
        Ok(bytes)
    }
}
