//! The index of a sealed file, in a file beside it: where each entry stands, without its payload.
//!
//! ```text
//! header     magic 8 | format 4 | number 8 | created 8 | end 8 | length 8 | rows 4 | prints 4 | overrides 4 |
//!            kinds 4 | blocks 4 | metas 8 | XXH3-128 of what follows the header 16 | 0... | crc 4      128 bytes
//! bloom      blocks of 64 bytes: ids and fingerprints
//! kinds      kind 1 | 0 0 0 | rows 4 | live 4 | overrides 4                                  16 bytes each, in order
//! rows       id 16 | fingerprint 16 | offset 4 | meta at 4 | meta length 2 | kind 1 | flags 1  44 bytes, by kind, id
//! prints     places of the rows with a fingerprint, by kind, fingerprint and id                4 bytes each
//! overrides  places of the rows that hide what other files say                                 4 bytes each
//! metas      one behind the other
//! ```
//!
//! It says nothing that its segment does not: one that is missing, damaged, of another format or of another
//! file is made again. The checksum is verified when it is opened; whatever the bytes are, no access panics.

use super::bloom::{self, BLOCK, Of, Sought, may_hold};
use super::map::Map;
use super::rows::{Counts, Key, OpenRows, Slot};
use twox_hash::XxHash3_128;

/// The format that this program writes; any other is made again from the segment.
const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"QSEGIDX\n";
/// The length of the header; the filter's blocks then lie in one cache line each.
pub(super) const HEADER: usize = 128;
const KIND: usize = 16;
const ROW: usize = 44;
const PLACE: usize = 4;

/// Which bytes of which file a sidecar is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// The segment's number.
    pub(super) number: u64,
    /// When the segment was begun, milliseconds since the Unix epoch.
    pub(super) created_ms: u64,
    /// Up to here the segment holds whole batches.
    pub(super) end: u64,
    /// The segment's length; what is behind `end` cannot be read.
    pub(super) length: u64,
}

/// An index that does not change.
#[derive(Debug)]
pub(super) struct Sidecar {
    bytes: Map,
    facts: Facts,
    layout: Layout,
    kinds: Box<[Kind]>,
}

/// The rows of one kind, which stand together.
#[derive(Debug, Clone, Copy)]
struct Kind {
    kind: u8,
    first: usize,
    rows: usize,
    live: u32,
    overrides: u32,
    span: (u128, u128),
}

/// Where each part starts.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows_count: usize,
    prints_count: usize,
    overrides_count: usize,
    kinds: usize,
    rows: usize,
    prints: usize,
    overrides: usize,
    metas: usize,
    length: usize,
}

impl Layout {
    fn new(counts: [u32; 5], metas: u64) -> Option<Self> {
        let [rows, prints, overrides, kinds, blocks] = counts.map(|count| count as usize);
        let after = |at: usize, count: usize, size| at.checked_add(count.checked_mul(size)?);
        let kinds_at = after(HEADER, blocks, BLOCK)?;
        let rows_at = after(kinds_at, kinds, KIND)?;
        let prints_at = after(rows_at, rows, ROW)?;
        let overrides_at = after(prints_at, prints, PLACE)?;
        let metas_at = after(overrides_at, overrides, PLACE)?;
        Some(Self {
            rows_count: rows,
            prints_count: prints,
            overrides_count: overrides,
            kinds: kinds_at,
            rows: rows_at,
            prints: prints_at,
            overrides: overrides_at,
            metas: metas_at,
            length: metas_at.checked_add(usize::try_from(metas).ok()?)?,
        })
    }
}

/// What a header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) facts: Facts,
    layout: Layout,
    digest: u128,
}

impl Header {
    /// Reads a header; `None` where it is none, or of another format.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let valid = bytes[..8] == MAGIC
            && u32_at(bytes, 8) == FORMAT
            && u32_at(bytes, HEADER - 4) == crc32fast::hash(&bytes[..HEADER - 4]);
        if !valid {
            return None;
        }
        let counts = [44, 48, 52, 56, 60].map(|at| u32_at(bytes, at));
        Some(Self {
            facts: Facts {
                number: u64_at(bytes, 12),
                created_ms: u64_at(bytes, 20),
                end: u64_at(bytes, 28),
                length: u64_at(bytes, 36),
            },
            layout: Layout::new(counts, u64_at(bytes, 64))?,
            digest: u128_at(bytes, 72),
        })
    }

    /// The length of the whole sidecar.
    pub(super) const fn length(&self) -> usize {
        self.layout.length
    }

    /// Whether this is the checksum of what follows the header.
    pub(super) const fn matches(&self, digest: u128) -> bool {
        self.digest == digest
    }
}

