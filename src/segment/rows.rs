//! What is known in memory of the entries of one file: a tree while it grows, sorted rows once it is sealed.

use std::collections::{BTreeMap, BTreeSet};

use super::Order;

/// The name of an entry: kind and id.
pub(super) type Key = (u8, u128);

/// Where an entry stands in its file, and what a search needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) fingerprint: u128,
    pub(super) offset: u32,
    pub(super) meta_len: u16,
    pub(super) flags: u8,
}

/// In memory only: the entry was deleted or replaced.
const DEAD: u8 = 0x80;

/// The entries of one file.
#[derive(Debug)]
pub(super) enum Rows {
    Open(OpenRows),
    Sealed(SealedRows),
}

#[derive(Debug, Default)]
pub(super) struct OpenRows {
    slots: BTreeMap<Key, Slot>,
    /// Kind, fingerprint, id.
    fingerprints: BTreeSet<(u8, u128, u128)>,
}

/// 40 bytes a row and 4 more for the order by fingerprint.
#[derive(Debug)]
pub(super) struct SealedRows {
    /// By kind and id.
    rows: Box<[Row]>,
    /// Places in `rows` of those with a fingerprint, by kind and fingerprint.
    by_fingerprint: Box<[u32]>,
}

/// Halves instead of `u128`, which would pad a row to 48 bytes.
#[derive(Debug, Clone, Copy)]
struct Row {
    id: [u64; 2],
    fingerprint: [u64; 2],
    offset: u32,
    meta_len: u16,
    kind: u8,
    flags: u8,
}

impl Row {
    fn new((kind, id): Key, slot: Slot) -> Self {
        Self {
            id: halves(id),
            fingerprint: halves(slot.fingerprint),
            offset: slot.offset,
            meta_len: slot.meta_len,
            kind,
            flags: slot.flags,
        }
    }

    const fn key(&self) -> Key {
        (self.kind, whole(self.id))
    }

    const fn is_live(&self) -> bool {
        self.flags & DEAD == 0
    }

    const fn slot(&self) -> Slot {
        Slot {
            fingerprint: whole(self.fingerprint),
            offset: self.offset,
            meta_len: self.meta_len,
            flags: self.flags,
        }
    }
}

/// Entries of one kind in the order of a scan.
pub(super) type Entries<'a> = Box<dyn Iterator<Item = (u128, Slot)> + 'a>;

impl Rows {
    pub(super) fn get(&self, key: Key) -> Option<Slot> {
        match self {
            Self::Open(open) => open.slots.get(&key).copied(),
            Self::Sealed(sealed) => {
                let row = &sealed.rows[sealed.place(key)?];
                row.is_live().then(|| row.slot())
            }
        }
    }

    /// Adds an entry, in place of one with the same key. Only to the rows of an active file.
    pub(super) fn insert(&mut self, key: Key, slot: Slot) -> Option<Slot> {
        let Self::Open(open) = self else {
            unreachable!("rows are sealed only when their file is, and then nothing is appended");
        };
        let old = open.slots.insert(key, slot);
        if let Some(old) = old {
            open.fingerprints.remove(&(key.0, old.fingerprint, key.1));
        }
        if slot.fingerprint != 0 {
            open.fingerprints.insert((key.0, slot.fingerprint, key.1));
        }
        old
    }

    /// Hides an entry; tells whether it was there.
    pub(super) fn kill(&mut self, key: Key) -> bool {
        match self {
            Self::Open(open) => {
                let slot = open.slots.remove(&key);
                if let Some(slot) = slot {
                    open.fingerprints.remove(&(key.0, slot.fingerprint, key.1));
                }
                slot.is_some()
            }
            Self::Sealed(sealed) => {
                let Some(place) = sealed.place(key) else {
                    return false;
                };
                let row = &mut sealed.rows[place];
                let was_live = row.is_live();
                row.flags |= DEAD;
                was_live
            }
        }
    }

