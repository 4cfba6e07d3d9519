//! What opening a directory does: reads the sidecars of sealed files, or makes them again, and the last file
//! as a whole; cuts a torn tail, sets aside what is damaged.
//!
//! It never refuses to start because of damage and never deletes any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::archive::Archive;
use super::error::Error;
use super::files::{File, Files, read_full, write_full};
use super::frame::{BadHeader, FILE_HEADER, FileHeader, Head};
use super::index::{Active, Handle, Sealed, Seen};
use super::map::Map;
use super::rows::{OpenRows, Rows, Slot};
use super::scan::{Depth, Scanner, Step, next_head};
use super::seal;
use super::sidecar::{Sidecar, encode};
use super::{Config, Damage, Fsync, Recovery};

/// From how many sidecars on several threads read them, and how many threads at most.
const MANY_SIDECARS: usize = 8;
const MAX_READERS: usize = 8;

/// The files of a directory, and what was found wrong with them.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) archive: Archive,
    /// The last file, where it can be appended to.
    pub(super) active: Option<Active>,
    pub(super) report: Recovery,
    /// The number of the last file, read or set aside; 0 where there is none.
    pub(super) last: u64,
    /// Sidecars that could not be written.
    pub(super) unsaved: u64,
}

/// The name of file `number`.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.seg"))
}

fn number_of(path: &Path, extension: &str) -> Option<u64> {
    let (name, end) = path.file_name()?.to_str()?.split_once('.')?;
    let number = name.parse().ok().filter(|_| end == extension)?;
    (0 < number && number < u64::MAX).then_some(number)
}

/// Reads the whole directory.
pub(super) fn recover(files: &dyn Files, config: &Config) -> Result<Recovered, Error> {
    let dir = &config.dir;
    let listed = files.list(dir);
    let listed = listed.map_err(|source| Error::io("list", dir, source))?;
    let mut found: Vec<(u64, &PathBuf)> = listed
        .iter()
        .filter_map(|path| Some((number_of(path, "seg")?, path)))
        .collect();
    found.sort_unstable();
    let last = found.last().map_or(0, |(number, _)| *number);
    let numbers: BTreeSet<u64> = found.iter().map(|(number, _)| *number).collect();
    let mut indexed = BTreeSet::new();
    for path in &listed {
        let sidecar = number_of(path, seal::EXTENSION);
        if sidecar.is_some_and(|number| numbers.contains(&number)) {
            indexed.extend(sidecar);
        } else if sidecar.or(number_of(path, seal::UNFINISHED)).is_some() {
            // Its segment was unlinked, or it was never finished. One that stays does no harm.
            let _ = files.remove(path);
        }
    }
    let with_sidecar = found.iter().filter(|(number, _)| indexed.contains(number));
    let mut recovery = Recoverer {
        files,
        config,
        sidecars: sidecars(files, with_sidecar.copied().collect()),
        sealed: Vec::new(),
        active: None,
        report: Recovery::default(),
        unsaved: 0,
    };
    for (number, path) in found {
        // A file that has a sidecar was sealed, be it the last.
        let role = match number == last && !indexed.contains(&number) {
            true => Role::Active,
            false => Role::Sealed,
        };
        recovery.read(number, path.clone(), role)?;
    }
    Ok(Recovered {
        archive: Archive::new(recovery.sealed),
        active: recovery.active,
        report: recovery.report,
        last,
        unsaved: recovery.unsaved,
    })
}