/// The bytes of the sidecar of a file with these entries.
pub(super) fn encode(open: &OpenRows, facts: Facts) -> Vec<u8> {
    let count = |length: usize| u32::try_from(length).expect("offsets in a file fit 32 bits");
    let rows: Vec<(Key, Slot)> = open.rows().collect();
    let places_of = |wanted: fn(&Slot) -> bool| -> Vec<u32> {
        let places = (0..count(rows.len())).zip(&rows);
        places
            .filter(|(_, (_, slot))| wanted(slot))
            .map(|(place, _)| place)
            .collect()
    };
    let overrides = places_of(Slot::overrides);
    let mut prints = places_of(|slot| slot.fingerprint != 0 && !slot.is_tombstone());
    // Rows stand by id, so a stable sort leaves equal fingerprints in the order of ids.
    prints.sort_by_key(|place| {
        let (key, slot) = rows[*place as usize];
        (key.0, slot.fingerprint)
    });
    let mut filter = bloom::empty(rows.len() + prints.len());
    for (key, slot) in &rows {
        bloom::add(&mut filter, Sought::new(Of::Id, key.0, key.1));
        if slot.fingerprint != 0 && !slot.is_tombstone() {
            let print = Sought::new(Of::Fingerprint, key.0, slot.fingerprint);
            bloom::add(&mut filter, print);
        }
    }
    let kinds: Vec<&[(Key, Slot)]> = rows.chunk_by(|a, b| a.0.0 == b.0.0).collect();
    let counts = [
        rows.len(),
        prints.len(),
        overrides.len(),
        kinds.len(),
        filter.len() / BLOCK,
    ];
    let counts = counts.map(count);
    let metas = open.all_metas();
    let layout = Layout::new(counts, metas.len() as u64).expect("all of it is in memory");
    let mut out = Vec::with_capacity(layout.length);
    out.resize(HEADER, 0);
    out.extend_from_slice(&filter);
    for rows in kinds {
        let live = rows.iter().filter(|(_, slot)| !slot.is_tombstone()).count();
        let overriding = rows.iter().filter(|(_, slot)| slot.overrides()).count();
        out.extend_from_slice(&[rows[0].0.0, 0, 0, 0]);
        for number in [rows.len(), live, overriding] {
            out.extend_from_slice(&count(number).to_le_bytes());
        }
    }
    for (key, slot) in &rows {
        out.extend_from_slice(&key.1.to_le_bytes());
        out.extend_from_slice(&slot.fingerprint.to_le_bytes());
        out.extend_from_slice(&slot.offset.to_le_bytes());
        out.extend_from_slice(&slot.meta_at.to_le_bytes());
        out.extend_from_slice(&slot.meta_len.to_le_bytes());
        out.extend_from_slice(&[key.0, slot.flags]);
    }
    for place in prints.iter().chain(&overrides) {
        out.extend_from_slice(&place.to_le_bytes());
    }
    out.extend_from_slice(metas);
    let digest = XxHash3_128::oneshot(&out[HEADER..]);
    write_header(&mut out, facts, counts, metas.len() as u64, digest);
    out
}

fn write_header(out: &mut [u8], facts: Facts, counts: [u32; 5], metas: u64, digest: u128) {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    for number in [facts.number, facts.created_ms, facts.end, facts.length] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    for number in counts {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&metas.to_le_bytes());
    header.extend_from_slice(&digest.to_le_bytes());
    header.resize(HEADER - 4, 0);
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    out[..HEADER].copy_from_slice(&header);
}

impl Sidecar {
    /// An index over bytes whose checksum was verified; `None` where they contradict themselves.
    pub(super) fn new(bytes: Map) -> Option<Self> {
        let header = Header::parse(bytes.first_chunk()?)?;
        let layout = header.layout;
        if bytes.len() != layout.length {
            return None;
        }
        let mut sidecar = Self {
            bytes,
            facts: header.facts,
            layout,
            kinds: Box::default(),
        };
        let mut kinds: Vec<Kind> = Vec::new();
        let mut first = 0_usize;
        for entry in sidecar.bytes[layout.kinds..layout.rows].chunks_exact(KIND) {
            let rows = u32_at(entry, 4) as usize;
            let end = first.checked_add(rows)?;
            let known = kinds.last().is_some_and(|kind| kind.kind >= entry[0]);
            if rows == 0 || end > layout.rows_count || known {
                return None;
            }
            kinds.push(Kind {
                kind: entry[0],
                first,
                rows,
                live: u32_at(entry, 8),
                overrides: u32_at(entry, 12),
                span: (sidecar.id(first), sidecar.id(end - 1)),
            });
            first = end;
        }
        sidecar.kinds = kinds.into();
        sidecar.bytes.release();
        (first == layout.rows_count).then_some(sidecar)
    }

    /// An index of these entries that is in no file.
    pub(super) fn in_memory(open: &OpenRows, facts: Facts) -> Self {
        let bytes = Map::Memory(encode(open, facts));
        Self::new(bytes).expect("it was made here")
    }

    pub(super) const fn facts(&self) -> Facts {
        self.facts
    }

    /// What it takes on disk.
    pub(super) const fn length(&self) -> usize {
        self.layout.length
    }

    /// Its bytes, where they are in no file.
    pub(super) fn unsaved(&self) -> Option<&[u8]> {
        match &self.bytes {
            Map::File(_) => None,
            Map::Memory(bytes) => Some(bytes),
        }
    }

