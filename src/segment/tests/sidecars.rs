//! Sidecars that are missing, spoilt, orphaned or cannot be written: answers stay right, and it is counted.

use std::fs;
use std::path::Path;

use super::super::index::Seen;
use super::super::rows::Rows;
use super::super::{Config, Fsync, Limits, Log, Order, Recovery};
use super::{all_ids, bytes_on_disk, config, files, find, insert, open, payload, replace};
use super::{sidecars, ten};

/// Two sealed files with inserts, replaced and deleted entries in both, and an active one.
fn filled(dir: &Path) {
    let log = open(dir);
    for id in 1..=6 {
        log.append(&[insert(id, &[1; 100])]).unwrap();
    }
    log.append(&[replace(1, b"old"), replace(2, b"kept")])
        .unwrap();
    log.seal().unwrap();
    log.delete(1, 3).unwrap();
    log.append(&[replace(1, b"new"), insert(7, &[2; 100])])
        .unwrap();
    log.seal().unwrap();
    log.append(&[insert(8, &[3; 100])]).unwrap();
    log.delete(1, 7).unwrap();
}

fn check(log: &Log) {
    assert_eq!(all_ids(log, 1), [1, 2, 4, 5, 6, 8]);
    assert_eq!(
        (find(log, 1, 1), find(log, 1, 2)),
        (vec![1, 4], vec![2, 5, 8])
    );
    assert_eq!(payload(log, 2, 1).unwrap(), b"new");
    assert_eq!(payload(log, 2, 2).unwrap(), b"kept");
    assert_eq!((payload(log, 1, 3), payload(log, 1, 7)), (None, None));
    assert_eq!(payload(log, 1, 4).unwrap(), [1; 100]);
    assert_eq!(log.append(&[insert(3, b"")]).unwrap().known, [0]);
    let entries = log.stats().entries;
    assert_eq!((entries[&1], entries[&2]), (6, 2));
    let mut seen = Vec::new();
    log.scan(1, 2..=5, Order::Newest, &mut |header| {
        assert_eq!(header.meta, b"meta");
        seen.push(header.id);
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(seen, [5, 4, 2]);
}

fn reopened(dir: &Path) -> Recovery {
    let (log, recovery) = Log::open(config(dir)).unwrap();
    check(&log);
    assert_eq!((recovery.cut_bytes, &recovery.damage), (0, &vec![]));
    assert_eq!(log.stats().bytes, bytes_on_disk(dir));
    recovery
}

#[test]
fn every_flipped_bit_and_every_prefix_of_a_sidecar_is_noticed_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    assert_eq!(reopened(dir.path()).reindexed, 0);
    for path in sidecars(dir.path()) {
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert_eq!(reopened(dir.path()).reindexed, 1, "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), good, "byte {at}");
        }
        for length in (0..good.len()).step_by(7) {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(reopened(dir.path()).reindexed, 1, "{length} bytes");
        }
        let longer = [&good[..], &[0]].concat();
        fs::write(&path, longer).unwrap();
        assert_eq!(reopened(dir.path()).reindexed, 1);
    }
    assert_eq!(reopened(dir.path()).reindexed, 0);
}

#[test]
fn sidecar_that_is_missing_or_of_another_file_or_format_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let paths = sidecars(dir.path());
    let good: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut other_format = good[0].clone();
    other_format[8] += 1;
    let crc = crc32fast::hash(&other_format[..124]);
    other_format[124..128].copy_from_slice(&crc.to_le_bytes());
    for bad in [good[1].clone(), other_format, Vec::new()] {
        fs::write(&paths[0], bad).unwrap();
        assert_eq!(reopened(dir.path()).reindexed, 1);
        assert_eq!(fs::read(&paths[0]).unwrap(), good[0]);
    }
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(reopened(dir.path()).reindexed, 2);
    assert_eq!(reopened(dir.path()).reindexed, 0);
    let again: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(again, good);
}

#[test]
fn what_a_crash_leaves_beside_segments_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let paths = sidecars(dir.path());
    // Between the write and the rename; and between unlinking a segment and its sidecar.
    let unfinished = dir.path().join("0000000000000002.idx.new");
    let orphan = dir.path().join("0000000000000099.idx");
    fs::write(&unfinished, b"half").unwrap();
    fs::copy(&paths[0], &orphan).unwrap();
    let foreign = dir.path().join("notes.idx");
    fs::write(&foreign, b"not ours").unwrap();
    let (log, recovery) = Log::open(config(dir.path())).unwrap();
    check(&log);
    assert_eq!(recovery.reindexed, 0);
    assert!(!unfinished.exists() && !orphan.exists() && foreign.exists());
}

