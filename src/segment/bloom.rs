//! A blocked Bloom filter: tells for most files, with one look at 64 bytes, that what is sought is not there.
//! Pure: it works over the bytes of a sidecar.

use twox_hash::XxHash3_64;

/// What one look-up touches.
pub(super) const BLOCK: usize = 64;
/// Of 100 things that are not there, it lets one or two pass.
const BITS_PER_ITEM: usize = 10;
const PROBES: u32 = 7;
/// An odd number whose bits are spread evenly; makes the probes from the hash that chose the block.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What of an entry is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Id,
    Fingerprint,
}

/// What is looked for; made once for all files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought(u64);

impl Sought {
    pub(super) fn new(of: Of, kind: u8, value: u128) -> Self {
        let mut name = [0; 18];
        name[0] = match of {
            Of::Id => 0,
            Of::Fingerprint => 1,
        };
        name[1] = kind;
        name[2..].copy_from_slice(&value.to_le_bytes());
        Self(XxHash3_64::oneshot(&name))
    }

    fn block(self, count: usize) -> usize {
        let scaled = (u128::from(self.0) * count as u128) >> 64;
        usize::try_from(scaled).expect("less than `count`")
    }

    /// The byte and the bit in a block of each probe.
    fn probes(self) -> impl Iterator<Item = (usize, u8)> {
        let bits = self.0.wrapping_mul(SPREAD);
        (0..PROBES).map(move |probe| {
            let bit = (bits >> (probe * 9)) & 511;
            let byte = usize::try_from(bit / 8).expect("under 64");
            (byte, 1 << (bit % 8))
        })
    }
}

/// An empty filter for so many items.
pub(super) fn empty(items: usize) -> Vec<u8> {
    vec![0; (items * BITS_PER_ITEM).div_ceil(BLOCK * 8) * BLOCK]
}

pub(super) fn add(filter: &mut [u8], item: Sought) {
    let count = filter.len() / BLOCK;
    if count > 0 {
        let start = item.block(count) * BLOCK;
        for (byte, bit) in item.probes() {
            filter[start + byte] |= bit;
        }
    }
}

/// Whether it may have been added; `false` is certain.
pub(super) fn may_hold(filter: &[u8], item: Sought) -> bool {
    let count = filter.len() / BLOCK;
    if count == 0 {
        return false;
    }
    let start = item.block(count) * BLOCK;
    item.probes()
        .all(|(byte, bit)| filter[start + byte] & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_all_that_was_added_and_little_else() {
        let mut filter = empty(10_000);
        for id in 0..10_000 {
            add(&mut filter, Sought::new(Of::Id, 1, id << 64));
        }
        let held = |of, kind, id: u128| may_hold(&filter, Sought::new(of, kind, id << 64));
        assert!((0..10_000).all(|id| held(Of::Id, 1, id)));
        for (of, kind, first) in [(Of::Id, 1, 10_000), (Of::Id, 2, 0), (Of::Fingerprint, 1, 0)] {
            let wrong = (first..first + 10_000).filter(|id| held(of, kind, *id));
            assert!(wrong.count() < 300);
        }
        assert!(!may_hold(&empty(0), Sought::new(Of::Id, 1, 0)));
    }
}
