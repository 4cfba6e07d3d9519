//! A power cut: what was written after the last sync may be there, in part or not at all.
//!
//! The disk is in memory. Of every file it knows what is durable and what was done since; of the directory
//! likewise, whose changes keep their order, as a journal keeps them. A cut makes a new disk of it by dice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::super::files::{File, Files};
use super::super::map::Map;
use super::super::{Config, Error, Fsync, Log};
use super::config;
use super::model::{Change, IDS, KINDS, Key, Put, State, entry, puts};

#[derive(Debug, Clone)]
enum Done {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

fn apply(content: &mut Vec<u8>, change: &Done) {
    match change {
        Done::Write(offset, bytes) => {
            let start = usize::try_from(*offset).unwrap();
            // A hole reads as zeros.
            content.resize(content.len().max(start + bytes.len()), 0);
            content[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Done::Truncate(length) => content.resize(usize::try_from(*length).unwrap(), 0),
    }
}

#[derive(Debug, Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
    since: Vec<Done>,
}

type Names = BTreeMap<PathBuf, usize>;

#[derive(Debug, Clone)]
enum Rename {
    Add(PathBuf, usize),
    Move(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn rename(names: &mut Names, change: &Rename) {
    match change {
        Rename::Add(path, inode) => _ = names.insert(path.clone(), *inode),
        Rename::Move(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Rename::Remove(path) => _ = names.remove(path),
    }
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: Names,
    durable: Names,
    since: Vec<Rename>,
}

impl World {
    fn rename(&mut self, change: Rename) {
        rename(&mut self.names, &change);
        self.since.push(change);
    }
}

#[derive(Debug, Default, Clone)]
struct Disk(Arc<Mutex<World>>);

#[derive(Debug)]
struct Open(Arc<Mutex<World>>, usize);

impl Disk {
    fn inode(&self, path: &Path) -> io::Result<usize> {
        let world = self.0.lock();
        let inode = world.names.get(path).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What a machine finds that lost its power now.
    fn cut(&self, mut seed: u64) -> Self {
        let mut dice = move |sides: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % sides
        };
        let world = self.0.lock();
        let mut names = world.durable.clone();
        for change in &world.since[..dice(world.since.len() + 1)] {
            rename(&mut names, change);
        }
        let survives = |inode: &Inode| {
            let mut content = inode.durable.clone();
            for change in &inode.since {
                match (dice(3), change) {
                    (0, change) => apply(&mut content, change),
                    (1, Done::Write(offset, bytes)) => {
                        let part = bytes[..dice(bytes.len() + 1)].to_vec();
                        apply(&mut content, &Done::Write(*offset, part));
                    }
                    _ => {}
                }
            }
            Inode {
                durable: content.clone(),
                now: content,
                since: Vec::new(),
            }
        };
        let inodes = world.inodes.iter().map(survives).collect();
        Self(Arc::new(Mutex::new(World {
            inodes,
            durable: names.clone(),
            names,
            since: Vec::new(),
        })))
    }
}

impl Files for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // The lock is a real file.
        std::fs::create_dir_all(dir)
    }
    fn list(&self, _dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(Open(Arc::clone(&self.0), self.inode(path)?)))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        if let Ok(inode) = self.inode(path) {
            let file = Open(Arc::clone(&self.0), inode);
            file.truncate(0)?;
            return Ok(Box::new(file));
        }
        let mut world = self.0.lock();
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.rename(Rename::Add(path.to_owned(), inode));
        Ok(Box::new(Open(Arc::clone(&self.0), inode)))
    }
    fn map(&self, path: &Path) -> io::Result<Map> {
        let inode = self.inode(path)?;
        Ok(Map::Memory(self.0.lock().inodes[inode].now.clone()))
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        self.0.lock().rename(Rename::Add(to.to_owned(), inode));
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inode(from)?;
        let change = Rename::Move(from.to_owned(), to.to_owned());
        self.0.lock().rename(change);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inode(path)?;
        self.0.lock().rename(Rename::Remove(path.to_owned()));
        Ok(())
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.durable = world.names.clone();
        world.since.clear();
        Ok(())
    }
}

impl Open {
    fn change(&self, change: Done) {
        let mut world = self.0.lock();
        let inode = &mut world.inodes[self.1];
        apply(&mut inode.now, &change);
        inode.since.push(change);
    }
}

impl File for Open {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.0.lock();
        let now = &world.inodes[self.1].now;
        let rest = now.get(usize::try_from(offset).unwrap()..);
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.change(Done::Write(offset, bytes.to_vec()));
        Ok(bytes.len())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.change(Done::Truncate(length));
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut world = self.0.lock();
        let inode = &mut world.inodes[self.1];
        inode.durable = inode.now.clone();
        inode.since.clear();
        Ok(())
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().inodes[self.1].now.len() as u64)
    }
    fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::now())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Put>),
    Delete(Key),
    Seal,
    Sync,
    Cut(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => vec(puts(), 1..6).prop_map(Step::Append),
        2 => (0..KINDS, 0..IDS).prop_map(Step::Delete),
        1 => Just(Step::Seal),
        2 => Just(Step::Sync),
        2 => any::<u64>().prop_map(Step::Cut),
    ];
    vec(step, 1..60)
}

/// What was done since everything was last known to be on the disk.
#[derive(Default)]
struct Story {
    durable: State,
    since: Vec<Change>,
    /// Keys of which a version cannot be read any more.
    damaged: BTreeSet<Key>,
}

impl Story {
    fn now(&self) -> State {
        let mut state = self.durable.clone();
        for change in &self.since {
            state.play(change, 0);
        }
        state
    }

