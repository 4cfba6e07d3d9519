//! A copy of the log as it is at one moment, without copying: second names for files that never change again.

use std::io;
use std::path::Path;

use super::error::Error;
use super::log::{Log, create};
use super::seal;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backup {
    /// Segment files.
    pub segments: u64,
    /// Bytes of them and of their indexes; shared with the log for as long as both are there.
    pub bytes: u64,
}

impl Log {
    /// Seals the active file and links everything that is in the log into `dir`, which is made, or is there and
    /// empty, and lies on the same file system. What is appended meanwhile is not in it. It can be opened as a
    /// log of its own, and stays whatever happens to this one.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Full`], and [`Error::Io`] where `dir` cannot be used or lies on another
    /// file system; then what was linked so far is removed again.
    pub fn backup(&self, dir: &Path) -> Result<Backup, Error> {
        let shared = &*self.shared;
        let made = shared.files.create_dir(dir);
        made.map_err(|source| Error::io("make the directory", dir, source))?;
        let there = shared.files.list(dir);
        if !there
            .map_err(|source| Error::io("list", dir, source))?
            .is_empty()
        {
            return Err(Error::NotEmpty {
                path: dir.to_owned(),
            });
        }
        self.seal()?;
        let end = shared.end().segment;
        shared.seal_pending();
        shared.sync()?;
        let mut linked = Vec::new();
        let result = self.link_into(dir, end, &mut linked);
        if result.is_err() {
            for path in &linked {
                let _ = shared.files.remove(path);
            }
        }
        result
    }

    /// Links the files before number `end`.
    fn link_into(
        &self,
        dir: &Path,
        end: u64,
        linked: &mut Vec<std::path::PathBuf>,
    ) -> Result<Backup, Error> {
        let shared = &*self.shared;
        // Nothing is unlinked while this is held.
        let _kept = shared.leftover.lock();
        let archive = shared.index.read().archive.clone();
        let mut backup = Backup::default();
        for file in archive.files().iter().filter(|file| file.number() < end) {
            let segment = &file.handle.path;
            for path in [segment.clone(), seal::path_of(segment)] {
                let name = path.file_name().unwrap_or_default();
                let to = dir.join(name);
                match shared.files.link(&path, &to) {
                    Ok(()) => linked.push(to),
                    // An index that could not be written is made by whoever opens the backup.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && path != *segment => {}
                    Err(source) => return Err(Error::io("link", &to, source)),
                }
            }
            backup.segments += 1;
            backup.bytes += file.bytes;
        }
        // The last file of a log is appended to: in the backup that must be none that is shared.
        let own = create(&shared.config, dir, &*shared.files, end)?;
        linked.push(own.handle.path.clone());
        let synced = own
            .handle
            .file
            .sync()
            .and_then(|()| shared.files.sync_dir(dir));
        synced.map_err(|source| Error::io("sync", dir, source))?;
        Ok(backup)
    }
}
