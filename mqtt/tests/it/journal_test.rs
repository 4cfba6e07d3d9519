//! The journal as a file: what it keeps, and what it makes of a damaged one.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use proptest::prelude::*;
use qproxy_mqtt::QoS;
use qproxy_mqtt::codec::{PacketId, Publish};
use qproxy_mqtt::persistence::{
    Change, Durability, Journal, JournalOptions, Persistence, PersistenceError, Saved,
};
use tempfile::TempDir;

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn publish(payload: impl Into<Bytes>) -> Publish {
    Publish {
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "a/b".into(),
        payload: payload.into(),
        ..Publish::default()
    }
}

fn accepted(number: u64, payload: impl Into<Bytes>) -> Change {
    Change::Accepted {
        number,
        publish: publish(payload),
        // The journal counts milliseconds.
        expires: (number % 2 == 1).then(|| UNIX_EPOCH + Duration::from_millis(1_800_000_000_123)),
    }
}

fn open(path: &Path) -> Journal {
    Journal::open(path, JournalOptions::default()).unwrap()
}

fn loaded(path: &Path) -> Saved {
    open(path).load("me").unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("session")
    }
}

fn some_changes() -> Vec<Change> {
    vec![
        accepted(0, "zero"),
        accepted(1, "one"),
        Change::Sent {
            number: 0,
            id: id(1),
        },
        accepted(2, vec![7; 3000]),
        Change::Sent {
            number: 1,
            id: id(2),
        },
        Change::Released { id: id(1) },
        Change::Received { id: id(65_535) },
        accepted(3, "three"),
        Change::Withdrawn { number: 3 },
        Change::Received { id: id(9) },
        Change::Forgotten { id: id(9) },
        Change::Completed { id: id(2) },
        accepted(4, ""),
    ]
}

fn sum(changes: &[Change]) -> Saved {
    let mut saved = Saved::default();
    changes.iter().for_each(|change| saved.apply(change));
    saved
}

#[test]
fn what_was_saved_is_there_when_it_is_opened_again() {
    for durability in [Durability::ProcessCrash, Durability::PowerLoss] {
        let folder = Folder::new();
        let options = JournalOptions {
            durability,
            ..JournalOptions::default()
        };
        let journal = Journal::open(folder.file(), options).unwrap();
        assert_eq!(journal.load("me").unwrap(), Saved::default());
        let changes = some_changes();
        let (first, second) = changes.split_at(5);
        journal.save(first).unwrap();
        journal.save(second).unwrap();
        drop(journal);
        let saved = loaded(&folder.file());
        assert_eq!(saved, sum(&changes));
        assert_eq!(saved.next_number(), 5);
        let queued: Vec<u64> = saved.queued().map(|(number, ..)| number).collect();
        assert_eq!(queued, [2, 4]);
        assert_eq!(saved.received().collect::<Vec<_>>(), [id(65_535)]);
    }
}

