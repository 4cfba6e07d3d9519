//! What is known in memory of all files together: where each entry is, and what was deleted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::files::File;
use super::frame::{FILE_HEADER, REPLACE, TOMBSTONE};
use super::rows::{Key, Rows, Slot};
use super::{Entry, Ids, Order, Position, Write};

/// An open file; stays readable while anyone holds it, unlinked or not.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn File>,
    /// Whether something was written since the last sync.
    pub(super) dirty: AtomicBool,
}

/// One file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) handle: Arc<Handle>,
    /// Up to here the file holds whole batches.
    pub(super) end: u64,
    /// What it takes on disk.
    pub(super) bytes: u64,
    pub(super) created: SystemTime,
    pub(super) last_write: SystemTime,
    pub(super) rows: Rows,
    live: BTreeMap<u8, u64>,
}

impl Segment {
    /// A file with nothing in it but its header.
    pub(super) fn empty(handle: Handle, created: SystemTime) -> Self {
        Self {
            handle: Arc::new(handle),
            end: FILE_HEADER as u64,
            bytes: FILE_HEADER as u64,
            created,
            last_write: created,
            rows: Rows::default(),
            live: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes <= FILE_HEADER as u64
    }

    fn kill(&mut self, key: Key) -> bool {
        let killed = self.rows.kill(key);
        if killed {
            self.uncount(key.0);
        }
        killed
    }

    fn uncount(&mut self, kind: u8) {
        let count = self.live.entry(kind).or_default();
        *count = count.saturating_sub(1);
    }
}

/// An entry and the file it is in.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) id: u128,
    pub(super) handle: Arc<Handle>,
    pub(super) slot: Slot,
}

