//! Tests of the log as a whole.

mod backup;
mod faults;
mod kill;
mod model;
mod power;
mod sidecars;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::frame::{FILE_HEADER, FileHeader};
use super::{
    Config, Entry, Error, Fsync, Limits, Log, MAX_META_BYTES, MAX_SEGMENT_BYTES, Order, Position,
    Write,
};

fn config(dir: &Path) -> Config {
    Config {
        segment_bytes: 4096,
        fsync: Fsync::Never,
        ..Config::new(dir)
    }
}

fn open(dir: &Path) -> Log {
    Log::open(config(dir)).unwrap().0
}

fn insert(id: u128, payload: &[u8]) -> Entry<'_> {
    Entry {
        kind: 1,
        write: Write::Insert,
        id,
        fingerprint: id % 3,
        meta: b"meta",
        payload,
    }
}

fn replace(id: u128, payload: &[u8]) -> Entry<'_> {
    Entry {
        kind: 2,
        write: Write::Replace,
        ..insert(id, payload)
    }
}

fn payload(log: &Log, kind: u8, id: u128) -> Option<Vec<u8>> {
    log.get(kind, id)
        .unwrap()
        .map(|found| found.payload.to_vec())
}

fn all_ids(log: &Log, kind: u8) -> Vec<u128> {
    log.ids(kind, 0..=u128::MAX, Order::Oldest, usize::MAX)
}

fn find(log: &Log, kind: u8, fingerprint: u128) -> Vec<u128> {
    let oldest = log.find(kind, fingerprint, Order::Oldest, usize::MAX);
    let mut newest = log.find(kind, fingerprint, Order::Newest, usize::MAX);
    newest.reverse();
    assert_eq!(oldest, newest);
    oldest
}

/// The segment files, oldest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    with_extension(dir, "seg")
}

fn sidecars(dir: &Path) -> Vec<PathBuf> {
    with_extension(dir, "idx")
}

fn with_extension(dir: &Path, wanted: &str) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap();
    let mut paths: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == wanted)
    });
    paths.sort();
    paths
}

fn bytes_on_disk(dir: &Path) -> u64 {
    let all = files(dir).into_iter().chain(sidecars(dir));
    all.map(|path| path.metadata().unwrap().len()).sum()
}

/// Changes one byte.
fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    std::fs::write(path, bytes).unwrap();
}

/// Ten entries of 1,000 bytes with ids from `first`, one batch each; three fit a file.
fn ten(log: &Log, first: u128) {
    for id in first..first + 10 {
        log.append(&[insert(id, &[7; 1000])]).unwrap();
    }
}

#[test]
fn entry_reads_back_after_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(&[insert(5, b"payload")]).unwrap();
    drop(log);
    let log = open(dir.path());
    let found = log.get(1, 5).unwrap().unwrap();
    assert_eq!(&found.meta[..], b"meta");
    assert_eq!(&found.payload[..], b"payload");
    assert_eq!((find(&log, 1, 2), find(&log, 1, 1)), (vec![5], vec![]));
    assert_eq!(find(&log, 2, 2), []);
    assert!(log.contains(1, 5) && !log.contains(2, 5));
}

#[test]
fn known_id_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let batch = [insert(1, b"a"), insert(2, b"b"), insert(1, b"c")];
    assert_eq!(log.append(&batch).unwrap().known, [2]);
    let end = log.end();
    assert_eq!(log.append(&batch).unwrap().known, [0, 1, 2]);
    assert_eq!(log.end(), end);
    log.seal().unwrap();
    let mixed = [insert(2, b"d"), insert(3, b"e")];
    assert_eq!(log.append(&mixed).unwrap().known, [0]);
    let values: Vec<_> = (1..4).map(|id| payload(&log, 1, id).unwrap()).collect();
    assert_eq!(values, [b"a", b"b", b"e"]);
    assert!(log.append(&[]).unwrap().known.is_empty());
}

