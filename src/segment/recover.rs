//! What opening a directory does: reads every file, cuts a torn tail, sets aside what is damaged.
//!
//! It never refuses to start because of damage and never deletes any of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::files::{File, Files, read_full, write_full};
use super::frame::{BadHeader, FILE_HEADER, FileHeader, Head, TOMBSTONE};
use super::index::{Handle, Index, Segment};
use super::rows::{Rows, Slot};
use super::scan::{Depth, Scanner, Step, goes_on};
use super::{Damage, Recovery};

/// The index of a directory, and what was found wrong with it.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) report: Recovery,
    /// Whether the last file can be appended to.
    pub(super) appendable: bool,
    /// The number of the last file, in the index or set aside; 0 where there is none.
    pub(super) last: u64,
}

/// The name of file `number`.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.seg"))
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    let number = name.parse().ok()?;
    (0 < number && number < u64::MAX).then_some(number)
}

/// Reads the whole directory.
pub(super) fn recover(files: &dyn Files, dir: &Path) -> Result<Recovered, Error> {
    let listed = files.list(dir);
    let mut found: Vec<(u64, PathBuf)> = listed
        .map_err(|source| Error::io("list", dir, source))?
        .into_iter()
        .filter_map(|path| Some((number_of(&path)?, path)))
        .collect();
    found.sort_unstable();
    let last = found.last().map_or(0, |(number, _)| *number);
    let mut recovered = Recovered {
        index: Index::default(),
        report: Recovery::default(),
        appendable: false,
        last,
    };
    for (number, path) in found {
        recovered.read(files, number, path, number == last)?;
    }
    recovered.report.segments = recovered.index.segments.len() as u64;
    Ok(recovered)
}

/// How a file's whole batches end.
enum End {
    Clean,
    /// At a frame that cannot be read, which starts here.
    Broken(u64),
    Unreadable,
}

impl Recovered {
    fn read(
        &mut self,
        files: &dyn Files,
        number: u64,
        path: PathBuf,
        active: bool,
    ) -> Result<(), Error> {
        let opened = files.open(&path);
        let file = opened.map_err(|source| Error::io("open", &path, source))?;
        let length = file.length();
        let mut length = length.map_err(|source| Error::io("look at", &path, source))?;
        let mut header = [0; FILE_HEADER];
        let read = read_full(&*file, &mut header, 0);
        if matches!(read, Ok(read) if read < FILE_HEADER) && active {
            // The process ended while it began the file: nothing was in it yet.
            header = begin(&*file, number).map_err(|s| Error::io("begin", &path, s))?;
            length = FILE_HEADER as u64;
        }
        let header = match FileHeader::parse(&header) {
            Ok(header) => header,
            Err(BadHeader::Version(version)) => return Err(Error::Version { path, version }),
            Err(BadHeader::Damaged) => return self.set_aside(files, &path, length),
        };
        let modified = file.modified().unwrap_or_else(|_| SystemTime::now());
        let handle = Handle {
            number,
            path,
            file,
            dirty: AtomicBool::new(false),
        };
        let mut segment = Segment::empty(handle, time(header.created_ms));
        segment.last_write = modified.max(segment.created);
        self.appendable = active;
        self.enter(files, segment, length)
    }

    /// Reads the frames of a file whose header is good, and deals with what cannot be read.
    fn enter(&mut self, files: &dyn Files, segment: Segment, length: u64) -> Result<(), Error> {
        let handle = std::sync::Arc::clone(&segment.handle);
        let active = self.appendable;
        self.index.segments.insert(handle.number, segment);
        let depth = if active { Depth::Whole } else { Depth::Heads };
        let (good, end) = self.frames(&*handle.file, handle.number, length, depth);
        let damage = Damage {
            path: handle.path.clone(),
            offset: good,
            bytes: length - good,
        };
        let mut bytes = length;
        match end {
            End::Clean => {}
            End::Broken(_) | End::Unreadable if !active => self.report.damage.push(damage),
            End::Unreadable => {
                self.appendable = false;
                self.report.damage.push(damage);
            }
            End::Broken(at) => match cut(files, &handle, good, at, length) {
                Ok(Cut::Torn) => {
                    self.report.cut_bytes += length - good;
                    bytes = good;
                }
                Ok(Cut::Copied(path)) => {
                    self.report.damage.push(Damage { path, ..damage });
                    bytes = good;
                }
                // No room for the copy, or the like: leave the file as it is and go on in a new one.
                Err(_) => {
                    self.appendable = false;
                    self.report.damage.push(damage);
                }
            },
        }
        let segment = self.index.segments.get_mut(&handle.number);
        let segment = segment.expect("it was inserted above");
        (segment.end, segment.bytes) = (good, bytes);
        if !self.appendable {
            segment.rows = Rows::Sealed(segment.rows.sealed());
        }
        Ok(())
    }

