//! The entries of one file, by id and by fingerprint: a tree in memory while it grows, a sidecar once it is
//! sealed. Of each id there is the last that the file says of it, which may be that it was deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::Order;
use super::bloom::Sought;
use super::frame::{REPLACE, TOMBSTONE};
use super::sidecar::Sidecar;

/// The name of an entry: kind and id.
pub(super) type Key = (u8, u128);
/// Entries by kind.
pub(super) type Counts = BTreeMap<u8, u64>;

/// Where an entry stands in its file, and what a search needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) fingerprint: u128,
    pub(super) offset: u32,
    /// Where its meta starts among the metas of the same rows.
    pub(super) meta_at: u32,
    pub(super) meta_len: u16,
    pub(super) flags: u8,
}

impl Slot {
    /// Whether it says that the id was deleted.
    pub(super) const fn is_tombstone(&self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    /// Whether it was written with [`super::Write::Replace`], and is still there.
    pub(super) const fn replaces(&self) -> bool {
        self.flags & REPLACE != 0 && !self.is_tombstone()
    }

    /// Whether it hides what other files say of its id.
    pub(super) const fn overrides(&self) -> bool {
        self.flags & (TOMBSTONE | REPLACE) != 0
    }

    /// Its meta among others.
    fn part_of<'a>(&self, metas: &'a [u8]) -> &'a [u8] {
        let start = self.meta_at as usize;
        let part = metas.get(start..start + usize::from(self.meta_len));
        part.unwrap_or_default()
    }
}

/// The entries of one file.
#[derive(Debug)]
pub(super) enum Rows {
    /// Of the active file, or of one whose sidecar is being written.
    Open(OpenRows),
    Packed(Sidecar),
}

/// Entries of one kind in the order of a scan.
pub(super) type Entries<'a> = Box<dyn Iterator<Item = (u128, Slot)> + 'a>;

impl Rows {
    /// What the file says of an id. `sought` is the key's.
    pub(super) fn get(&self, key: Key, sought: Sought) -> Option<Slot> {
        match self {
            Self::Open(open) => open.get(key),
            Self::Packed(sidecar) => sidecar.get(key, sought),
        }
    }

    pub(super) fn meta(&self, slot: &Slot) -> &[u8] {
        match self {
            Self::Open(open) => open.meta(slot),
            Self::Packed(sidecar) => slot.part_of(sidecar.metas()),
        }
    }

    /// The smallest and the largest id of a kind.
    pub(super) fn span(&self, kind: u8) -> Option<(u128, u128)> {
        match self {
            Self::Open(open) => open.span(kind),
            Self::Packed(sidecar) => sidecar.span(kind),
        }
    }

    /// Whether anything of a kind in here hides what other files say.
    pub(super) fn overrides_any(&self, kind: u8) -> bool {
        match self {
            Self::Open(open) => {
                let mut of_kind = open.overrides.range((kind, 0)..=(kind, u128::MAX));
                of_kind.next().is_some()
            }
            Self::Packed(sidecar) => sidecar.overrides_any(kind),
        }
    }

    /// What in here hides what other files say.
    pub(super) fn overrides(&self) -> Box<dyn Iterator<Item = (Key, Slot)> + '_> {
        match self {
            Self::Open(open) => Box::new(
                open.overrides
                    .iter()
                    .filter_map(|key| Some((*key, open.get(*key)?))),
            ),
            Self::Packed(sidecar) => Box::new(sidecar.overrides()),
        }
    }

    /// What is said of the ids of a kind from `first` to `last`.
    pub(super) fn range(&self, kind: u8, first: u128, last: u128, order: Order) -> Entries<'_> {
        match (self, order) {
            (Self::Open(open), _) => open.in_order(kind, first, last, order),
            (Self::Packed(rows), Order::Oldest) => Box::new(rows.range(kind, first, last)),
            (Self::Packed(rows), Order::Newest) => Box::new(rows.range(kind, first, last).rev()),
        }
    }

    /// The ids with this fingerprint in the order asked for. `sought` is the fingerprint's.
    pub(super) fn find(
        &self,
        kind: u8,
        fingerprint: u128,
        sought: Sought,
        order: Order,
    ) -> Box<dyn Iterator<Item = u128> + '_> {
        match (self, order) {
            (Self::Open(open), Order::Oldest) => Box::new(open.find(kind, fingerprint)),
            (Self::Open(open), Order::Newest) => Box::new(open.find(kind, fingerprint).rev()),
            (Self::Packed(rows), Order::Oldest) => Box::new(rows.find(kind, fingerprint, sought)),
            (Self::Packed(rows), Order::Newest) => {
                Box::new(rows.find(kind, fingerprint, sought).rev())
            }
        }
    }

    /// Entries that the file alone would show, by kind.
    pub(super) fn live(&self) -> Counts {
        match self {
            Self::Open(open) => open.live(),
            Self::Packed(sidecar) => sidecar.live(),
        }
    }
}

/// The entries of a file that grows.
#[derive(Debug, Default)]
pub(super) struct OpenRows {
    slots: BTreeMap<Key, Slot>,
    /// Kind, fingerprint, id.
    fingerprints: BTreeSet<(u8, u128, u128)>,
    overrides: BTreeSet<Key>,
    metas: Vec<u8>,
    live: Counts,
}

impl OpenRows {
    pub(super) fn get(&self, key: Key) -> Option<Slot> {
        self.slots.get(&key).copied()
    }