#[test]
fn deleted_stays_deleted_until_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    ten(&log, 1);
    assert!(log.delete(1, 1).unwrap());
    assert!(!log.delete(1, 1).unwrap());
    assert!(!log.delete(1, 99).unwrap());
    let check = |log: &Log| {
        assert!(!log.contains(1, 1));
        assert_eq!(log.append(&[insert(1, b"again")]).unwrap().known, [0]);
        assert_eq!(all_ids(log, 1), Vec::from_iter(2..=10));
        assert_eq!(find(log, 1, 1), [4, 7, 10]);
        assert_eq!(log.stats().entries[&1], 9);
    };
    check(&log);
    drop(log);
    let log = open(dir.path());
    check(&log);
    let revived = Entry {
        write: Write::Replace,
        ..insert(1, b"new")
    };
    log.append(&[revived]).unwrap();
    assert_eq!(payload(&log, 1, 1).unwrap(), b"new");
}

#[test]
fn newest_version_counts_and_is_carried_over_retention() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(&[replace(1, b"old"), replace(2, b"deleted")])
        .unwrap();
    log.append(&[replace(1, b"new")]).unwrap();
    log.delete(2, 2).unwrap();
    ten(&log, 1);
    assert_eq!(payload(&log, 2, 1).unwrap(), b"new");
    let limits = Limits {
        max_bytes: Some(1),
        older_than: None,
    };
    let reclaimed = log.retain(&limits).unwrap();
    assert_eq!((reclaimed.segments, reclaimed.entries.get(&2)), (3, None));
    let check = |log: &Log| {
        assert_eq!(payload(log, 2, 1).unwrap(), b"new");
        assert_eq!(all_ids(log, 2), [1]);
        assert_eq!(log.stats().entries[&2], 1);
    };
    check(&log);
    drop(log);
    check(&open(dir.path()));
}

#[test]
fn retention_unlinks_whole_files_oldest_first_and_hides_them_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    ten(&log, 1);
    log.shared.seal_pending();
    assert_eq!(
        (files(dir.path()).len(), sidecars(dir.path()).len()),
        (4, 3)
    );
    let before = log.stats();
    let limits = Limits {
        max_bytes: Some(before.bytes - 1),
        older_than: None,
    };
    let reclaimed = log.retain(&limits).unwrap();
    assert_eq!((reclaimed.segments, reclaimed.entries[&1]), (1, 3));
    assert_eq!(all_ids(&log, 1), Vec::from_iter(4..=10));
    assert_eq!(
        (files(dir.path()).len(), sidecars(dir.path()).len()),
        (3, 2)
    );
    let on_disk = bytes_on_disk(dir.path());
    assert_eq!(log.stats().bytes, on_disk);
    assert_eq!(before.bytes - reclaimed.bytes, on_disk);
    let everything = Limits {
        max_bytes: Some(0),
        older_than: None,
    };
    log.retain(&everything).unwrap();
    assert_eq!(all_ids(&log, 1), [10], "the active file stays");
    assert_eq!(log.retain(&Limits::default()).unwrap().segments, 0);
}

#[test]
fn retention_by_age_takes_the_active_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    ten(&log, 1);
    let at = |time| Limits {
        max_bytes: None,
        older_than: Some(time),
    };
    let hour = Duration::from_secs(3600);
    let young = log.retain(&at(SystemTime::now() - hour)).unwrap();
    assert_eq!(young.segments, 0);
    let old = log.retain(&at(SystemTime::now() + hour)).unwrap();
    assert_eq!((old.segments, old.entries[&1]), (4, 10));
    assert_eq!(all_ids(&log, 1), []);
    // What is gone can come again, and a position never does.
    let end = log.end();
    ten(&log, 1);
    assert!(log.position(1, 1).unwrap() >= end);
}

#[test]
fn file_is_sealed_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        rotate_after: Duration::ZERO,
        ..config(dir.path())
    };
    let (log, _) = Log::open(config).unwrap();
    for id in 0..3 {
        log.append(&[insert(id, b"")]).unwrap();
    }
    assert_eq!(log.stats().segments, 3);
}