#[test]
fn a_file_that_is_cut_anywhere_holds_every_change_before_the_cut() {
    let folder = Folder::new();
    let journal = open(&folder.file());
    journal.load("me").unwrap();
    let (changes, mut ends) = (some_changes(), vec![journal.size()]);
    for change in &changes {
        journal.save(std::slice::from_ref(change)).unwrap();
        ends.push(journal.size());
    }
    drop(journal);
    let whole = std::fs::read(folder.file()).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(folder.file(), &whole[..cut]).unwrap();
        let kept = ends.iter().filter(|&&end| end <= cut as u64).count();
        let expected = sum(&changes[..kept.saturating_sub(1)]);
        assert_eq!(loaded(&folder.file()), expected, "cut at {cut}");
        // It goes on behind the cut.
        let journal = open(&folder.file());
        journal.load("me").unwrap();
        journal.save(&[accepted(90, "more")]).unwrap();
        drop(journal);
        assert_eq!(loaded(&folder.file()).next_number(), 91, "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_is_noticed_and_never_read_as_something_else(at in 0.0_f64..1.0, flip in 1_u8..) {
        let folder = Folder::new();
        let journal = open(&folder.file());
        journal.load("me").unwrap();
        let changes = some_changes();
        journal.save(&changes).unwrap();
        drop(journal);
        let mut bytes = std::fs::read(folder.file()).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        bytes[at] ^= flip;
        std::fs::write(folder.file(), &bytes).unwrap();
        match Journal::open(folder.file(), JournalOptions::default()) {
            Ok(journal) => {
                let saved = journal.load("me").unwrap();
                let prefixes = (0..=changes.len()).map(|count| sum(&changes[..count]));
                prop_assert!(prefixes.into_iter().any(|prefix| prefix == saved));
            }
            Err(error) => {
                let foreign = matches!(error, PersistenceError::Foreign { .. });
                prop_assert!(foreign && at < 8, "{at} {error}");
            }
        }
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "a letter to somebody").unwrap();
    let refused = Journal::open(folder.file(), JournalOptions::default());
    let error = refused.map(drop).unwrap_err();
    assert!(matches!(error, PersistenceError::Foreign { .. }), "{error}");
    let text = std::fs::read_to_string(folder.file()).unwrap();
    assert_eq!(text, "a letter to somebody");

    std::fs::remove_file(folder.file()).unwrap();
    let journal = open(&folder.file());
    journal.load("me").unwrap();
    let again = Journal::open(folder.file(), JournalOptions::default());
    let error = again.map(drop).unwrap_err();
    assert!(matches!(error, PersistenceError::Locked { .. }), "{error}");
    drop(journal);
    let error = open(&folder.file()).load("you").map(drop).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("\"me\"") && text.contains("\"you\""),
        "{text}"
    );
    let nowhere = Journal::open(folder.0.path().join("no/such"), JournalOptions::default());
    let error = nowhere.map(drop).unwrap_err().to_string();
    assert!(
        error.contains("could not open") && error.contains("no/such"),
        "{error}"
    );
}

#[test]
fn a_journal_of_finished_messages_stays_small() {
    let folder = Folder::new();
    let journal = open(&folder.file());
    journal.load("me").unwrap();
    journal.save(&[accepted(0, "stays")]).unwrap();
    let mut largest = 0;
    for number in 1..3000_u64 {
        let id = id(u16::try_from(number % 100 + 1).unwrap());
        let change = accepted(number, vec![1; 4000]);
        journal
            .save(&[change, Change::Sent { number, id }])
            .unwrap();
        journal.save(&[Change::Completed { id }]).unwrap();
        largest = largest.max(journal.size());
    }
    assert!(largest < 2 << 20, "{largest}");
    drop(journal);
    let saved = loaded(&folder.file());
    assert_eq!(saved.queued().count(), 1);
}

#[test]
fn a_full_journal_takes_no_more_messages_but_lets_those_in_it_complete() {
    let folder = Folder::new();
    let options = JournalOptions {
        max_bytes: 20_000,
        ..JournalOptions::default()
    };
    let journal = Journal::open(folder.file(), options).unwrap();
    journal.load("me").unwrap();
    let mut number = 0;
    let error = loop {
        if let Err(error) = journal.save(&[accepted(number, vec![1; 1000])]) {
            break error;
        }
        number += 1;
    };
    assert!(
        matches!(error, PersistenceError::Full { limit: 20_000, .. }),
        "{error}"
    );
    assert!((15..20).contains(&number), "{number}");
    for done in 0..number {
        let id = id(u16::try_from(done + 1).unwrap());
        journal.save(&[Change::Sent { number: done, id }]).unwrap();
        journal.save(&[Change::Completed { id }]).unwrap();
    }
    journal.save(&[accepted(number, vec![1; 1000])]).unwrap();
    assert!(journal.size() < 20_000, "{}", journal.size());
}