    fn tell(&mut self, changes: Vec<Change>, fsync: Fsync) {
        self.since.extend(changes);
        if fsync == Fsync::Always {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.durable = self.now();
        self.since.clear();
    }

    /// Whether it was written or deleted since the last sync, or then became damaged.
    fn is_told_of(&self, key: Key) -> bool {
        let told = |change: &Change| match change {
            Change::Put(put) => (put.kind, put.id) == key,
            Change::Delete(deleted) => *deleted == key,
        };
        self.damaged.contains(&key) || self.since.iter().any(told)
    }

    /// What may stand under a key after a cut.
    fn possible(&self, key: Key) -> BTreeSet<Option<Vec<u8>>> {
        let mut possible = BTreeSet::new();
        possible.insert(
            self.durable
                .entries
                .get(&key)
                .map(|put| put.content.clone()),
        );
        for change in &self.since {
            match change {
                Change::Put(put) if (put.kind, put.id) == key => {
                    possible.insert(Some(put.content.clone()));
                }
                Change::Delete(deleted) if *deleted == key => _ = possible.insert(None),
                _ => {}
            }
        }
        possible
    }
}

struct Machine {
    dir: tempfile::TempDir,
    disk: Disk,
    log: Option<Log>,
    config: Config,
    story: Story,
}

impl Machine {
    fn start(fsync: Fsync) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            fsync,
            ..config(dir.path())
        };
        let mut machine = Self {
            dir,
            disk: Disk::default(),
            log: None,
            config,
            story: Story::default(),
        };
        machine.boot();
        machine
    }

    fn boot(&mut self) {
        let disk = Arc::new(self.disk.clone());
        let (log, _) = Log::open_with(self.config.clone(), disk).unwrap();
        self.log = Some(log);
    }

    fn run(&mut self, step: &Step) {
        let log = self.log.as_ref().unwrap();
        let fsync = self.config.fsync;
        match step {
            Step::Append(puts) => {
                let entries: Vec<_> = puts.iter().map(entry).collect();
                let known = log.append(&entries).unwrap().known;
                let new = puts
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| !known.contains(at));
                let changes = new.map(|(_, put)| Change::Put(put.clone())).collect();
                self.story.tell(changes, fsync);
            }
            Step::Delete(key) => {
                if log.delete(key.0, key.1).unwrap() {
                    self.story.tell(vec![Change::Delete(*key)], fsync);
                }
            }
            Step::Seal => log.seal().unwrap(),
            Step::Sync => {
                log.sync().unwrap();
                self.story.settle();
            }
            Step::Cut(seed) => self.cut(*seed),
        }
    }

    fn cut(&mut self, seed: u64) {
        let after = self.disk.cut(seed);
        self.log = None;
        self.disk = after;
        self.boot();
        let log = self.log.as_ref().unwrap();
        let mut left = State::default();
        for key in (0..KINDS).flat_map(|kind| (0..IDS).map(move |id| (kind, id))) {
            let found = match log.get(key.0, key.1) {
                // Its head came to the disk and its payload did not, in a file that was just sealed.
                Err(Error::Damaged { .. }) if self.story.is_told_of(key) => {
                    self.story.damaged.insert(key);
                    continue;
                }
                found => found.unwrap(),
            };
            if self.story.damaged.contains(&key) {
                continue;
            }
            let content = found.as_ref().map(|found| found.payload.to_vec());
            let possible = self.story.possible(key);
            assert!(possible.contains(&content), "{key:?} in {:?}", self.dir);
            if let Some(found) = found {
                let write = super::super::Write::Insert;
                let put = Put {
                    kind: key.0,
                    id: key.1,
                    write,
                    fingerprint: found.fingerprint,
                    content: found.payload.to_vec(),
                };
                left.play(&Change::Put(put), 0);
            }
        }
        // What was found is on the disk: the cut made it so.
        self.story.durable = left;
        self.story.since.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn power_cut_takes_nothing_that_was_acknowledged_with_a_sync_each(steps in steps()) {
        let mut machine = Machine::start(Fsync::Always);
        for step in &steps {
            machine.run(step);
        }
        machine.cut(1);
    }

    #[test]
    fn power_cut_takes_only_what_came_after_the_last_sync(steps in steps()) {
        let mut machine = Machine::start(Fsync::Interval(Duration::from_secs(3600)));
        for step in &steps {
            machine.run(step);
        }
        machine.cut(1);
    }
}

#[test]
fn what_a_power_cut_took_is_counted() {
    let mut machine = Machine::start(Fsync::Interval(Duration::from_secs(3600)));
    let mut cut = 0;
    for seed in 0..200 {
        let log = machine.log.take().unwrap();
        log.append(&[super::insert(1000 + u128::from(seed), &[7; 300])])
            .unwrap();
        let before = log.end();
        let after = machine.disk.cut(seed);
        drop(log);
        machine.disk = after;
        let disk = Arc::new(machine.disk.clone());
        let (log, recovery) = Log::open_with(machine.config.clone(), disk).unwrap();
        let damaged: u64 = recovery.damage.iter().map(|damage| damage.bytes).sum();
        let told = recovery.cut_bytes + damaged;
        let there = log.contains(1, 1000 + u128::from(seed));
        // All of it is there; or a part, which is cut and counted; or nothing came to the disk at all.
        assert!(!there || (told == 0 && log.end() == before));
        cut += u64::from(told > 0);
        log.sync().unwrap();
        machine.log = Some(log);
    }
    assert!((20..180).contains(&cut), "{cut} torn tails");
}
