//! A file layer that fails on demand: short writes, a full disk, failing reads, syncs, truncates and unlinks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::super::files::{Disk, File, Files};
use super::super::map::Map;
use super::super::{Config, Error, Fsync, Limits, Log, Position};
use super::{all_ids, config, files, insert, payload, replace, ten};

/// What fails from now on.
#[derive(Debug, Default, Clone)]
struct Faults {
    /// Bytes that can still be written before the disk is full.
    room: Option<u64>,
    /// A write takes at most this.
    short: Option<usize>,
    write: bool,
    truncate: bool,
    sync: bool,
    create: bool,
    /// A new file finds no room.
    create_full: bool,
    remove: bool,
    read: bool,
}

#[derive(Debug, Default)]
struct FaultyDisk(Arc<Mutex<Faults>>);

#[derive(Debug)]
struct FaultyFile(Box<dyn File>, Arc<Mutex<Faults>>);

fn eio(failing: bool) -> io::Result<()> {
    match failing {
        true => Err(io::Error::from_raw_os_error(5)),
        false => Ok(()),
    }
}

impl FaultyDisk {
    fn wrap(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(FaultyFile(file, Arc::clone(&self.0)))
    }
}

impl Files for FaultyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.wrap(Disk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        eio(self.0.lock().create)?;
        if self.0.lock().create_full {
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(self.wrap(Disk.create(path)?))
    }
    fn map(&self, path: &Path) -> io::Result<Map> {
        eio(self.0.lock().read)?;
        Disk.map(path)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.link(from, to)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut faults = self.0.lock();
        eio(faults.remove)?;
        if let Some(room) = &mut faults.room {
            *room += path.metadata()?.len();
        }
        Disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
}

impl File for FaultyFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        // The file's header stays readable, so that opening gets past it.
        eio(self.1.lock().read && offset >= 32)?;
        self.0.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut faults = self.1.lock();
        eio(faults.write)?;
        let mut count = bytes.len().min(faults.short.unwrap_or(usize::MAX));
        if let Some(room) = &mut faults.room {
            count = count.min(usize::try_from(*room).unwrap());
            if count == 0 {
                return Err(io::Error::from_raw_os_error(28));
            }
            *room -= count as u64;
        }
        self.0.write_at(&bytes[..count], offset)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        eio(self.1.lock().truncate)?;
        self.0.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        eio(self.1.lock().sync)?;
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn modified(&self) -> io::Result<SystemTime> {
        self.0.modified()
    }
}

struct Bench {
    dir: tempfile::TempDir,
    faults: Arc<Mutex<Faults>>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            faults: Arc::default(),
        }
    }

    fn open(&self, fsync: Fsync) -> Log {
        self.open_with(Config {
            fsync,
            ..config(self.dir.path())
        })
        .0
    }

    fn open_with(&self, config: Config) -> (Log, super::super::Recovery) {
        let disk = FaultyDisk(Arc::clone(&self.faults));
        Log::open_with(config, Arc::new(disk)).unwrap()
    }

    fn set(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }
}