impl Place {
    pub(super) fn position(&self) -> Position {
        Position {
            segment: self.handle.number,
            offset: u64::from(self.slot.offset),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// By number; the last is the active one.
    pub(super) segments: BTreeMap<u64, Segment>,
    /// In which file the last tombstone of an entry stands.
    deleted: HashMap<Key, u64>,
    /// In which file the valid version of an entry stands that was written with [`Write::Replace`].
    replaced: HashMap<Key, u64>,
    hidden: BTreeMap<u8, u128>,
}

impl Index {
    /// The places in the batch of entries that must not be written.
    pub(super) fn known(&self, entries: &[Entry<'_>]) -> Vec<usize> {
        let key = |entry: &Entry<'_>| (entry.kind, entry.id);
        // Within a batch in strict order, no entry can repeat another.
        let ordered = entries.is_sorted_by(|a, b| key(a) < key(b));
        let mut seen = HashSet::new();
        let mut known = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            let repeated = !ordered && !seen.insert(key(entry));
            if entry.write == Write::Insert && (repeated || self.is_known(key(entry))) {
                known.push(place);
            }
        }
        known
    }

    fn is_known(&self, key: Key) -> bool {
        self.locate(key).is_some() || self.deleted.contains_key(&key)
    }

    /// Where the valid version of an entry stands, hidden or not.
    fn locate(&self, key: Key) -> Option<(&Segment, Slot)> {
        let mut newest_first = self.segments.values().rev();
        newest_first.find_map(|segment| Some((segment, segment.rows.get(key)?)))
    }

    pub(super) fn get(&self, key: Key) -> Option<Place> {
        let (segment, slot) = self.locate(key).filter(|_| !self.is_hidden(key))?;
        Some(Place {
            id: key.1,
            handle: Arc::clone(&segment.handle),
            slot,
        })
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        !self.is_hidden(key) && self.locate(key).is_some()
    }

    fn is_hidden(&self, (kind, id): Key) -> bool {
        self.hidden.get(&kind).is_some_and(|below| id < *below)
    }

    pub(super) fn hide_below(&mut self, kind: u8, id: u128) {
        let below = self.hidden.entry(kind).or_default();
        *below = id.max(*below);
    }

    /// Enters a frame that was written to file `number`.
    pub(super) fn apply(&mut self, number: u64, key: Key, slot: Slot) {
        if slot.flags & TOMBSTONE != 0 {
            self.replaced.remove(&key);
            self.kill(key);
            self.deleted.insert(key, number);
            return;
        }
        if slot.flags & REPLACE != 0 {
            self.deleted.remove(&key);
            match self.replaced.insert(key, number) {
                Some(old) if old != number => {
                    if let Some(segment) = self.segments.get_mut(&old) {
                        segment.kill(key);
                    }
                }
                Some(_) => {}
                // It may stand there as an insert.
                None => self.kill(key),
            }
        }
        if let Some(segment) = self.segments.get_mut(&number)
            && segment.rows.insert(key, slot).is_none()
        {
            *segment.live.entry(key.0).or_default() += 1;
        }
    }

    fn kill(&mut self, key: Key) {
        for segment in self.segments.values_mut().rev() {
            segment.kill(key);
        }
    }

    /// The ids with this fingerprint, smallest first.
    pub(super) fn find(&self, kind: u8, fingerprint: u128) -> Vec<u128> {
        let mut ids = Vec::new();
        if fingerprint != 0 {
            for segment in self.segments.values() {
                segment.rows.find(kind, fingerprint, &mut ids);
            }
            ids.retain(|id| !self.is_hidden((kind, *id)));
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    }

    /// Up to `limit` entries of a kind in the order of their ids, over all files.
    pub(super) fn page(&self, kind: u8, ids: &Ids, order: Order, limit: usize) -> Vec<Place> {
        let below = self.hidden.get(&kind).copied().unwrap_or_default();
        let (first, last) = ((*ids.start()).max(below), *ids.end());
        if first > last {
            return Vec::new();
        }
        let rank = |id: u128| match order {
            Order::Oldest => id,
            Order::Newest => !id,
        };
        let mut sources = Vec::new();
        let mut heap = BinaryHeap::new();
        for segment in self.segments.values() {
            let mut entries = segment.rows.range(kind, first, last, order);
            if let Some((id, slot)) = entries.next() {
                // Of equal ids the newest file's comes first.
                heap.push(Reverse((rank(id), Reverse(sources.len()))));
                sources.push((id, slot, segment, entries));
            }
        }
        let mut page: Vec<Place> = Vec::new();
        while let Some(Reverse((_, Reverse(source)))) = heap.pop() {
            let (id, slot, segment, entries) = &mut sources[source];
            if page.last().is_none_or(|last| last.id != *id) {
                if page.len() == limit {
                    break;
                }
                page.push(Place {
                    id: *id,
                    handle: Arc::clone(&segment.handle),
                    slot: *slot,
                });
            }
            if let Some((next, next_slot)) = entries.next() {
                (*id, *slot) = (next, next_slot);
                heap.push(Reverse((rank(next), Reverse(source))));
            }
        }
        page
    }

    /// The keys of the replacing entries whose valid version stands before file `number`, in order.
    pub(super) fn replaced_before(&self, number: u64) -> Vec<Key> {
        let before = self.replaced.iter().filter(|(_, at)| **at < number);
        let mut keys: Vec<Key> = before.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// Takes the files before `number` out; nobody finds what is in them from here on.
    pub(super) fn take_before(&mut self, number: u64) -> Vec<Segment> {
        let kept = self.segments.split_off(&number);
        let taken: Vec<Segment> = std::mem::replace(&mut self.segments, kept)
            .into_values()
            .collect();
        // What a tombstone hides stands before it, so it went too.
        self.deleted.retain(|_, at| *at >= number);
        self.replaced.retain(|_, at| *at >= number);
        taken
    }

    /// The entries that can be found, by kind, of these files.
    pub(super) fn live<'a>(segments: impl Iterator<Item = &'a Segment>) -> BTreeMap<u8, u64> {
        let mut sum = BTreeMap::new();
        for (kind, count) in segments.flat_map(|segment| &segment.live) {
            if *count > 0 {
                *sum.entry(*kind).or_default() += count;
            }
        }
        sum
    }

    /// Whether the entry at this place is the valid version of its key.
    pub(super) fn is_valid(&self, key: Key, position: Position) -> bool {
        self.segments
            .get(&position.segment)
            .and_then(|segment| segment.rows.get(key))
            .is_some_and(|slot| u64::from(slot.offset) == position.offset)
            && !self.is_hidden(key)
    }
}
