//! What the fuzz targets do with their bytes: `fuzz/fuzz_targets`. The same functions run in the normal tests,
//! over mutations of what the log writes.
#![allow(
    clippy::missing_panics_doc,
    reason = "panicking is how a finding is told"
)]

use std::io;
use std::time::SystemTime;

use super::Order;
use super::bloom::{Of, Sought};
use super::files::File;
use super::frame::{FILE_HEADER, HEAD, Head};
use super::map::Map;
use super::recover::frames as read_frames;
use super::rows::{OpenRows, Rows};
use super::scan::Depth;
use super::sidecar::{Facts, Sidecar, repaired};

/// A file that can only be read.
#[derive(Debug)]
struct Still(Vec<u8>);

impl File for Still {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH)
    }
}

/// Any bytes behind a file's header: what is taken for entries are frames whose checksums hold, and a sidecar
/// made of them says the same.
pub fn frames(data: &[u8]) {
    let mut bytes = vec![0; FILE_HEADER];
    bytes.extend_from_slice(data);
    let file = Still(bytes);
    let length = file.0.len() as u64;
    let (_, whole, _) = read_frames(&file, length, Depth::Whole);
    let (rows, good, _) = read_frames(&file, length, Depth::Heads);
    assert!(whole <= good && good <= length);
    for (key, slot) in rows.rows() {
        let start = slot.offset as usize;
        let frame = &file.0[start..usize::try_from(good).expect("it is in memory")];
        let head = Head::checked(frame).expect("entered rows were checked");
        assert_eq!(
            (head.kind, head.id, head.fingerprint),
            (key.0, key.1, slot.fingerprint)
        );
        assert_eq!(
            rows.meta(&slot),
            &frame[HEAD..HEAD + usize::from(head.meta_len)]
        );
    }
    agree(
        rows,
        Facts {
            number: 1,
            created_ms: 2,
            end: good,
            length,
        },
    );
}

fn agree(rows: OpenRows, facts: Facts) {
    let packed = Rows::Packed(Sidecar::in_memory(&rows, facts));
    let keys: Vec<_> = rows.rows().collect();
    let open = Rows::Open(rows);
    for (key, slot) in keys {
        let sought = Sought::new(Of::Id, key.0, key.1);
        assert_eq!(packed.get(key, sought), Some(slot));
        assert_eq!(packed.meta(&slot), open.meta(&slot));
        let print = Sought::new(Of::Fingerprint, key.0, slot.fingerprint);
        let find = |rows: &Rows| -> Vec<u128> {
            rows.find(key.0, slot.fingerprint, print, Order::Newest)
                .collect()
        };
        assert_eq!(find(&packed), find(&open));
    }
    assert_eq!(packed.live(), open.live());
}

/// Any bytes as a sidecar, as they are and with checksums that hold: no question makes it panic.
pub fn sidecar(data: &[u8]) {
    for bytes in [Some(data.to_vec()), repaired(data)].into_iter().flatten() {
        if let Some(sidecar) = Sidecar::new(Map::Memory(bytes)) {
            ask(&Rows::Packed(sidecar));
        }
    }
}

fn ask(rows: &Rows) {
    let mut ids: Vec<u128> = vec![0, 1, u128::MAX];
    let overriding: Vec<_> = rows.overrides().collect();
    let mut kinds: Vec<u8> = rows.live().into_keys().collect();
    kinds.extend([0, 255]);
    for (kind, entry) in kinds.iter().flat_map(|kind| {
        rows.range(*kind, 0, u128::MAX, Order::Oldest)
            .map(|entry| (*kind, entry))
    }) {
        let _ = rows.meta(&entry.1);
        let print = Sought::new(Of::Fingerprint, kind, entry.1.fingerprint);
        let found = rows.find(kind, entry.1.fingerprint, print, Order::Oldest);
        assert!(found.count() <= u32::MAX as usize);
        ids.push(entry.0);
        if ids.len() > 64 {
            break;
        }
    }
    for kind in kinds {
        let _ = (rows.span(kind), rows.overrides_any(kind));
        for id in &ids {
            let sought = Sought::new(Of::Id, kind, *id);
            if let Some(slot) = rows.get((kind, *id), sought) {
                let _ = rows.meta(&slot);
            }
            let after = rows.range(kind, *id, u128::MAX, Order::Newest).count();
            let before = rows.range(kind, 0, *id, Order::Newest).count();
            assert!(after.max(before) <= u32::MAX as usize);
        }
    }
    for (_, slot) in overriding {
        let _ = rows.meta(&slot);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, any, proptest};

    use super::super::frame::{REPLACE, TOMBSTONE, Tag, push};
    use super::super::rows::Slot;
    use super::super::sidecar::encode;
    use super::*;

    fn segment() -> Vec<u8> {
        let mut out = Vec::new();
        for n in 0..12_u8 {
            let tag = Tag {
                kind: n % 3,
                flags: [0, 0, REPLACE, TOMBSTONE][usize::from(n % 4)],
                left: u32::from(n % 2 == 0),
                id: u128::from(n / 2),
                fingerprint: u128::from(n % 5),
            };
            push(&mut out, tag, &[n; 5][..usize::from(n % 6)], &[n; 9]);
        }
        out
    }

    fn index() -> Vec<u8> {
        let mut rows = OpenRows::default();
        for n in 0..40_u8 {
            let slot = Slot {
                fingerprint: u128::from(n % 5),
                offset: u32::from(n),
                meta_at: 0,
                meta_len: u16::from(n % 4),
                flags: [0, 0, REPLACE, TOMBSTONE][usize::from(n % 4)],
            };
            let key = (n % 3, u128::from(n / 2));
            rows.put(key, slot, &[n; 4][..usize::from(n % 4)]);
        }
        let facts = Facts {
            number: 1,
            created_ms: 2,
            end: 3,
            length: 4,
        };
        encode(&rows, facts)
    }

    fn mutated(mut bytes: Vec<u8>, changes: &[(usize, u8)], length: usize) -> Vec<u8> {
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn what_is_changed_here_is_whole_before() {
        let (rows, good, _) = read_frames(
            &Still([vec![0; FILE_HEADER], segment()].concat()),
            (FILE_HEADER + segment().len()) as u64,
            Depth::Whole,
        );
        assert_eq!(
            (good, rows.rows().len()),
            ((FILE_HEADER + segment().len()) as u64, 12)
        );
        frames(&segment());
        sidecar(&index());
        assert!(Sidecar::new(Map::Memory(index())).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_break_the_reading_of_frames(
            changes in vec((any::<usize>(), any::<u8>()), 0..6),
            length in 0_usize..2000,
            noise in vec(any::<u8>(), 0..200),
        ) {
            frames(&mutated(segment(), &changes, length));
            frames(&noise);
        }

        #[test]
        fn no_bytes_break_a_sidecar(
            changes in vec((any::<usize>(), any::<u8>()), 0..6),
            length in 0_usize..6000,
            noise in vec(any::<u8>(), 0..200),
        ) {
            sidecar(&mutated(index(), &changes, length));
            sidecar(&noise);
        }
    }
}