#[test]
fn scan_merges_files_in_both_orders_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    // Out of order and spread over many files; more than a page.
    let ids: Vec<u128> = (0..600).map(|i| i * 7919 % 600).collect();
    for chunk in ids.chunks(20) {
        let batch: Vec<_> = chunk.iter().map(|id| insert(*id, b"1234567890")).collect();
        log.append(&batch).unwrap();
    }
    assert!(log.stats().segments > 5);
    let scan = |range, order, limit: usize| {
        let mut seen = Vec::new();
        let mut visit = |header: super::Header<'_>| {
            assert_eq!(
                (header.meta, header.fingerprint),
                (&b"meta"[..], header.id % 3)
            );
            seen.push(header.id);
            match seen.len() == limit {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        log.scan(1, range, order, &mut visit);
        seen
    };
    assert_eq!(
        scan(0..=u128::MAX, Order::Oldest, 0),
        Vec::from_iter(0..600)
    );
    assert_eq!(
        scan(0..=u128::MAX, Order::Newest, 0),
        Vec::from_iter((0..600).rev())
    );
    assert_eq!(scan(100..=400, Order::Newest, 3), [400, 399, 398]);
    assert_eq!(scan(100..=400, Order::Oldest, 0), Vec::from_iter(100..=400));
    log.hide_below(1, 590);
    assert_eq!(
        scan(0..=u128::MAX, Order::Oldest, 0),
        Vec::from_iter(590..600)
    );
    assert!(!log.contains(1, 589) && log.get(1, 589).unwrap().is_none());
    assert_eq!(find(&log, 1, 1), [592, 595, 598]);
    assert_eq!(log.append(&[insert(5, b"")]).unwrap().known, [0]);
}

#[test]
fn read_from_gives_every_entry_once_in_order_whatever_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    ten(&log, 1);
    log.append(&[insert(11, &[1; 20_000]), insert(12, b"small")])
        .unwrap();
    log.delete(1, 4).unwrap();
    for budget in [0, 1, 900, 1064, 5000, 1 << 20] {
        let (mut at, mut ids) = (Position::default(), Vec::new());
        loop {
            let run = log.read_from(at, budget).unwrap();
            assert_eq!(run.skipped, 0);
            assert!(run.next >= at);
            at = run.next;
            if run.entries.is_empty() {
                break;
            }
            let bytes: usize = run.entries.iter().map(|e| 64 + e.payload.len()).sum();
            assert!(run.entries.len() == 1 || bytes <= budget + 25_000);
            ids.extend(run.entries.iter().map(|entry| entry.id));
        }
        assert_eq!(ids, [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12], "{budget}");
    }
    let all = log.read_from(Position::default(), 1 << 20).unwrap();
    let third = all.entries[2].position;
    assert_eq!(log.read_from(third, 1).unwrap().entries[0].id, 3);
    assert_eq!(log.position(1, 3), Some(third));
}

#[test]
fn directory_is_locked_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let error = Log::open(config(dir.path())).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }));
    let path = dir.path().join("lock");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    drop(log);
    open(dir.path());
}

