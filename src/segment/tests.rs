//! Tests of the log as a whole.

use super::{Config, Entry, Fsync, Log, Write};

#[test]
fn entry_reads_back_after_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        fsync: Fsync::Never,
        ..Config::new(dir.path())
    };
    let entry = Entry {
        kind: 1,
        write: Write::Insert,
        id: 5,
        fingerprint: 9,
        meta: b"meta",
        payload: b"payload",
    };
    let (log, _) = Log::open(config.clone()).unwrap();
    log.append(&[entry]).unwrap();
    drop(log);
    let (log, recovery) = Log::open(config).unwrap();
    assert_eq!(recovery.cut_bytes, 0);
    let found = log.get(1, 5).unwrap().unwrap();
    assert_eq!(
        (&found.meta[..], &found.payload[..]),
        (&b"meta"[..], &b"payload"[..])
    );
    assert_eq!(log.find(1, 9), [5]);
    assert_eq!(log.append(&[entry]).unwrap().known, [0]);
}