/// Reads the sidecars of these files, many of them in several threads: each is read whole, to check it, and that is what opening
/// a large log takes.
fn sidecars(files: &dyn Files, of: Vec<(u64, &PathBuf)>) -> BTreeMap<u64, Sidecar> {
    let load = |(number, path): (u64, &PathBuf)| Some((number, seal::load(files, path)?));
    if of.len() < MANY_SIDECARS {
        return of.into_iter().filter_map(load).collect();
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = of.len().div_ceil(cores.min(MAX_READERS));
    std::thread::scope(|scope| {
        let readers: Vec<_> = of
            .chunks(share)
            .map(|part| {
                scope.spawn(move || part.iter().copied().filter_map(load).collect::<Vec<_>>())
            })
            .collect();
        let loaded = readers.into_iter().map(|reader| {
            let read = reader.join();
            read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        loaded.flatten().collect()
    })
}

/// What a file is to the log that is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Active,
    Sealed,
}

/// How a file's whole batches end.
#[derive(Debug)]
pub(super) enum End {
    Clean,
    /// At a frame that cannot be read, which starts here.
    Broken(u64),
    Unreadable,
}

struct Recoverer<'a> {
    files: &'a dyn Files,
    config: &'a Config,
    /// By the number of their file.
    sidecars: BTreeMap<u64, Sidecar>,
    sealed: Vec<Arc<Sealed>>,
    active: Option<Active>,
    report: Recovery,
    unsaved: u64,
}

impl Recoverer<'_> {
    fn read(&mut self, number: u64, path: PathBuf, role: Role) -> Result<(), Error> {
        let opened = self.files.open(&path);
        let file = opened.map_err(|source| Error::io("open", &path, source))?;
        let length = file.length();
        let mut length = length.map_err(|source| Error::io("look at", &path, source))?;
        let mut header = [0; FILE_HEADER];
        let read = read_full(&*file, &mut header, 0);
        if matches!(read, Ok(read) if read < FILE_HEADER) && role == Role::Active {
            // The process ended while it began the file: nothing was in it yet.
            let begun = begin(&*file, number).map_err(|s| Error::io("begin", &path, s))?;
            header = begun.to_bytes();
            length = FILE_HEADER as u64;
        }
        let header = match FileHeader::parse(&header) {
            Ok(header) => header,
            Err(BadHeader::Version(version)) => return Err(Error::Version { path, version }),
            Err(BadHeader::Damaged) => return self.set_aside(&path, length),
        };
        let modified = file.modified().unwrap_or_else(|_| SystemTime::now());
        let handle = Handle {
            number,
            path,
            file,
            dirty: AtomicBool::new(false),
        };
        let mut segment = Active::empty(handle, header.created_ms);
        segment.last_write = modified.max(segment.last_write);
        segment.bytes = length;
        match role {
            Role::Active => self.enter(segment, length),
            Role::Sealed => self.open_sealed(segment, length),
        }
        Ok(())
    }

    /// Takes the index of a sealed file from its sidecar, or makes it again.
    fn open_sealed(&mut self, mut segment: Active, length: u64) {
        let (number, created_ms) = (segment.number(), segment.created_ms);
        let sidecar = self.sidecars.remove(&number).filter(|sidecar| {
            let facts = sidecar.facts();
            (facts.number, facts.created_ms) == (number, created_ms)
                && facts.length == length
                && facts.end <= length
        });
        let Some(sidecar) = sidecar else {
            self.report.reindexed += 1;
            let handle = Arc::clone(&segment.handle);
            let (rows, good, end) = frames(&*handle.file, length, Depth::Heads);
            (segment.rows, segment.end) = (rows, good);
            self.note_damage(&segment, length);
            if matches!(end, End::Unreadable) {
                segment.seen = Seen::Part;
            }
            self.index(segment, length);
            return;
        };
        segment.end = sidecar.facts().end;
        self.note_damage(&segment, length);
        let bytes = sidecar.length() as u64;
        let sealed = segment.with(|_| Rows::Packed(sidecar), bytes);
        self.sealed.push(Arc::new(sealed));
    }

    /// Writes the sidecar of a sealed file; where that cannot be it stays in memory.
    fn index(&mut self, segment: Active, length: u64) {
        let facts = seal::facts(&segment, length);
        let bytes = encode(&segment.rows, facts);
        let path = &segment.handle.path;
        let map = match segment.seen {
            Seen::Part => Map::Memory(bytes),
            Seen::Whole => {
                seal::write(self.files, self.config, path, &bytes).unwrap_or_else(|_| {
                    self.unsaved += 1;
                    Map::Memory(bytes)
                })
            }
        };
        let on_disk = match &map {
            Map::File(map) => map.len() as u64,
            Map::Memory(_) => 0,
        };
        let open = |rows| match Sidecar::new(map) {
            Some(sidecar) => Rows::Packed(sidecar),
            // What was just written reads back as something else.
            None => Rows::Packed(Sidecar::in_memory(&rows, facts)),
        };
        self.sealed.push(Arc::new(segment.with(open, on_disk)));
    }

    fn note_damage(&mut self, segment: &Active, length: u64) {
        if segment.end < length {
            self.report.damage.push(Damage {
                path: segment.handle.path.clone(),
                offset: segment.end,
                bytes: length - segment.end,
            });
        }
    }

    /// Reads the frames of the last file, and deals with what cannot be read.
    fn enter(&mut self, mut segment: Active, length: u64) {
        let handle = Arc::clone(&segment.handle);
        let (rows, good, end) = frames(&*handle.file, length, Depth::Whole);
        (segment.rows, segment.end) = (rows, good);
        match end {
            End::Clean => {}
            End::Unreadable => {
                self.note_damage(&segment, length);
                segment.seen = Seen::Part;
                return self.index(segment, length);
            }
            End::Broken(at) => {
                match cut(self.files, self.config.fsync, &handle, good..length, at) {
                    Ok(Cut::Torn) => self.report.cut_bytes += length - good,
                    Ok(Cut::Copied(path)) => self.report.damage.push(Damage {
                        path,
                        offset: good,
                        bytes: length - good,
                    }),
                    // No room for the copy, or the like: leave the file as it is and go on in a new one.
                    Err(_) => {
                        self.note_damage(&segment, length);
                        return self.index(segment, length);
                    }
                }
                segment.bytes = good;
            }
        }
        self.active = Some(segment);
    }

    /// Renames a file whose header cannot be read.
    fn set_aside(&mut self, path: &Path, bytes: u64) -> Result<(), Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(".damaged");
        let aside = PathBuf::from(name);
        let renamed = self.files.rename(path, &aside);
        renamed.map_err(|source| Error::io("set aside", path, source))?;
        // One that stays is removed by the next open.
        let _ = self.files.remove(&seal::path_of(path));
        self.report.damage.push(Damage {
            path: aside,
            offset: 0,
            bytes,
        });
        Ok(())
    }
}