#[test]
fn limits_of_config_and_entry_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    for segment_bytes in [0, 4095, MAX_SEGMENT_BYTES + 1] {
        let config = Config {
            segment_bytes,
            ..config(dir.path())
        };
        assert!(matches!(Log::open(config), Err(Error::SegmentBytes(_))));
    }
    let log = open(dir.path());
    let meta = vec![0; MAX_META_BYTES + 1];
    let long = Entry {
        meta: &meta,
        ..insert(1, b"")
    };
    let error = log.append(&[insert(2, b""), long]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "meta has 65536 bytes, the limit is 65535"
    );
    assert!(!log.contains(1, 2));
    let longest = Entry {
        meta: &meta[1..],
        ..insert(1, b"")
    };
    log.append(&[longest]).unwrap();
    drop(log);
    assert_eq!(
        open(dir.path()).get(1, 1).unwrap().unwrap().meta.len(),
        MAX_META_BYTES
    );
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Log::open(config(&file)).unwrap_err();
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn damage_in_a_sealed_file_costs_only_what_is_damaged_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    ten(&log, 1);
    drop(log);
    let sealed = files(dir.path())[0].clone();
    let length = sealed.metadata().unwrap().len();
    let second = FILE_HEADER + 1064;
    // In the payload: only that entry, found out when it is read.
    flip(&sealed, second + 500);
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    assert_eq!(recovery.damage, []);
    assert!(matches!(log.get(1, 2), Err(Error::Damaged { .. })));
    assert!(payload(&log, 1, 3).is_some());
    let run = log.read_from(Position::default(), 1 << 20).unwrap();
    let ids: Vec<_> = run.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [1, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(run.skipped, 1064);
    drop(log);
    // In a head: that entry too, for its sidecar knows where the others are.
    flip(&sealed, second + 20);
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    assert_eq!((recovery.damage, recovery.reindexed), (vec![], 0));
    assert!(matches!(log.get(1, 2), Err(Error::Damaged { .. })));
    assert_eq!(all_ids(&log, 1), Vec::from_iter(1..=10));
    assert!((3..=10).all(|id| payload(&log, 1, id).is_some()));
    let run = log.read_from(Position::default(), 1 << 20).unwrap();
    let ids: Vec<_> = run.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [1, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(run.skipped, 1064);
    drop(log);
    // Without its sidecar: what is behind it in this file. It is told each time.
    std::fs::remove_file(&sidecars(dir.path())[0]).unwrap();
    for reindexed in [1, 0] {
        let (log, recovery) = Log::open(config(dir.path())).unwrap();
        let damage = &recovery.damage[0];
        assert_eq!(
            (damage.offset, damage.bytes),
            (second as u64, length - second as u64)
        );
        assert_eq!((&damage.path, recovery.damage.len()), (&sealed, 1));
        assert_eq!(recovery.reindexed, reindexed);
        assert_eq!(all_ids(&log, 1), [1, 4, 5, 6, 7, 8, 9, 10]);
    }
    assert_eq!(
        sealed.metadata().unwrap().len(),
        length,
        "nothing is deleted"
    );
    // In the file's header: the file is set aside.
    flip(&sealed, 3);
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    assert_eq!(recovery.damage[0].path.metadata().unwrap().len(), length);
    assert_eq!(all_ids(&log, 1), Vec::from_iter(4..=10));
    assert_eq!(sidecars(dir.path()).len(), 2, "its sidecar went");
}

#[test]
fn damage_in_the_active_file_is_copied_aside_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for id in 1..=3 {
        log.append(&[insert(id, b"abc")]).unwrap();
    }
    drop(log);
    let active = files(dir.path())[0].clone();
    let whole = std::fs::read(&active).unwrap();
    let frame = (whole.len() - FILE_HEADER) / 3;
    let second = FILE_HEADER + frame;
    flip(&active, second + frame - 1);
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    assert_eq!((recovery.cut_bytes, recovery.damage.len()), (0, 1));
    let mut damaged = whole[second..].to_vec();
    damaged[frame - 1] ^= 0x55;
    assert_eq!(std::fs::read(&recovery.damage[0].path).unwrap(), damaged);
    assert_eq!(all_ids(&log, 1), [1]);
    log.append(&[insert(4, b"abc")]).unwrap();
    drop(log);
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    assert_eq!((recovery.cut_bytes, recovery.damage), (0, vec![]));
    assert_eq!(all_ids(&log, 1), [1, 4]);
}

#[test]
fn batch_with_a_hole_is_not_taken_for_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(&[insert(1, b"abc"), insert(2, b"abc"), insert(3, b"abc")])
        .unwrap();
    drop(log);
    let path = files(dir.path())[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = (bytes.len() - FILE_HEADER) / 3;
    bytes.drain(FILE_HEADER + frame..FILE_HEADER + 2 * frame);
    std::fs::write(&path, bytes).unwrap();
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    assert_eq!(all_ids(&log, 1), []);
    assert_eq!(recovery.cut_bytes, 2 * frame as u64);
}

#[test]
fn file_of_a_later_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = files(dir.path())[0].clone();
    let mut header = FileHeader {
        number: 1,
        created_ms: 0,
    }
    .to_bytes();
    header[8] = 9;
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, header).unwrap();
    let error = Log::open(config(dir.path())).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has format 9, this program knows 1"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), header);
}

#[test]
fn reader_never_sees_half_a_batch_while_another_appends() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 0..400 {
                let id = batch * 3;
                let payload = [u8::try_from(batch % 250).unwrap(); 50];
                let entries = [id, id + 1, id + 2].map(|id| insert(id, &payload));
                log.append(&entries).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut last = 0;
        loop {
            let finished = done.load(Ordering::Acquire);
            let ids = all_ids(&log, 1);
            assert_eq!(ids.len() % 3, 0);
            assert!(ids.len() >= last);
            last = ids.len();
            if let Some(id) = ids.last() {
                let expected = vec![u8::try_from(id / 3 % 250).unwrap(); 50];
                assert_eq!(payload(&log, 1, *id).unwrap(), expected);
            }
            if finished {
                break;
            }
        }
        assert_eq!(last, 1200);
    });
}