#[test]
fn full_disk_at_any_byte_rolls_the_batch_back_and_the_log_goes_on() {
    let batch = [insert(2, &[1; 50]), insert(3, &[2; 50])];
    for room in 0..228 {
        let bench = Bench::new();
        let log = bench.open(Fsync::Never);
        log.append(&[insert(1, b"before")]).unwrap();
        let end = log.end();
        bench.set(Faults {
            room: Some(room),
            ..Faults::default()
        });
        let error = log.append(&batch).unwrap_err();
        let active = files(bench.dir.path())[0].clone();
        let Error::Full { path, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(path, &active);
        assert_eq!((all_ids(&log, 1), log.end()), (vec![1], end));
        assert_eq!(active.metadata().unwrap().len(), end.offset);
        bench.set(Faults::default());
        log.append(&[insert(4, b"after")]).unwrap();
        drop(log);
        let (log, recovery) = bench.open_with(config(bench.dir.path()));
        assert_eq!((recovery.cut_bytes, recovery.damage), (0, vec![]));
        assert_eq!(all_ids(&log, 1), [1, 4]);
    }
}

#[test]
fn batch_that_cannot_be_rolled_back_is_never_seen_again() {
    for room in [0, 60, 113, 114, 150, 227] {
        let bench = Bench::new();
        let log = bench.open(Fsync::Never);
        log.append(&[insert(1, b"before")]).unwrap();
        bench.set(Faults {
            room: Some(room),
            truncate: true,
            ..Faults::default()
        });
        // Frames as long as those that follow: what is left behind would fit exactly.
        let batch = [insert(2, &[1; 50]), insert(3, &[2; 50])];
        log.append(&batch).unwrap_err();
        bench.set(Faults::default());
        log.append(&[insert(4, &[3; 50])]).unwrap();
        assert_eq!(log.end().segment, 2);
        assert_eq!(all_ids(&log, 1), [1, 4], "{room}");
        drop(log);
        assert_eq!(all_ids(&bench.open(Fsync::Never), 1), [1, 4], "{room}");
    }
}

#[test]
fn short_writes_are_finished() {
    let bench = Bench::new();
    bench.set(Faults {
        short: Some(7),
        ..Faults::default()
    });
    let log = bench.open(Fsync::Never);
    ten(&log, 1);
    drop(log);
    let log = bench.open(Fsync::Never);
    assert_eq!(all_ids(&log, 1).len(), 10);
    assert_eq!(payload(&log, 1, 10).unwrap(), [7; 1000]);
}

#[test]
fn refused_write_names_the_file() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    bench.set(Faults {
        write: true,
        ..Faults::default()
    });
    let error = log.append(&[insert(1, b"")]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    let name = files(bench.dir.path())[0].display().to_string();
    assert_eq!(error.to_string(), format!("could not append to {name}"));
    bench.set(Faults::default());
    assert!(log.append(&[insert(1, b"")]).unwrap().known.is_empty());
}

#[test]
fn sync_that_fails_fails_the_append_and_takes_it_back() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Always);
    bench.set(Faults {
        sync: true,
        ..Faults::default()
    });
    log.append(&[insert(1, b"")]).unwrap_err();
    assert_eq!((all_ids(&log, 1), log.stats().sync_failures), (vec![], 1));
    bench.set(Faults::default());
    assert!(log.append(&[insert(1, b"")]).unwrap().known.is_empty());
    drop(log);
    assert_eq!(all_ids(&bench.open(Fsync::Always), 1), [1]);
}

#[test]
fn later_sync_that_fails_is_counted_and_tried_again() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    ten(&log, 1);
    bench.set(Faults {
        sync: true,
        ..Faults::default()
    });
    log.sync().unwrap_err();
    assert_eq!(log.stats().sync_failures, 4, "each of the four files");
    bench.set(Faults::default());
    log.sync().unwrap();
    bench.set(Faults {
        sync: true,
        ..Faults::default()
    });
    log.sync().expect("nothing is left to sync");
}

#[test]
fn interval_syncs_by_itself() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Interval(std::time::Duration::from_millis(1)));
    bench.set(Faults {
        sync: true,
        ..Faults::default()
    });
    log.append(&[insert(1, b"")]).unwrap();
    let start = std::time::Instant::now();
    while log.stats().sync_failures == 0 {
        assert!(start.elapsed() < std::time::Duration::from_secs(20));
        std::thread::yield_now();
    }
}

#[test]
fn new_file_that_cannot_be_made_fails_the_append_only_for_now() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    for id in 1..=3 {
        log.append(&[insert(id, &[7; 1000])]).unwrap();
    }
    for faults in [
        Faults {
            create: true,
            ..Faults::default()
        },
        Faults {
            room: Some(10),
            ..Faults::default()
        },
    ] {
        bench.set(faults);
        log.append(&[insert(4, &[7; 1000])]).unwrap_err();
        assert_eq!(all_ids(&log, 1), [1, 2, 3]);
        assert_eq!(files(bench.dir.path()).len(), 1);
    }
    bench.set(Faults::default());
    log.append(&[insert(4, &[7; 1000])]).unwrap();
    drop(log);
    assert_eq!(all_ids(&bench.open(Fsync::Never), 1), [1, 2, 3, 4]);
}

#[test]
fn old_file_serves_on_while_there_is_no_room_for_a_new_one() {
    let bench = Bench::new();
    let (log, _) = bench.open_with(Config {
        rotate_after: Duration::ZERO,
        ..config(bench.dir.path())
    });
    log.append(&[insert(1, b"a")]).unwrap();
    bench.set(Faults {
        create_full: true,
        ..Faults::default()
    });
    log.append(&[insert(2, b"b")]).unwrap();
    assert_eq!((all_ids(&log, 1), log.end().segment), (vec![1, 2], 1));
    bench.set(Faults::default());
    log.append(&[insert(3, b"c")]).unwrap();
    assert_eq!(log.end().segment, 2);
}

