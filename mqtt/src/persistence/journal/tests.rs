//! The journal on a disk that fails at the worst moment; what it does on a good one stands in `tests/`.

use tempfile::TempDir;

use super::*;
use crate::codec::{PacketId, Publish, PublishProperties, QoS};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("session")
    }

    fn journal(&self, durability: Durability) -> Journal {
        let options = JournalOptions {
            durability,
            ..JournalOptions::default()
        };
        let journal = Journal::open(self.file(), options).unwrap();
        journal.load("me").unwrap();
        journal
    }

    /// The numbers of what a later process finds queued.
    fn queued(&self) -> Vec<u64> {
        let journal = self.journal(Durability::ProcessCrash);
        let saved = journal.load("me").unwrap();
        saved.queued().map(|(number, ..)| number).collect()
    }
}

fn accepted(number: u64, bytes: usize) -> Change {
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        topic: "a".into(),
        payload: vec![0; bytes].into(),
        ..Publish::default()
    };
    Change::Accepted {
        number,
        publish,
        expires: None,
    }
}

/// Grows the file to where it is due to be written anew, with nothing open in it.
fn grow(journal: &Journal) {
    let id = PacketId::MIN;
    for number in 1..3 {
        let sent = Change::Sent { number, id };
        let completed = Change::Completed { id };
        let changes = [accepted(number, 600_000), sent, completed];
        journal.save(&changes).unwrap();
    }
    assert!(journal.size() >= REWRITE_AT);
}

#[test]
fn without_room_for_a_second_file_the_journal_grows_on_until_there_is() {
    let folder = Folder::new();
    let journal = folder.journal(Durability::ProcessCrash);
    grow(&journal);
    let in_the_way = beside(&folder.file(), "new");
    std::fs::create_dir(&in_the_way).unwrap();
    let before = journal.size();
    journal.save(&[accepted(10, 100)]).unwrap();
    assert!(journal.size() > before);
    assert_eq!(journal.inner().rewrite_at, 2 * before);
    std::fs::remove_dir(&in_the_way).unwrap();
    let id = PacketId::MIN;
    let sent = Change::Sent { number: 11, id };
    let large = usize::try_from(before).unwrap();
    let completed = Change::Completed { id };
    journal
        .save(&[accepted(11, large), sent, completed])
        .unwrap();
    journal.save(&[accepted(12, 100)]).unwrap();
    assert!(journal.size() < 1000, "{}", journal.size());
    drop(journal);
    assert_eq!(folder.queued(), [10, 12]);
}

#[test]
fn nothing_counts_as_saved_before_the_name_of_a_new_file_lasts_and_then_all_of_it_does() {
    let folder = Folder::new();
    let mut journal = folder.journal(Durability::PowerLoss);
    grow(&journal);
    journal.sync_folder = |_| Err(io::Error::other("no"));
    for number in 10..12 {
        journal.save(&[accepted(number, 100)]).unwrap_err();
    }
    journal.sync_folder = sync_folder;
    journal.save(&[accepted(12, 100)]).unwrap();
    drop(journal);
    assert_eq!(folder.queued(), [12]);
}

#[test]
fn a_torn_end_that_cannot_be_cut_off_has_the_file_written_anew() {
    let folder = Folder::new();
    let journal = folder.journal(Durability::ProcessCrash);
    journal.save(&[accepted(1, 100)]).unwrap();
    // Every write fails there for want of room, and it has no length to be cut to.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    journal.inner().file = full;
    journal.save(&[accepted(2, 100)]).unwrap_err();
    assert_eq!(journal.inner().tail, Tail::Torn);
    journal.save(&[accepted(3, 100)]).unwrap();
    drop(journal);
    assert_eq!(folder.queued(), [1, 3]);
}

#[test]
fn properties_and_expiry_count_in_what_is_open() {
    let folder = Folder::new();
    let journal = folder.journal(Durability::ProcessCrash);
    let before = journal.size();
    journal.save(&[accepted(0, 100)]).unwrap();
    let mut change = accepted(1, 100);
    if let Change::Accepted {
        publish, expires, ..
    } = &mut change
    {
        *expires = Some(std::time::SystemTime::now());
        let pair = ("name".into(), "a".repeat(5000).into());
        publish.properties = Some(Box::new(PublishProperties {
            user_properties: vec![pair],
            ..PublishProperties::default()
        }));
    }
    journal.save(&[change]).unwrap();
    let after = journal.size();
    assert_eq!(journal.inner().saved.bytes(), after - before);
}
