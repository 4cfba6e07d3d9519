//! The bytes of a segment file: its header, and the frames in it. Pure: slices in, values out.

use super::{MAX_META_BYTES, MAX_PAYLOAD_BYTES};

/// The format that this program writes.
pub(super) const FORMAT: u32 = 1;
/// The length of a file's header.
pub(super) const FILE_HEADER: usize = 32;
/// The length of a frame without its meta and payload.
pub(super) const HEAD: usize = 60;
/// How every frame starts.
pub(super) const MAGIC: [u8; 4] = *b"\xf1SG\x01";

/// The frame says that an id was deleted.
pub(super) const TOMBSTONE: u8 = 1;
/// The frame takes the place of an earlier one.
pub(super) const REPLACE: u8 = 2;

const FILE_MAGIC: [u8; 8] = *b"QSEGLOG\n";

/// Where a file stands in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) number: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) created_ms: u64,
}

/// Why the start of a file is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged,
    Version(u32),
}

impl FileHeader {
    pub(super) fn to_bytes(self) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        out[..8].copy_from_slice(&FILE_MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..28].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32fast::hash(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn parse(bytes: &[u8; FILE_HEADER]) -> Result<Self, BadHeader> {
        if bytes[..8] != FILE_MAGIC || u32_at(bytes, 28) != crc32fast::hash(&bytes[..28]) {
            return Err(BadHeader::Damaged);
        }
        match u32_at(bytes, 8) {
            FORMAT => Ok(Self {
                number: u64_at(bytes, 12),
                created_ms: u64_at(bytes, 20),
            }),
            version => Err(BadHeader::Version(version)),
        }
    }
}

/// What stands before meta and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// How many frames of the batch follow.
    pub(super) left: u32,
    pub(super) id: u128,
    pub(super) fingerprint: u128,
    pub(super) meta_len: u16,
    pub(super) payload_len: u32,
    payload_crc: u32,
    head_crc: u32,
}

/// The bytes that an entry takes in its file.
#[must_use]
pub const fn encoded_len(meta: usize, payload: usize) -> usize {
    HEAD + meta + payload
}

/// What of a frame differs from entry to entry, apart from its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) left: u32,
    pub(super) id: u128,
    pub(super) fingerprint: u128,
}

/// Appends a frame. The caller has checked the lengths against the limits.
pub(super) fn push(out: &mut Vec<u8>, tag: Tag, meta: &[u8], payload: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("lengths were checked");
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    head[12..16].copy_from_slice(&tag.left.to_le_bytes());
    head[16..20].copy_from_slice(&length(meta).to_le_bytes());
    head[20..24].copy_from_slice(&length(payload).to_le_bytes());
    head[24] = tag.kind;
    head[25] = tag.flags;
    head[28..44].copy_from_slice(&tag.id.to_le_bytes());
    head[44..60].copy_from_slice(&tag.fingerprint.to_le_bytes());
    let crc = head_crc(&head, meta);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(meta);
    out.extend_from_slice(payload);
}

impl Head {
    /// Reads a head without its checksum; `None` where it cannot be one.
    pub(super) fn parse(bytes: &[u8; HEAD]) -> Option<Self> {
        let meta_len = usize::try_from(u32_at(bytes, 16)).ok()?;
        let payload_len = u32_at(bytes, 20);
        let fits = meta_len <= MAX_META_BYTES && payload_len as usize <= MAX_PAYLOAD_BYTES;
        (bytes[..4] == MAGIC && fits).then_some(Self {
            kind: bytes[24],
            flags: bytes[25],
            left: u32_at(bytes, 12),
            id: u128_at(bytes, 28),
            fingerprint: u128_at(bytes, 44),
            meta_len: u16::try_from(meta_len).ok()?,
            payload_len,
            payload_crc: u32_at(bytes, 8),
            head_crc: u32_at(bytes, 4),
        })
    }

    /// Reads a head from bytes that hold it and its meta, and checks both.
    pub(super) fn checked(bytes: &[u8]) -> Option<Self> {
        let (head_bytes, rest) = bytes.split_first_chunk::<HEAD>()?;
        let head = Self::parse(head_bytes)?;
        let meta = rest.get(..usize::from(head.meta_len))?;
        (head_crc(head_bytes, meta) == head.head_crc).then_some(head)
    }

    /// Whether this is the payload that was written.
    pub(super) fn holds(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_len as usize && crc32fast::hash(payload) == self.payload_crc
    }

    /// Head and meta together.
    pub(super) const fn head_len(&self) -> usize {
        HEAD + self.meta_len as usize
    }

    /// The whole frame.
    pub(super) const fn frame_len(&self) -> usize {
        self.head_len() + self.payload_len as usize
    }
}

fn head_crc(head: &[u8; HEAD], meta: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[8..]);
    crc.update(meta);
    crc.finalize()
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
        .expect("every caller reads inside a header of fixed length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut out = Vec::new();
        let tag = Tag {
            kind: 7,
            flags: REPLACE,
            left: 3,
            id: u128::MAX - 5,
            fingerprint: 9,
        };
        push(&mut out, tag, b"meta", b"payload");
        out
    }

    #[test]
    fn frame_reads_back() {
        let bytes = frame();
        assert_eq!(bytes.len(), encoded_len(4, 7));
        let head = Head::checked(&bytes).expect("valid");
        assert_eq!((head.kind, head.flags, head.left), (7, REPLACE, 3));
        assert_eq!((head.id, head.fingerprint), (u128::MAX - 5, 9));
        assert_eq!(&bytes[HEAD..head.head_len()], b"meta");
        assert!(head.holds(&bytes[head.head_len()..head.frame_len()]));
    }

    #[test]
    fn any_flipped_bit_and_any_prefix_is_noticed() {
        let good = frame();
        let valid = |bytes: &[u8]| {
            Head::checked(bytes)
                .is_some_and(|h| bytes.get(h.head_len()..).is_some_and(|p| h.holds(p)))
        };
        assert!(valid(&good));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!valid(&bad), "bit {bit}");
        }
        assert!((0..good.len()).all(|n| !valid(&good[..n])));
    }

    #[test]
    fn file_header_reads_back_and_tells_damage_from_a_later_version() {
        let header = FileHeader {
            number: 12,
            created_ms: 34,
        };
        let mut bytes = header.to_bytes();
        assert_eq!(FileHeader::parse(&bytes), Ok(header));
        bytes[8] = 2;
        assert_eq!(FileHeader::parse(&bytes), Err(BadHeader::Damaged));
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::parse(&bytes), Err(BadHeader::Version(2)));
    }
}