    /// Enters the whole batches of a file; tells where they end and why.
    fn frames(&mut self, file: &dyn File, number: u64, length: u64, depth: Depth) -> (u64, End) {
        let mut scanner = Scanner::new(file, length, depth);
        let mut good = scanner.at();
        let mut batch: Vec<(Head, u64)> = Vec::new();
        loop {
            match scanner.step() {
                Step::Frame(head, at) => {
                    let expected = batch.last().map(|(last, _)| last.left - 1);
                    if expected.is_some_and(|left| left != head.left) {
                        return (good, End::Broken(at));
                    }
                    batch.push((head, at));
                    if head.left == 0 {
                        good = scanner.at();
                        batch
                            .drain(..)
                            .for_each(|(head, at)| self.apply(number, &head, at));
                    }
                }
                Step::End if batch.is_empty() => return (good, End::Clean),
                Step::End | Step::Broken => return (good, End::Broken(scanner.at())),
                Step::Unreadable => return (good, End::Unreadable),
            }
        }
    }

    fn apply(&mut self, number: u64, head: &Head, at: u64) {
        // A file larger than 32-bit places was never written by this program.
        let Ok(offset) = u32::try_from(at) else {
            return;
        };
        let slot = Slot {
            fingerprint: head.fingerprint,
            offset,
            meta_len: head.meta_len,
            flags: head.flags,
        };
        debug_assert!(slot.flags & TOMBSTONE == 0 || slot.meta_len == 0);
        self.index.apply(number, (head.kind, head.id), slot);
    }

    /// Renames a file whose header cannot be read.
    fn set_aside(&mut self, files: &dyn Files, path: &Path, bytes: u64) -> Result<(), Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(".damaged");
        let aside = PathBuf::from(name);
        let renamed = files.rename(path, &aside);
        renamed.map_err(|source| Error::io("set aside", path, source))?;
        self.appendable = false;
        self.report.damage.push(Damage {
            path: aside,
            offset: 0,
            bytes,
        });
        Ok(())
    }
}

/// Writes the header of a new file.
pub(super) fn begin(file: &dyn File, number: u64) -> std::io::Result<[u8; FILE_HEADER]> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = now.unwrap_or_default().as_millis();
    let created_ms = u64::try_from(millis).unwrap_or(u64::MAX);
    let header = FileHeader { number, created_ms }.to_bytes();
    file.truncate(0)?;
    write_full(file, &header, 0)?;
    Ok(header)
}

fn time(millis: u64) -> SystemTime {
    let since = Duration::from_millis(millis);
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

enum Cut {
    /// The tail was the start of a batch whose write was cut short.
    Torn,
    /// Good frames stand behind the damage, so that the tail was copied here first.
    Copied(PathBuf),
}

/// Cuts the active file at `good`, its last whole batch; the frame at `at` is broken.
fn cut(
    files: &dyn Files,
    handle: &Handle,
    good: u64,
    at: u64,
    length: u64,
) -> std::io::Result<Cut> {
    let done = if goes_on(&*handle.file, at, length)? {
        let aside = handle
            .path
            .with_extension(format!("seg.from-{good}.damaged"));
        let copy = files.create(&aside)?;
        let mut window = vec![0; 1 << 20];
        let mut from = good;
        while from < length {
            let read = read_full(&*handle.file, &mut window, from)?;
            if read == 0 {
                break;
            }
            write_full(&*copy, &window[..read], from - good)?;
            from += read as u64;
        }
        copy.sync()?;
        Cut::Copied(aside)
    } else {
        Cut::Torn
    };
    handle.file.truncate(good)?;
    handle.file.sync()?;
    Ok(done)
}