    /// The live entries of a kind with ids from `first` to `last`.
    pub(super) fn range(&self, kind: u8, first: u128, last: u128, order: Order) -> Entries<'_> {
        let (from, to) = ((kind, first), (kind, last));
        match self {
            Self::Open(open) => {
                let entries = open.slots.range(from..=to).map(|(k, s)| (k.1, *s));
                match order {
                    Order::Oldest => Box::new(entries),
                    Order::Newest => Box::new(entries.rev()),
                }
            }
            Self::Sealed(sealed) => {
                let start = sealed.rows.partition_point(|row| row.key() < from);
                let length = sealed.rows[start..].partition_point(|row| row.key() <= to);
                let rows = sealed.rows[start..start + length].iter();
                let entries = rows
                    .filter(|row| row.is_live())
                    .map(|row| (row.key().1, row.slot()));
                match order {
                    Order::Oldest => Box::new(entries),
                    Order::Newest => Box::new(entries.rev()),
                }
            }
        }
    }

    /// Adds the ids of the live entries with this fingerprint, smallest first.
    pub(super) fn find(&self, kind: u8, fingerprint: u128, into: &mut Vec<u128>) {
        match self {
            Self::Open(open) => {
                let range = (kind, fingerprint, 0)..=(kind, fingerprint, u128::MAX);
                into.extend(open.fingerprints.range(range).map(|entry| entry.2));
            }
            Self::Sealed(sealed) => {
                let of = |place: &u32| {
                    let row = &sealed.rows[*place as usize];
                    (row.kind, whole(row.fingerprint))
                };
                let wanted = (kind, fingerprint);
                let start = sealed.by_fingerprint.partition_point(|p| of(p) < wanted);
                let rest = &sealed.by_fingerprint[start..];
                let same = rest.iter().take_while(|p| of(p) == wanted);
                let rows = same.map(|place| &sealed.rows[*place as usize]);
                into.extend(rows.filter(|row| row.is_live()).map(|row| row.key().1));
            }
        }
    }

    /// The same entries, sorted and packed.
    pub(super) fn sealed(&self) -> SealedRows {
        let Self::Open(open) = self else {
            unreachable!("a file is sealed once");
        };
        let rows: Box<[Row]> = open.slots.iter().map(|(k, s)| Row::new(*k, *s)).collect();
        let count = u32::try_from(rows.len()).expect("offsets in a file fit 32 bits, rows too");
        let mut places: Vec<u32> = (0..count)
            .filter(|place| rows[*place as usize].fingerprint != [0, 0])
            .collect();
        // Rows stand by id, so a stable sort leaves equal fingerprints in the order of ids.
        places.sort_by_key(|place| {
            let row = &rows[*place as usize];
            (row.kind, row.fingerprint)
        });
        SealedRows {
            rows,
            by_fingerprint: places.into(),
        }
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::Open(OpenRows::default())
    }
}

impl SealedRows {
    fn place(&self, key: Key) -> Option<usize> {
        // Most files don't hold most ids: the two ends tell without a search.
        let (first, last) = (self.rows.first()?, self.rows.last()?);
        if key < first.key() || key > last.key() {
            return None;
        }
        self.rows.binary_search_by(|row| row.key().cmp(&key)).ok()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "taking the halves of a number"
)]
const fn halves(value: u128) -> [u64; 2] {
    [(value >> 64) as u64, value as u64]
}

const fn whole([high, low]: [u64; 2]) -> u128 {
    (high as u128) << 64 | low as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(fingerprint: u128, offset: u32) -> Slot {
        Slot {
            fingerprint,
            offset,
            meta_len: 0,
            flags: 0,
        }
    }

    #[test]
    fn row_takes_forty_bytes() {
        assert_eq!(size_of::<Row>(), 40);
    }

    #[test]
    fn sealed_rows_answer_as_open_ones_do() {
        let mut open = Rows::default();
        for i in 0..200_u32 {
            let id = u128::from(i * 7919 % 200) << 60;
            let kind = u8::try_from(i % 3).expect("small");
            open.insert((kind, id), slot(u128::from(i % 5), i));
        }
        let mut sealed = Rows::Sealed(open.sealed());
        for rows in [&mut open, &mut sealed] {
            assert!(rows.kill((0, 0)));
            assert!(!rows.kill((0, 0)));
            assert!(!rows.kill((9, 0)));
        }
        for kind in 0..4 {
            for order in [Order::Newest, Order::Oldest] {
                let all = |rows: &Rows| -> Vec<_> {
                    rows.range(kind, 1 << 61, 150 << 60, order).collect()
                };
                assert_eq!(all(&open), all(&sealed));
                assert_eq!(all(&open).is_empty(), kind == 3);
            }
            for fingerprint in 1..6 {
                let find = |rows: &Rows| {
                    let mut ids = Vec::new();
                    rows.find(kind, fingerprint, &mut ids);
                    ids
                };
                assert_eq!(find(&open), find(&sealed));
            }
            for id in 0..200 {
                let key = (kind, id << 60);
                assert_eq!(open.get(key), sealed.get(key));
            }
        }
    }
}
