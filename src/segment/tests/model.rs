//! Random operations, reopenings and crash points against a plain map.
//!
//! The model is the list of batches with the place where each ends: what a crash leaves is the batches that
//! end before it, and what a log holds is those batches played in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::super::{Entry, Limits, Log, Order, Position, Write};
use super::{config, files, open};

pub(super) const IDS: u128 = 24;
pub(super) const KINDS: u8 = 2;

#[derive(Debug, Clone)]
pub(super) struct Put {
    pub(super) kind: u8,
    pub(super) id: u128,
    pub(super) write: Write,
    pub(super) fingerprint: u128,
    pub(super) content: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Put>),
    Delete(u8, u128),
    Seal,
    /// Write the sidecars that are waiting now, not whenever the log's thread gets to it.
    Pack,
    Reopen,
    /// Remove a sidecar, at this share of the list, or change a byte in it at the other share.
    Spoil(f64, Option<f64>),
    Retain(u64),
    /// Cut the active file at this share of its length.
    Cut(f64),
    /// Change a byte at this share of it.
    Flip(f64),
}

pub(super) fn puts() -> impl Strategy<Value = Put> {
    let content = (any::<u8>(), 0_usize..700).prop_map(|(byte, length)| vec![byte; length]);
    let write = prop_oneof![3 => Just(Write::Insert), 1 => Just(Write::Replace)];
    (0..KINDS, 0..IDS, write, 0_u128..4, content).prop_map(
        |(kind, id, write, fingerprint, content)| Put {
            kind,
            id,
            write,
            fingerprint,
            content,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => vec(puts(), 1..6).prop_map(Step::Append),
        3 => (0..KINDS, 0..IDS).prop_map(|(kind, id)| Step::Delete(kind, id)),
        1 => Just(Step::Seal),
        1 => Just(Step::Pack),
        2 => Just(Step::Reopen),
        2 => (0.0..1.0, proptest::option::of(0.0..1.0)).prop_map(|(s, b)| Step::Spoil(s, b)),
        1 => (0_u64..20_000).prop_map(Step::Retain),
        2 => (0.0..1.0).prop_map(Step::Cut),
        2 => (0.0..1.0).prop_map(Step::Flip),
    ]
}

pub(super) type Key = (u8, u128);

#[derive(Debug, Clone)]
pub(super) enum Change {
    Put(Put),
    Delete(Key),
}

#[derive(Debug)]
struct Batch {
    end: Position,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
struct Model {
    batches: Vec<Batch>,
}

/// What the batches come to.
#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) entries: BTreeMap<Key, Put>,
    deleted: BTreeSet<Key>,
    /// Where the valid version of a replacing entry is.
    replaced: BTreeMap<Key, u64>,
}

impl State {
    pub(super) fn play(&mut self, change: &Change, segment: u64) {
        match change {
            Change::Put(put) => {
                let key = (put.kind, put.id);
                self.entries.insert(key, put.clone());
                if put.write == Write::Replace {
                    self.deleted.remove(&key);
                    self.replaced.insert(key, segment);
                }
            }
            Change::Delete(key) => {
                self.entries.remove(key);
                self.replaced.remove(key);
                self.deleted.insert(*key);
            }
        }
    }
}

impl Model {
    fn state(&self) -> State {
        let mut state = State::default();
        for batch in &self.batches {
            for change in &batch.changes {
                state.play(change, batch.end.segment);
            }
        }
        state
    }

    fn push(&mut self, end: Position, changes: Vec<Change>) {
        self.batches.push(Batch { end, changes });
    }

    /// Only what ended up to here in the active file is left of it.
    fn cut(&mut self, active: u64, length: u64) {
        self.batches
            .retain(|batch| batch.end.segment != active || batch.end.offset <= length);
    }
}

pub(super) fn entry(put: &Put) -> Entry<'_> {
    Entry {
        kind: put.kind,
        write: put.write,
        id: put.id,
        fingerprint: put.fingerprint,
        meta: &put.content[..put.content.len() / 10],
        payload: &put.content,
    }
}

struct World {
    dir: tempfile::TempDir,
    log: Option<Log>,
    model: Model,
}

