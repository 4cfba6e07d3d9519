//! The sealed files together. A clone is a view that stays as it was, whatever is sealed or unlinked meanwhile.
//!
//! Of several versions of an entry the newest file's counts, and only what was written to replace or to delete
//! hides an older one; so most questions end at the first file that has an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Order;
use super::bloom::{Of, Sought};
use super::index::{Place, Sealed};
use super::rows::{Counts, Key, Rows, Slot};

/// Sealed files, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Archive(Arc<Vec<Arc<Sealed>>>);

impl Archive {
    pub(super) fn new(files: Vec<Arc<Sealed>>) -> Self {
        Self(Arc::new(files))
    }

    pub(super) fn files(&self) -> &[Arc<Sealed>] {
        &self.0
    }

    /// How many have their entries in memory.
    pub(super) fn unpacked(&self) -> usize {
        let open = self.0.iter().filter(|f| matches!(f.rows, Rows::Open(_)));
        open.count()
    }

    pub(super) fn push(&mut self, file: Sealed) {
        Arc::make_mut(&mut self.0).push(Arc::new(file));
    }

    /// Puts the same file with other rows in its place; `false` where it is gone.
    pub(super) fn replace(&mut self, file: Arc<Sealed>) -> bool {
        let number = file.number();
        let place = self.0.iter().position(|old| old.number() == number);
        if let Some(place) = place {
            Arc::make_mut(&mut self.0)[place] = file;
        }
        place.is_some()
    }

    pub(super) fn take_before(&mut self, number: u64) -> Vec<Arc<Sealed>> {
        let count = self.0.partition_point(|file| file.number() < number);
        if count == 0 {
            return Vec::new();
        }
        Arc::make_mut(&mut self.0).drain(..count).collect()
    }

    /// The file `number`, or the first one after it.
    pub(super) fn from(&self, number: u64) -> Option<&Arc<Sealed>> {
        let place = self.0.partition_point(|file| file.number() < number);
        self.0.get(place)
    }

    /// The last that is said of an id, and the file that says it.
    fn last_word(&self, key: Key) -> Option<(&Arc<Sealed>, Slot)> {
        last_word(&self.0, key)
    }

    /// Whether anything is said of an id, even that it was deleted.
    pub(super) fn mentions(&self, key: Key) -> bool {
        self.last_word(key).is_some()
    }

    /// Where the valid version of an entry stands.
    pub(super) fn live_place(&self, key: Key) -> Option<Place> {
        let (file, slot) = self.last_word(key)?;
        (!slot.is_tombstone()).then(|| Place {
            id: key.1,
            handle: Arc::clone(&file.handle),
            slot,
        })
    }

    /// Whether a file behind the one at `place` hides what that one says of an id.
    fn is_hidden_after(&self, place: usize, key: Key) -> bool {
        let mut newer = self.0[place + 1..]
            .iter()
            .filter(|file| file.rows.overrides_any(key.0))
            .peekable();
        newer.peek().is_some() && {
            let sought = Sought::new(Of::Id, key.0, key.1);
            newer.any(|file| file.rows.get(key, sought).is_some())
        }
    }

    /// Whether the frame at this offset of file `number` is the valid version of its key, as far as the sealed
    /// files know.
    pub(super) fn is_valid(&self, number: u64, offset: u64, key: Key) -> bool {
        let place = self.0.partition_point(|file| file.number() < number);
        let Some(file) = self.0.get(place).filter(|file| file.number() == number) else {
            return false;
        };
        // Without anything that hides, each id stands in a file once.
        let only = !file.rows.overrides_any(key.0);
        let sought = || Sought::new(Of::Id, key.0, key.1);
        let stands = only
            || file
                .rows
                .get(key, sought())
                .is_some_and(|slot| u64::from(slot.offset) == offset && !slot.is_tombstone());
        stands && !self.is_hidden_after(place, key)
    }

    /// Up to `limit` ids of a kind with a fingerprint from each file, of those that `is_seen` lets pass.
    pub(super) fn find(
        &self,
        (kind, fingerprint): (u8, u128),
        order: Order,
        limit: usize,
        is_seen: impl Fn(&u128) -> bool,
        into: &mut BTreeSet<u128>,
    ) {
        let sought = Sought::new(Of::Fingerprint, kind, fingerprint);
        for (place, file) in self.0.iter().enumerate() {
            let ids = file.rows.find(kind, fingerprint, sought, order);
            let valid = ids.filter(|id| is_seen(id) && !self.is_hidden_after(place, (kind, *id)));
            into.extend(valid.take(limit));
        }
    }

    /// The keys of entries that were written to replace in files before `number`, in order. Their valid version
    /// may stand elsewhere.
    pub(super) fn replaced_before(&self, number: u64) -> BTreeSet<Key> {
        let before = self.0.iter().take_while(|file| file.number() < number);
        let overrides = before.flat_map(|file| file.rows.overrides());
        let replacing = overrides.filter(|(_, slot)| slot.replaces());
        replacing.map(|(key, _)| key).collect()
    }

    /// How many entries of each file can be found.
    pub(super) fn live(&self) -> BTreeMap<u64, Counts> {
        let counts = self.0.iter().map(|file| (file.number(), file.rows.live()));
        let mut live: BTreeMap<u64, Counts> = counts.collect();
        for (place, file) in self.0.iter().enumerate() {
            for (key, _) in file.rows.overrides() {
                let hidden = last_word(&self.0[..place], key);
                let victim = hidden.filter(|(_, slot)| !slot.is_tombstone());
                let counts = victim.and_then(|(file, _)| live.get_mut(&file.number()));
                if let Some(count) = counts.and_then(|counts| counts.get_mut(&key.0)) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        live
    }
}

fn last_word(files: &[Arc<Sealed>], key: Key) -> Option<(&Arc<Sealed>, Slot)> {
    let sought = Sought::new(Of::Id, key.0, key.1);
    let mut newest_first = files.iter().rev();
    newest_first.find_map(|file| Some((file, file.rows.get(key, sought)?)))
}