#[test]
fn retention_frees_a_full_disk_and_keeps_what_was_written_to_replace() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    log.append(&[replace(1, b"old")]).unwrap();
    log.append(&[replace(1, b"new"), replace(2, b"two")])
        .unwrap();
    ten(&log, 1);
    bench.set(Faults {
        room: Some(0),
        ..Faults::default()
    });
    log.append(&[insert(11, b"")]).unwrap_err();
    let limits = Limits {
        max_bytes: Some(0),
        // The active file is to go too, but there is no room for another.
        older_than: Some(SystemTime::now() + Duration::from_secs(3600)),
    };
    let reclaimed = log.retain(&limits).unwrap();
    assert_eq!((reclaimed.segments, all_ids(&log, 1)), (3, vec![10]));
    log.append(&[insert(11, b"")]).unwrap();
    drop(log);
    let log = bench.open(Fsync::Never);
    assert_eq!(files(bench.dir.path()).len(), 1);
    assert_eq!(all_ids(&log, 1), [10, 11]);
    assert_eq!(payload(&log, 2, 1).unwrap(), b"new");
    assert_eq!(payload(&log, 2, 2).unwrap(), b"two");
}

#[test]
fn file_that_cannot_be_unlinked_is_hidden_and_tried_again_in_order() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    ten(&log, 1);
    bench.set(Faults {
        remove: true,
        ..Faults::default()
    });
    let limits = Limits {
        max_bytes: Some(0),
        older_than: None,
    };
    log.retain(&limits).unwrap_err();
    assert_eq!(all_ids(&log, 1), [10]);
    assert_eq!(files(bench.dir.path()).len(), 4);
    bench.set(Faults::default());
    log.retain(&limits).unwrap();
    assert_eq!(files(bench.dir.path()).len(), 1);
}

#[test]
fn active_file_that_cannot_be_read_is_left_alone_and_a_new_one_begun() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    log.append(&[insert(1, b"a")]).unwrap();
    let length = log.end().offset;
    drop(log);
    bench.set(Faults {
        read: true,
        ..Faults::default()
    });
    let (log, recovery) = bench.open_with(config(bench.dir.path()));
    assert_eq!(recovery.damage[0].bytes, length - 32);
    assert_eq!(log.end().segment, 2);
    bench.set(Faults::default());
    log.append(&[insert(2, b"b")]).unwrap();
    drop(log);
    // The disk came back, and so did what is on it.
    let log = bench.open(Fsync::Never);
    assert_eq!(all_ids(&log, 1), [1, 2]);
    let run = log.read_from(Position::default(), 1000).unwrap();
    assert_eq!((run.entries.len(), run.skipped), (2, 0));
}

#[test]
fn sidecar_that_cannot_be_written_stays_in_memory_is_counted_and_tried_again() {
    for faults in [
        Faults {
            create: true,
            ..Faults::default()
        },
        Faults {
            room: Some(300),
            ..Faults::default()
        },
        Faults {
            write: true,
            ..Faults::default()
        },
        Faults {
            sync: true,
            ..Faults::default()
        },
    ] {
        let bench = Bench::new();
        // Long, so that only the sealing itself syncs.
        let log = bench.open(Fsync::Interval(Duration::from_secs(3600)));
        {
            // The log's own thread must not be the one that seals.
            let _held = log.shared.sealing.lock();
            for id in 1..=7 {
                log.append(&[insert(id, &[7; 1000])]).unwrap();
            }
            bench.set(faults);
        }
        log.shared.seal_pending();
        assert!(log.stats().seal_failures >= 1);
        assert_eq!(super::sidecars(bench.dir.path()).len(), 0);
        let archive = log.shared.index.read().archive.clone();
        assert_eq!(archive.unpacked(), 0, "packed all the same");
        assert_eq!(all_ids(&log, 1), Vec::from_iter(1..=7));
        assert_eq!(payload(&log, 1, 1).unwrap(), [7; 1000]);
        bench.set(Faults::default());
        log.shared.seal_pending();
        assert_eq!(super::sidecars(bench.dir.path()).len(), 2);
        assert_eq!(log.stats().bytes, super::bytes_on_disk(bench.dir.path()));
        drop(log);
        let (log, recovery) = bench.open_with(config(bench.dir.path()));
        assert_eq!(recovery.reindexed, 0);
        assert_eq!(all_ids(&log, 1), Vec::from_iter(1..=7));
    }
}

#[test]
fn full_disk_at_opening_keeps_a_rebuilt_index_in_memory() {
    let bench = Bench::new();
    let log = bench.open(Fsync::Never);
    ten(&log, 1);
    drop(log);
    for path in super::sidecars(bench.dir.path()) {
        std::fs::remove_file(path).unwrap();
    }
    bench.set(Faults {
        room: Some(0),
        ..Faults::default()
    });
    let (log, recovery) = bench.open_with(config(bench.dir.path()));
    assert_eq!((recovery.reindexed, log.stats().seal_failures), (3, 3));
    assert_eq!(all_ids(&log, 1), Vec::from_iter(1..=10));
    bench.set(Faults::default());
    log.shared.seal_pending();
    assert_eq!(super::sidecars(bench.dir.path()).len(), 3);
}