/// The entries of the whole batches of a file; where they end and why.
pub(super) fn frames(file: &dyn File, length: u64, depth: Depth) -> (OpenRows, u64, End) {
    let mut rows = OpenRows::default();
    let mut scanner = Scanner::new(file, length, depth);
    let mut good = scanner.at();
    let mut batch: Vec<(Head, u64)> = Vec::new();
    let mut metas = Vec::new();
    let end = loop {
        match scanner.step() {
            Step::Frame(head, at) => {
                let expected = batch.last().map(|(last, _)| last.left - 1);
                if expected.is_some_and(|left| left != head.left) {
                    break End::Broken(at);
                }
                batch.push((head, at));
                metas.extend_from_slice(scanner.meta(&head, at));
                if head.left == 0 {
                    good = scanner.at();
                    let mut rest = &metas[..];
                    for (head, at) in batch.drain(..) {
                        let meta = rest.split_off(..usize::from(head.meta_len));
                        enter(&mut rows, &head, at, meta.unwrap_or_default());
                    }
                    metas.clear();
                }
            }
            Step::End if batch.is_empty() => break End::Clean,
            Step::End | Step::Broken => break End::Broken(scanner.at()),
            Step::Unreadable => break End::Unreadable,
        }
    };
    (rows, good, end)
}

fn enter(rows: &mut OpenRows, head: &Head, at: u64, meta: &[u8]) {
    // A file larger than 32-bit places was never written by this program.
    let Ok(offset) = u32::try_from(at) else {
        return;
    };
    let slot = Slot {
        fingerprint: head.fingerprint,
        offset,
        meta_at: 0,
        meta_len: head.meta_len,
        flags: head.flags,
    };
    rows.put((head.kind, head.id), slot, meta);
}

/// Writes the header of a new file.
pub(super) fn begin(file: &dyn File, number: u64) -> std::io::Result<FileHeader> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = now.unwrap_or_default().as_millis();
    let created_ms = u64::try_from(millis).unwrap_or(u64::MAX);
    let header = FileHeader { number, created_ms };
    file.truncate(0)?;
    write_full(file, &header.to_bytes(), 0)?;
    Ok(header)
}

pub(super) fn time(millis: u64) -> SystemTime {
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

/// Cuts off `tail`, what follows the last whole batch of the active file; the frame at `at` is broken.
fn cut(
    files: &dyn Files,
    fsync: Fsync,
    handle: &Handle,
    tail: Range<u64>,
    at: u64,
) -> std::io::Result<Cut> {
    let file = &*handle.file;
    let sync = |file: &dyn File| match fsync {
        Fsync::Never => Ok(()),
        Fsync::Always | Fsync::Interval(_) => file.sync(),
    };
    let mut done = Cut::Torn;
    if next_head(file, at, tail.end)?.is_some() {
        let extension = format!("seg.from-{}.damaged", tail.start);
        let aside = handle.path.with_extension(extension);
        let copy = files.create(&aside)?;
        let mut window = vec![0; 1 << 20];
        let mut from = tail.start;
        while from < tail.end {
            let read = read_full(file, &mut window, from)?;
            if read == 0 {
                break;
            }
            write_full(&*copy, &window[..read], from - tail.start)?;
            from += read as u64;
        }
        sync(&*copy)?;
        done = Cut::Copied(aside);
    }
    file.truncate(tail.start)?;
    sync(file)?;
    Ok(done)
}