impl World {
    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn active(&self) -> (PathBuf, u64) {
        let path = files(self.dir.path()).pop().unwrap();
        let length = path.metadata().unwrap().len();
        (path, length)
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append(puts) => self.append(puts),
            Step::Delete(kind, id) => {
                let was_there = self.model.state().entries.contains_key(&(*kind, *id));
                assert_eq!(self.log().delete(*kind, *id).unwrap(), was_there);
                if was_there {
                    let end = self.log().end();
                    self.model.push(end, vec![Change::Delete((*kind, *id))]);
                }
            }
            Step::Seal => self.log().seal().unwrap(),
            Step::Pack => self.log().shared.seal_pending(),
            Step::Spoil(which, byte) => self.spoil(*which, *byte),
            Step::Reopen => self.crash(|_, _| None),
            Step::Retain(max_bytes) => self.retain(*max_bytes),
            Step::Cut(share) => self.crash(|path, length| {
                let length = at(*share, length);
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(length).unwrap();
                Some(length)
            }),
            Step::Flip(share) => self.crash(|path, length| {
                let byte = at(*share, length);
                super::flip(path, usize::try_from(byte).unwrap());
                Some(byte)
            }),
        }
    }

    fn append(&mut self, puts: &[Put]) {
        let mut state = self.model.state();
        let mut changes = Vec::new();
        let mut known = Vec::new();
        let mut seen = BTreeSet::new();
        for (place, put) in puts.iter().enumerate() {
            let key = (put.kind, put.id);
            let is_known = state.entries.contains_key(&key) || state.deleted.contains(&key);
            if put.write == Write::Insert && (is_known || seen.contains(&key)) {
                known.push(place);
            } else {
                changes.push(Change::Put(put.clone()));
            }
            seen.insert(key);
        }
        for change in &changes {
            state.play(change, 0);
        }
        let entries: Vec<_> = puts.iter().map(entry).collect();
        let appended = self.log().append(&entries).unwrap();
        assert_eq!(appended.known, known);
        if !changes.is_empty() {
            self.model.push(appended.end, changes);
        }
    }

    /// Closes the log, lets `damage` harm the active file, which tells from which byte on, and opens it again.
    fn crash(&mut self, damage: impl FnOnce(&Path, u64) -> Option<u64>) {
        let segment = self.log().end().segment;
        self.log = None;
        let (path, length) = self.active();
        let damaged = damage(&path, length);
        if let Some(from) = damaged {
            self.model.cut(segment, from);
        }
        let (log, recovery) = Log::open(config(self.dir.path())).unwrap();
        if damaged.is_none() {
            assert_eq!((recovery.cut_bytes, recovery.damage), (0, vec![]));
        }
        self.log = Some(log);
    }

    fn spoil(&mut self, which: f64, byte: Option<f64>) {
        self.log = None;
        let sidecars = super::sidecars(self.dir.path());
        let spoilt = sidecars.len().min(1);
        if spoilt == 1 {
            let path = &sidecars[usize::try_from(at(which, sidecars.len() as u64)).unwrap()];
            match byte {
                None => std::fs::remove_file(path).unwrap(),
                Some(share) => {
                    let byte = at(share, path.metadata().unwrap().len());
                    super::flip(path, usize::try_from(byte).unwrap());
                }
            }
        }
        let (log, recovery) = Log::open(config(self.dir.path())).unwrap();
        assert_eq!(recovery.reindexed, spoilt as u64);
        self.log = Some(log);
    }

    fn retain(&mut self, max_bytes: u64) {
        let limits = Limits {
            max_bytes: Some(max_bytes),
            older_than: None,
        };
        let before = self.model.state();
        let keep = self.log().plan(&limits).unwrap();
        self.log().unlink_before(keep).unwrap();
        self.model
            .batches
            .retain(|batch| batch.end.segment >= keep.segment);
        for (key, segment) in &before.replaced {
            if *segment < keep.segment {
                let put = before.entries[key].clone();
                let end = Position {
                    segment: self.log().position(key.0, key.1).unwrap().segment,
                    offset: 0,
                };
                self.model.push(end, vec![Change::Put(put)]);
            }
        }
        // So that no crash point lies among what was carried forward, whose places the model does not know.
        self.log().seal().unwrap();
    }

    /// Every way of reading agrees with the model.
    fn check(&self) {
        let log = self.log();
        let state = self.model.state();
        for kind in 0..KINDS {
            let of_kind = state.entries.range((kind, 0)..=(kind, u128::MAX));
            let puts: Vec<&Put> = of_kind.map(|(_, put)| put).collect();
            let ids: Vec<u128> = puts.iter().map(|put| put.id).collect();
            let mut backwards = ids.clone();
            backwards.reverse();
            let all = 0..=u128::MAX;
            assert_eq!(log.ids(kind, all.clone(), Order::Oldest, 1000), ids);
            assert_eq!(log.ids(kind, all.clone(), Order::Newest, 1000), backwards);
            let mut next = puts.iter();
            log.scan(kind, all, Order::Oldest, &mut |header| {
                let expected = entry(next.next().unwrap());
                assert_eq!((header.id, header.meta), (expected.id, expected.meta));
                assert_eq!(header.fingerprint, expected.fingerprint);
                std::ops::ControlFlow::Continue(())
            });
            assert!(next.next().is_none());
            for id in 0..IDS {
                let found = log
                    .get(kind, id)
                    .unwrap()
                    .map(|found| found.payload.to_vec());
                let expected = state
                    .entries
                    .get(&(kind, id))
                    .map(|put| put.content.clone());
                assert_eq!(found, expected);
            }
            for fingerprint in 1..4 {
                let with = puts.iter().filter(|put| put.fingerprint == fingerprint);
                let expected: Vec<u128> = with.map(|put| put.id).collect();
                assert_eq!(super::find(log, kind, fingerprint), expected);
            }
            let counted = log.stats().entries.get(&kind).copied().unwrap_or_default();
            assert_eq!(counted, ids.len() as u64);
        }
        let run = log.read_from(Position::default(), 1 << 20).unwrap();
        assert!(run.entries.is_sorted_by_key(|entry| entry.position));
        let read: BTreeSet<Key> = run.entries.iter().map(|e| (e.kind, e.id)).collect();
        assert_eq!(read.len(), run.entries.len());
        assert!(read.iter().eq(state.entries.keys()));
    }
}