    /// Enters what the file says next; tells what it said of that id before.
    pub(super) fn put(&mut self, key: Key, mut slot: Slot, meta: &[u8]) -> Option<Slot> {
        slot.meta_at = u32::try_from(self.metas.len()).expect("metas are a part of the file");
        self.metas.extend_from_slice(meta);
        let before = self.slots.insert(key, slot);
        if let Some(old) = before {
            self.fingerprints.remove(&(key.0, old.fingerprint, key.1));
            if !old.is_tombstone() {
                self.uncount(key.0);
            }
        }
        if slot.overrides() {
            self.overrides.insert(key);
        }
        if !slot.is_tombstone() {
            *self.live.entry(key.0).or_default() += 1;
            if slot.fingerprint != 0 {
                self.fingerprints.insert((key.0, slot.fingerprint, key.1));
            }
        }
        before
    }

    fn uncount(&mut self, kind: u8) {
        let count = self.live.entry(kind).or_default();
        *count = count.saturating_sub(1);
    }

    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (Key, Slot)> {
        self.slots.iter().map(|(key, slot)| (*key, *slot))
    }

    /// Entries that can be found, by kind.
    pub(super) fn live(&self) -> Counts {
        self.live.clone()
    }

    pub(super) fn meta(&self, slot: &Slot) -> &[u8] {
        slot.part_of(&self.metas)
    }

    /// What is said of the ids of a kind from `first` to `last`.
    pub(super) fn in_order(&self, kind: u8, first: u128, last: u128, order: Order) -> Entries<'_> {
        let of_kind = self.slots.range((kind, first)..=(kind, last));
        let entries = of_kind.map(|(key, slot)| (key.1, *slot));
        match order {
            Order::Oldest => Box::new(entries),
            Order::Newest => Box::new(entries.rev()),
        }
    }

    /// The ids of a kind of which this hides what other files say.
    pub(super) fn overridden(&self, kind: u8) -> BTreeSet<u128> {
        let of_kind = self.overrides.range((kind, 0)..=(kind, u128::MAX));
        of_kind.map(|key| key.1).collect()
    }

    pub(super) fn all_metas(&self) -> &[u8] {
        &self.metas
    }

    fn span(&self, kind: u8) -> Option<(u128, u128)> {
        let mut of_kind = self.slots.range((kind, 0)..=(kind, u128::MAX));
        let first = of_kind.next()?.0.1;
        let last = of_kind.next_back().map_or(first, |(key, _)| key.1);
        Some((first, last))
    }

    /// The ids with this fingerprint, smallest first.
    pub(super) fn find(
        &self,
        kind: u8,
        fingerprint: u128,
    ) -> impl DoubleEndedIterator<Item = u128> {
        let same = (kind, fingerprint, 0)..=(kind, fingerprint, u128::MAX);
        self.fingerprints.range(same).map(|entry| entry.2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bloom::Of;
    use super::super::sidecar::Facts;
    use super::*;

    fn slot(fingerprint: u128, offset: u32, flags: u8) -> Slot {
        Slot {
            fingerprint,
            offset,
            meta_at: 0,
            meta_len: 3,
            flags,
        }
    }

    #[test]
    fn sidecar_answers_as_the_open_rows_do() {
        let mut open = OpenRows::default();
        for i in 0..400_u32 {
            let id = u128::from(i * 7919 % 200) << 60;
            let kind = u8::try_from(i % 3).expect("small");
            let (flags, print) = match i % 7 {
                5 => (TOMBSTONE, 0),
                6 => (REPLACE, u128::from(i % 5)),
                _ => (0, u128::from(i % 5)),
            };
            let meta = i.to_le_bytes();
            open.put((kind, id), slot(print, i, flags), &meta[..3]);
        }
        let facts = Facts {
            number: 1,
            created_ms: 2,
            end: 3,
            length: 3,
        };
        let packed = Sidecar::in_memory(&open, facts);
        let (open, packed) = (Rows::Open(open), Rows::Packed(packed));
        let keys = |rows: &Rows| -> Vec<Key> { rows.overrides().map(|entry| entry.0).collect() };
        assert_eq!(keys(&open), keys(&packed));
        assert_eq!(open.live(), packed.live());
        for kind in 0..4 {
            assert_eq!(open.span(kind), packed.span(kind));
            assert_eq!(open.overrides_any(kind), packed.overrides_any(kind));
            for order in [Order::Newest, Order::Oldest] {
                let all = |rows: &Rows| -> Vec<(u128, Vec<u8>)> {
                    rows.range(kind, 1 << 61, 150 << 60, order)
                        .map(|(id, slot)| (id, rows.meta(&slot).to_vec()))
                        .collect()
                };
                assert_eq!(all(&open), all(&packed));
                assert_eq!(all(&open).is_empty(), kind == 3);
                for print in 1..6 {
                    let sought = Sought::new(Of::Fingerprint, kind, print);
                    let find = |rows: &Rows| -> Vec<u128> {
                        rows.find(kind, print, sought, order).collect()
                    };
                    assert_eq!(find(&open), find(&packed));
                    assert_eq!(find(&open).is_empty(), kind == 3 || print == 5);
                }
            }
            for id in 0..210 {
                let key = (kind, id << 60);
                let sought = Sought::new(Of::Id, kind, key.1);
                assert_eq!(open.get(key, sought), packed.get(key, sought));
            }
        }
    }
}