#[test]
fn last_file_that_has_a_sidecar_is_not_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    // As where the name of the file behind it was lost.
    fs::remove_file(&files(dir.path())[2]).unwrap();
    let sealed = files(dir.path())[1].clone();
    let before = fs::read(&sealed).unwrap();
    let log = open(dir.path());
    assert_eq!(log.end().segment, 3);
    log.append(&[insert(9, b"next")]).unwrap();
    assert_eq!(fs::read(&sealed).unwrap(), before);
    assert_eq!(all_ids(&log, 1), [1, 2, 4, 5, 6, 7, 9]);
}

#[test]
fn entries_of_sealed_files_are_not_kept_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let log = open(dir.path());
        let first = log.end().segment;
        for round in 0..20 {
            ten(&log, u128::from(first) * 1000 + round * 10);
            // Even where the thread of the log never gets to run.
            assert!(log.shared.index.read().archive.unpacked() <= 3);
        }
        log.shared.seal_pending();
        let archive = log.shared.index.read().archive.clone();
        assert!(archive.files().len() > 50);
        for file in archive.files() {
            let Rows::Packed(sidecar) = &file.rows else {
                panic!("file {} is not packed", file.number());
            };
            assert!(sidecar.unsaved().is_none() && file.seen == Seen::Whole);
        }
    }
}

#[test]
fn replace_and_delete_reach_over_sealed_files_and_retention() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for round in 0..30_u8 {
        log.append(&[
            replace(1, &[round]),
            replace(2 + u128::from(round), &[round]),
        ])
        .unwrap();
        log.delete(2, 2 + u128::from(round / 2)).unwrap();
        log.seal().unwrap();
    }
    let expected: Vec<u128> = [1].into_iter().chain(2 + 15..32).collect();
    let check = |log: &Log| {
        log.shared.seal_pending();
        assert_eq!(all_ids(log, 2), expected);
        assert_eq!(payload(log, 2, 1).unwrap(), [29]);
        assert_eq!(log.stats().entries[&2], expected.len() as u64);
    };
    check(&log);
    let limits = Limits {
        max_bytes: Some(1),
        older_than: None,
    };
    log.retain(&limits).unwrap();
    check(&log);
    drop(log);
    for path in sidecars(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    check(&open(dir.path()));
}

#[test]
fn later_version_survives_in_a_directory_of_an_earlier_program() {
    // Files of a program that wrote no sidecars.
    let dir = tempfile::tempdir().unwrap();
    let durable = Config {
        fsync: Fsync::Always,
        ..config(dir.path())
    };
    let (log, _) = Log::open(durable.clone()).unwrap();
    ten(&log, 1);
    drop(log);
    let count = sidecars(dir.path()).len();
    assert_eq!(count, 3);
    for path in sidecars(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    let (log, recovery) = Log::open(durable).unwrap();
    assert_eq!(recovery.reindexed, 3);
    assert_eq!(all_ids(&log, 1), Vec::from_iter(1..=10));
    assert_eq!(sidecars(dir.path()).len(), count);
}

/// How much of the sidecars in `dir` counts as this process's memory, in KiB; `None` where none is mapped.
fn resident(dir: &Path) -> Option<u64> {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let dir = dir.to_str().unwrap();
    let (mut ours, mut sum) = (false, None);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Rss:"), Some(kilobytes)) if ours => {
                *sum.get_or_insert(0) += kilobytes.parse::<u64>().unwrap();
            }
            (Some(range), _) if range.contains('-') => {
                ours = line.contains(dir) && line.ends_with(".idx");
            }
            _ => {}
        }
    }
    sum
}

#[test]
fn indexes_that_nobody_asks_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for file in 0..4_u128 {
        let batch: Vec<_> = (1..=5000)
            .map(|id| insert(file * 5000 + id, b"x"))
            .collect();
        log.append(&batch).unwrap();
        log.seal().unwrap();
    }
    assert_eq!(resident(dir.path()), Some(0));
    assert_eq!(payload(&log, 1, 7).unwrap(), b"x");
    assert_ne!(
        resident(dir.path()),
        Some(0),
        "a look maps what it looks at"
    );
    drop(log);
    let (log, _) = Log::open(config(dir.path())).unwrap();
    assert_eq!(resident(dir.path()), Some(0));
    assert_eq!(payload(&log, 1, 19_999).unwrap(), b"x");
}
