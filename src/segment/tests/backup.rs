//! Backups: whole at one moment, and apart from the log from then on.

use std::fs;

use super::super::{Error, Limits, Log};
use super::{all_ids, bytes_on_disk, config, files, insert, open, payload, replace, sidecars, ten};

#[test]
fn backup_opens_as_a_log_and_neither_changes_the_other() {
    let root = tempfile::tempdir().unwrap();
    let (dir, copy) = (root.path().join("log"), root.path().join("backups/1"));
    let log = open(&dir);
    ten(&log, 1);
    log.append(&[replace(1, b"then")]).unwrap();
    let backup = log.backup(&copy).unwrap();
    assert_eq!((backup.segments, sidecars(&copy).len()), (4, 4));
    assert_eq!(backup.bytes + 32, bytes_on_disk(&copy));
    // The log goes on, and forgets everything.
    log.append(&[replace(1, b"now"), insert(11, b"after")])
        .unwrap();
    log.delete(1, 5).unwrap();
    let limits = Limits {
        max_bytes: Some(0),
        older_than: None,
    };
    log.seal().unwrap();
    log.retain(&limits).unwrap();
    let (restored, recovery) = Log::open(config(&copy)).unwrap();
    assert_eq!((recovery.reindexed, recovery.damage), (0, vec![]));
    assert_eq!(all_ids(&restored, 1), Vec::from_iter(1..=10));
    assert_eq!(payload(&restored, 2, 1).unwrap(), b"then");
    // What is done to the backup does not reach the log.
    let second = root.path().join("backups/2");
    restored.backup(&second).unwrap();
    let shared = fs::read(&files(&second)[3]).unwrap();
    restored.delete(1, 1).unwrap();
    ten(&restored, 20);
    assert_eq!(fs::read(&files(&second)[3]).unwrap(), shared);
    assert_eq!(all_ids(&open(&second), 1), Vec::from_iter(1..=10));
}

#[test]
fn empty_log_gives_an_empty_backup() {
    let root = tempfile::tempdir().unwrap();
    let log = open(&root.path().join("log"));
    let copy = root.path().join("copy");
    assert_eq!(log.backup(&copy).unwrap(), super::super::Backup::default());
    assert_eq!(all_ids(&open(&copy), 1), []);
}

#[test]
fn directory_that_holds_something_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let log = open(&root.path().join("log"));
    ten(&log, 1);
    let copy = root.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join("theirs"), b"kept").unwrap();
    let error = log.backup(&copy).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }));
    assert_eq!(
        error.to_string(),
        format!("{} is not empty", copy.display())
    );
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 1);
    let file = root.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(log.backup(&file), Err(Error::Io { .. })));
}

#[test]
fn backup_that_fails_on_the_way_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log");
    let log = open(&dir);
    ten(&log, 1);
    log.shared.seal_pending();
    // A file that somebody took away.
    fs::remove_file(&files(&dir)[2]).unwrap();
    let copy = root.path().join("copy");
    let error = log.backup(&copy).unwrap_err();
    assert!(error.to_string().starts_with("could not link "), "{error}");
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 0);
}
