//! Writing the sidecar of a sealed file, and reading one back.
//!
//! The segment is forced onto the disk first, so that a sidecar never speaks of what a power cut took; then
//! the sidecar is written under another name, forced onto the disk, and renamed. Where it cannot be written its
//! bytes stay in memory, packed, and the next sealed file brings another try.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use twox_hash::XxHash3_128;

use super::Fsync;
use super::files::{Files, read_full, write_full};
use super::index::{Sealed, Seen, Segment};
use super::log::Shared;
use super::map::Map;
use super::rows::Rows;
use super::sidecar::{Facts, HEADER, Header, Sidecar, encode};

/// How the name of a sidecar ends.
pub(super) const EXTENSION: &str = "idx";
/// How it ends until the sidecar is whole.
pub(super) const UNFINISHED: &str = "idx.new";

/// The name of the sidecar of a segment file.
pub(super) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension(EXTENSION)
}

impl Shared {
    /// Writes the sidecars that are not written yet; failures are counted.
    pub(super) fn seal_pending(&self) {
        let _one = self.sealing.lock();
        let archive = self.index.read().archive.clone();
        for file in archive.files() {
            self.seal(file);
        }
    }

    fn seal(&self, file: &Arc<Sealed>) {
        let made;
        let bytes = match &file.rows {
            Rows::Packed(sidecar) => match sidecar.unsaved() {
                Some(bytes) if file.seen == Seen::Whole => bytes,
                _ => return,
            },
            Rows::Open(open) => {
                let length = file.handle.file.length().unwrap_or(file.end);
                made = encode(open, facts(file, length));
                &made
            }
        };
        let saved = self.save(file, bytes);
        if saved.is_err() {
            self.seal_failures.fetch_add(1, Ordering::Relaxed);
        }
        let map = match (saved, &file.rows) {
            (Ok(map), _) => map,
            (Err(_), Rows::Open(_)) => Map::Memory(bytes.to_vec()),
            (Err(_), Rows::Packed(_)) => return,
        };
        let on_disk = match &map {
            Map::File(map) => map.len() as u64,
            Map::Memory(_) => 0,
        };
        let Some(sidecar) = Sidecar::new(map) else {
            // What was just written reads back as something else: the entries in memory serve on.
            self.seal_failures.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let packed = Segment {
            handle: Arc::clone(&file.handle),
            end: file.end,
            bytes: file.bytes + on_disk,
            created_ms: file.created_ms,
            last_write: file.last_write,
            seen: file.seen,
            rows: Rows::Packed(sidecar),
        };
        let there = self.index.write().archive.replace(Arc::new(packed));
        if !there {
            // Retention took the segment meanwhile; the next open removes what stays here.
            let _ = self.files.remove(&path_of(&file.handle.path));
        }
    }

    fn save(&self, file: &Sealed, bytes: &[u8]) -> Result<Map, super::Error> {
        if self.config.fsync != Fsync::Never {
            self.sync_file(&file.handle)?;
        }
        let segment = &file.handle.path;
        write(&*self.files, &self.config, segment, bytes)
            .map_err(|source| super::Error::io("write the index of", segment, source))
    }
}

/// Which bytes of which file its sidecar is about.
pub(super) fn facts<R>(file: &Segment<R>, length: u64) -> Facts {
    Facts {
        number: file.number(),
        created_ms: file.created_ms,
        end: file.end,
        length,
    }
}

/// Puts a sidecar beside its segment, and maps it.
pub(super) fn write(
    files: &dyn Files,
    config: &super::Config,
    segment: &Path,
    bytes: &[u8],
) -> io::Result<Map> {
    let path = path_of(segment);
    let unfinished = segment.with_extension(UNFINISHED);
    let durable = config.fsync != Fsync::Never;
    let written = files.create(&unfinished).and_then(|file| {
        write_full(&*file, bytes, 0)?;
        if durable {
            file.sync()?;
        }
        Ok(())
    });
    let placed = written
        .and_then(|()| files.rename(&unfinished, &path))
        .and_then(|()| match durable {
            true => files.sync_dir(&config.dir),
            false => Ok(()),
        });
    if let Err(error) = placed {
        let _ = files.remove(&unfinished);
        return Err(error);
    }
    files.map(&path)
}

/// The sidecar of a segment; `None` where there is none that is whole and of this format. Which file it is about, its facts
/// tell.
pub(super) fn load(files: &dyn Files, segment: &Path) -> Option<Sidecar> {
    let path = path_of(segment);
    let file = files.open(&path).ok()?;
    let mut start = [0; HEADER];
    if read_full(&*file, &mut start, 0).ok()? < HEADER {
        return None;
    }
    let header = Header::parse(&start)?;
    if file.length().ok()? != header.length() as u64 {
        return None;
    }
    // Read, not mapped: checking all of it must not bring all of it into this process's memory.
    let mut digest = XxHash3_128::new();
    let mut window = vec![0; 256 << 10];
    let mut at = HEADER as u64;
    loop {
        let read = read_full(&*file, &mut window, at).ok()?;
        if read == 0 {
            break;
        }
        digest.write(&window[..read]);
        at += read as u64;
    }
    if !header.matches(digest.finish_128()) {
        return None;
    }
    Sidecar::new(files.map(&path).ok()?).filter(|sidecar| sidecar.facts() == header.facts)
}