    pub(super) fn get(&self, key: Key, sought: Sought) -> Option<Slot> {
        let kind = self.kind(key.0)?;
        // Most files don't hold most ids: the two ends, or else the filter, tell without a search.
        if key.1 < kind.span.0 || key.1 > kind.span.1 || !self.may_hold(sought) {
            return None;
        }
        let place = self.first_from(kind, key.1);
        (place < kind.first + kind.rows && self.id(place) == key.1).then(|| self.slot(place))
    }

    pub(super) fn metas(&self) -> &[u8] {
        &self.bytes[self.layout.metas..]
    }

    pub(super) fn span(&self, kind: u8) -> Option<(u128, u128)> {
        self.kind(kind).map(|kind| kind.span)
    }

    pub(super) fn overrides_any(&self, kind: u8) -> bool {
        self.kind(kind).is_some_and(|kind| kind.overrides > 0)
    }

    pub(super) fn live(&self) -> Counts {
        let live = self.kinds.iter();
        live.map(|kind| (kind.kind, u64::from(kind.live))).collect()
    }

    pub(super) fn overrides(&self) -> impl Iterator<Item = (Key, Slot)> {
        (0..self.layout.overrides_count).filter_map(move |at| {
            let place = self.place(self.layout.overrides, at)?;
            Some(((self.kind_of(place), self.id(place)), self.slot(place)))
        })
    }

    pub(super) fn range(
        &self,
        kind: u8,
        first: u128,
        last: u128,
    ) -> impl DoubleEndedIterator<Item = (u128, Slot)> {
        let places = match self.kind(kind) {
            None => 0..0,
            Some(kind) => {
                let after = last.checked_add(1);
                let end = after.map_or(kind.first + kind.rows, |id| self.first_from(kind, id));
                self.first_from(kind, first)..end
            }
        };
        places.map(move |place| (self.id(place), self.slot(place)))
    }

    pub(super) fn find(
        &self,
        kind: u8,
        fingerprint: u128,
        sought: Sought,
    ) -> impl DoubleEndedIterator<Item = u128> {
        let wanted = (kind, fingerprint);
        let of = |at| {
            let place = self.place(self.layout.prints, at);
            place.map(|place| (self.kind_of(place), self.fingerprint(place)))
        };
        let mut places = 0..0;
        if self.kind(kind).is_some() && self.may_hold(sought) {
            let count = self.layout.prints_count;
            let start = partition(0, count, |at| of(at) < Some(wanted));
            places = start..partition(start, count, |at| of(at) <= Some(wanted));
        }
        places.filter_map(move |at| Some(self.id(self.place(self.layout.prints, at)?)))
    }

    fn may_hold(&self, sought: Sought) -> bool {
        may_hold(&self.bytes[HEADER..self.layout.kinds], sought)
    }

    fn kind(&self, wanted: u8) -> Option<Kind> {
        self.kinds.iter().find(|kind| kind.kind == wanted).copied()
    }

    /// The place of the first row of a kind with this id or a larger one.
    fn first_from(&self, kind: Kind, id: u128) -> usize {
        let end = kind.first + kind.rows;
        // No look at the rows where the ends tell: a listing opens every file at its end.
        if id <= kind.span.0 {
            return kind.first;
        }
        if id > kind.span.1 {
            return end;
        }
        partition(kind.first, end, |place| self.id(place) < id)
    }

    /// The place of a row that stands in a list of such places.
    fn place(&self, list: usize, at: usize) -> Option<usize> {
        let place = u32_at(&self.bytes, list + at * PLACE) as usize;
        (place < self.layout.rows_count).then_some(place)
    }

    const fn row(&self, place: usize) -> usize {
        self.layout.rows + place * ROW
    }

    fn id(&self, place: usize) -> u128 {
        u128_at(&self.bytes, self.row(place))
    }

    fn fingerprint(&self, place: usize) -> u128 {
        u128_at(&self.bytes, self.row(place) + 16)
    }

    fn kind_of(&self, place: usize) -> u8 {
        self.bytes[self.row(place) + 42]
    }

    fn slot(&self, place: usize) -> Slot {
        let row = &self.bytes[self.row(place)..][..ROW];
        Slot {
            fingerprint: u128_at(row, 16),
            offset: u32_at(row, 32),
            meta_at: u32_at(row, 36),
            meta_len: u16::from_le_bytes([row[40], row[41]]),
            flags: row[43],
        }
    }
}

/// The same bytes with checksums that hold, so that what lies behind them is reached too.
#[cfg(any(test, fuzzing))]
pub(super) fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    let digest = XxHash3_128::oneshot(out.get(HEADER..)?);
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[72..88].copy_from_slice(&digest.to_le_bytes());
    let crc = crc32fast::hash(&out[..HEADER - 4]);
    out[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
    Some(out)
}

/// The first place from `low` to `high` at which `before` is false.
fn partition(mut low: usize, mut high: usize, before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low.midpoint(high);
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(chunk(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(chunk(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(chunk(bytes, at))
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("places are checked against the layout, and the layout against the length")
}