fn at(share: f64, length: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small file"
    )]
    let byte = (length as f64 * share) as u64;
    byte.min(length - 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_holds_what_a_map_would_over_reopenings_and_crashes(steps in vec(steps(), 1..50)) {
        let dir = tempfile::tempdir().unwrap();
        let log = Some(open(dir.path()));
        let mut world = World { dir, log, model: Model::default() };
        for step in &steps {
            world.run(step);
            world.check();
        }
    }
}

#[test]
fn cut_at_any_byte_leaves_exactly_the_whole_batches_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut ends = vec![log.end().offset];
    for batch in 0..4_u128 {
        let content = vec![u8::try_from(batch).unwrap(); 20];
        let entries: Vec<_> = (0..3)
            .map(|i| super::insert(batch * 3 + i, &content))
            .collect();
        ends.push(log.append(&entries).unwrap().end.offset);
    }
    drop(log);
    let path = files(dir.path())[0].clone();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let count = ends
            .iter()
            .filter(|end| **end <= at as u64)
            .count()
            .saturating_sub(1);
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        for (bytes, cut) in [(whole[..at].to_vec(), true), (flipped, false)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(path.file_name().unwrap()), &bytes).unwrap();
            let (log, recovery) = Log::open(config(dir.path())).unwrap();
            let ids = super::all_ids(&log, 1);
            assert_eq!(ids, Vec::from_iter(0..count as u128 * 3), "byte {at}");
            let told = recovery.cut_bytes + recovery.damage.iter().map(|d| d.bytes).sum::<u64>();
            let lost = bytes.len() as u64 - ends[count].min(bytes.len() as u64);
            if cut {
                assert_eq!(told, if at < 32 { 0 } else { lost });
            } else if at >= 32 {
                assert_eq!(told, lost);
            } else {
                assert_eq!(told, bytes.len() as u64);
            }
        }
    }
}
