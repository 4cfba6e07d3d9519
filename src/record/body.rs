//! Bodies: a small one stands in its record, a large one travels and is kept as chunks beside it.
//!
//! Bytes are those on the wire: content codings are kept, the chunked transfer coding is not.

use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::{Origin, RecordId};

/// XXH3-128 of a whole body as it passed, also of what was not kept; most significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes).to_be_bytes())
    }

    /// A digest that was computed elsewhere.
    #[must_use]
    pub const fn from_be_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    #[must_use]
    pub const fn as_be_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A digest in the making, fed frame by frame.
#[derive(Default)]
pub struct Digester(Option<Box<XxHash3_128>>);

impl Digester {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0
            .get_or_insert_with(|| Box::new(XxHash3_128::new()))
            .write(bytes);
    }

    /// The digest of all bytes so far.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.0.map_or_else(
            || Digest::of(&[]),
            |hash| Digest(hash.finish_128().to_be_bytes()),
        )
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester")
    }
}

/// What is known of a request's or a response's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The kept bytes, where `chunks` is 0; empty otherwise.
    pub inline: Bytes,
    /// How many [`BodyChunk`]s hold the kept bytes; 0 where they stand inline.
    pub chunks: u32,
    /// Bytes that passed, kept or not.
    pub bytes: u64,
    /// Whether fewer bytes were kept than passed: a cap, or the sender broke off.
    pub truncated: bool,
    /// The digest of the bytes that passed.
    pub digest: Digest,
}

impl Body {
    /// A body that stands whole in its record.
    #[must_use]
    pub fn inline(bytes: Bytes) -> Self {
        let digest = Digest::of(&bytes);
        Self {
            chunks: 0,
            bytes: bytes.len() as u64,
            truncated: false,
            digest,
            inline: bytes,
        }
    }

    /// No content.
    #[must_use]
    pub fn empty() -> Self {
        Self::inline(Bytes::new())
    }
}

/// Which of an exchange's two bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

/// One piece of a body that is too large to stand in its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyChunk {
    /// The record it belongs to.
    pub record: RecordId,
    /// The chunk's own place in the recorder's sequence.
    pub origin: Origin,
    /// Which body.
    pub side: Side,
    /// Its place in the body, from 0.
    pub index: u32,
    /// The bytes.
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_does_not_depend_on_frames() {
        let mut digester = Digester::default();
        digester.update(b"hello ");
        digester.update(b"world");
        assert_eq!(digester.finish(), Digest::of(b"hello world"));
        assert_eq!(Digester::default().finish(), Digest::of(b""));
    }
}
