//! The copy of one body as it flows: inline while it is small, chunks once it is not.
//!
//! Pure: frames in, chunks out through a sink. Frames are copied, because a shared slice keeps a whole read
//! buffer alive and makes the connection allocate a new one: eight times the memory of what was kept, and
//! fresh pages cost more than the copy.

use bytes::Bytes;

use crate::record::{Digest, Digester};

/// The limits of one body's copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The largest inline body.
    pub(super) inline: usize,
    /// The size of a chunk.
    pub(super) chunk: usize,
    /// What is kept at all.
    pub(super) total: u64,
    /// What happens to a body over the inline limit.
    pub(super) over: Over,
}

/// What happens to a body over the inline limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// It goes out in chunks as it flows.
    Chunks,
    /// It is not kept: it was held back to be redacted, and is too large for that.
    Withheld,
}

/// What bytes will be part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The record itself.
    Inline,
    /// A chunk of a larger body.
    Chunk,
}

/// Where bytes are reserved and chunks go.
pub(super) trait Sink {
    /// Asks for room for so many more bytes.
    fn reserve(&self, bytes: usize, part: Part) -> bool;
    /// Gives room back.
    fn release(&self, bytes: usize);
    /// Hands on a chunk with its room; says whether it was taken.
    fn chunk(&self, index: u32, bytes: Bytes) -> bool;
}

#[derive(Debug)]
enum Kept {
    Inline(Vec<u8>),
    /// The chunk that is being filled.
    Chunked(Vec<u8>),
    /// A limit was met: from here on bytes are only counted.
    Stopped,
}

/// The copy so far.
#[derive(Debug)]
pub(super) struct BodyCopy {
    limits: Limits,
    kept: Kept,
    digester: Option<Digester>,
    bytes: u64,
    kept_bytes: u64,
    chunks: u32,
    truncated: bool,
    withheld: bool,
}

/// A copy that has ended.
#[derive(Debug, Default)]
pub(super) struct CopiedBody {
    pub(super) inline: Bytes,
    pub(super) chunks: u32,
    pub(super) bytes: u64,
    pub(super) truncated: bool,
    pub(super) withheld: bool,
    /// `None` where the inline bytes are the whole body, so that the digest can be had from them later.
    pub(super) digest: Option<Digest>,
}

impl BodyCopy {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            kept: Kept::Inline(Vec::new()),
            digester: None,
            bytes: 0,
            kept_bytes: 0,
            chunks: 0,
            truncated: false,
            withheld: false,
        }
    }

    /// Takes the next frame.
    pub(super) fn data(&mut self, frame: &Bytes, sink: &impl Sink) {
        if frame.is_empty() {
            return;
        }
        self.bytes += frame.len() as u64;
        if let Some(digester) = &mut self.digester {
            digester.update(frame);
        }
        let room = self.limits.total.saturating_sub(self.kept_bytes);
        let wanted = usize::try_from(room).map_or(frame.len(), |room| room.min(frame.len()));
        if wanted > 0 && !matches!(self.kept, Kept::Stopped) {
            self.keep(frame, wanted, sink);
        }
        if self.kept_bytes < self.bytes && !self.truncated {
            self.truncated = true;
            self.digest_from_here(frame);
        }
    }

    fn keep(&mut self, frame: &Bytes, wanted: usize, sink: &impl Sink) {
        let part = match &self.kept {
            Kept::Inline(inline) if inline.len() + wanted <= self.limits.inline => Part::Inline,
            _ => Part::Chunk,
        };
        if !sink.reserve(wanted, part) {
            return self.stop(frame, sink);
        }
        if let Kept::Inline(inline) = &mut self.kept {
            if inline.len() + wanted <= self.limits.inline {
                inline.extend_from_slice(&frame[..wanted]);
                self.kept_bytes += wanted as u64;
                return;
            }
            if self.limits.over == Over::Withheld {
                sink.release(wanted + inline.len());
                self.withheld = true;
                self.digest_from_here(frame);
                self.kept_bytes = 0;
                self.kept = Kept::Stopped;
                return;
            }
            self.digest_from_here(frame);
            self.chunked();
        }
        self.kept_bytes += wanted as u64;
        self.add(&frame[..wanted], sink);
    }

    /// Starts the running digest with the inline bytes and this frame.
    fn digest_from_here(&mut self, frame: &Bytes) {
        if self.digester.is_none() {
            let mut digester = Digester::default();
            if let Kept::Inline(inline) = &self.kept {
                let before = usize::try_from(self.bytes).unwrap_or(usize::MAX) - frame.len();
                digester.update(&inline[..before.min(inline.len())]);
            }
            digester.update(frame);
            self.digester = Some(digester);
        }
    }

    fn chunked(&mut self) {
        if let Kept::Inline(inline) = std::mem::replace(&mut self.kept, Kept::Stopped) {
            self.kept = Kept::Chunked(inline);
        }
    }

    fn add(&mut self, mut bytes: &[u8], sink: &impl Sink) {
        while !bytes.is_empty() {
            let Kept::Chunked(pending) = &mut self.kept else {
                sink.release(bytes.len());
                self.kept_bytes -= bytes.len() as u64;
                return;
            };
            let room = self.limits.chunk - pending.len();
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            pending.reserve_exact(room);
            pending.extend_from_slice(part);
            bytes = rest;
            if pending.len() == self.limits.chunk {
                self.flush(sink);
            }
        }
    }

    fn flush(&mut self, sink: &impl Sink) {
        let Kept::Chunked(pending) = &mut self.kept else {
            return;
        };
        if pending.is_empty() {
            return;
        }
        let chunk = Bytes::from(std::mem::take(pending));
        let bytes = chunk.len();
        if sink.chunk(self.chunks, chunk) {
            self.chunks += 1;
        } else {
            // Only a prefix is kept: a hole in the middle would be worse than an end.
            self.kept_bytes -= bytes as u64;
            self.truncated = true;
            self.kept = Kept::Stopped;
        }
    }

    /// There is no more room: what stands inline stays, what waits for a chunk goes out.
    fn stop(&mut self, frame: &Bytes, sink: &impl Sink) {
        self.digest_from_here(frame);
        self.truncated = true;
        if let Kept::Inline(inline) = &mut self.kept {
            self.limits.total = inline.len() as u64;
        } else {
            self.flush(sink);
            self.kept = Kept::Stopped;
        }
    }

    /// Whether the sender said that this was all.
    pub(super) fn finish(mut self, whole: bool, sink: &impl Sink) -> CopiedBody {
        self.flush(sink);
        let digest = self.digester.map(Digester::finish);
        let inline = match self.kept {
            Kept::Inline(inline) => inline.into(),
            Kept::Chunked(_) | Kept::Stopped => Bytes::new(),
        };
        CopiedBody {
            inline,
            chunks: self.chunks,
            bytes: self.bytes,
            truncated: self.truncated || !whole,
            withheld: self.withheld,
            digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use proptest::prelude::{any, prop, proptest};

    use super::*;

    struct Memory {
        free: Cell<usize>,
        refuse_after: u32,
        chunks: RefCell<Vec<Vec<u8>>>,
    }

    impl Sink for Memory {
        fn reserve(&self, bytes: usize, _: Part) -> bool {
            let left = self.free.get().checked_sub(bytes);
            left.inspect(|left| self.free.set(*left)).is_some()
        }
        fn release(&self, bytes: usize) {
            self.free.set(self.free.get() + bytes);
        }
        fn chunk(&self, index: u32, bytes: Bytes) -> bool {
            self.release(bytes.len());
            if index >= self.refuse_after {
                return false;
            }
            assert_eq!(index as usize, self.chunks.borrow().len());
            self.chunks.borrow_mut().push(bytes.to_vec());
            true
        }
    }

    const LIMITS: Limits = Limits {
        inline: 100,
        chunk: 5000,
        total: 20_000,
        over: Over::Chunks,
    };

    fn memory(free: usize) -> Memory {
        Memory {
            free: Cell::new(free),
            refuse_after: u32::MAX,
            chunks: RefCell::default(),
        }
    }

    fn copy(limits: Limits, memory: &Memory, frames: &[Vec<u8>]) -> CopiedBody {
        let mut copy = BodyCopy::new(limits);
        for frame in frames {
            copy.data(&Bytes::copy_from_slice(frame), memory);
        }
        copy.finish(true, memory)
    }

    proptest! {
        #[test]
        fn keeps_exactly_a_prefix_whatever_the_frames_and_the_room(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..8),
            free in 0_usize..30_000,
            refuse_after in 0_u32..9,
        ) {
            let memory = Memory { refuse_after, ..memory(free) };
            let body = copy(LIMITS, &memory, &frames);
            let whole = frames.concat();
            let kept = if body.chunks == 0 { body.inline.to_vec() } else { memory.chunks.borrow().concat() };
            assert_eq!(body.bytes, whole.len() as u64);
            assert_eq!(body.chunks as usize, memory.chunks.borrow().len());
            assert!(whole.starts_with(&kept));
            assert!(kept.len() as u64 <= LIMITS.total);
            assert_eq!(body.truncated, kept.len() < whole.len());
            assert_eq!(body.digest.unwrap_or_else(|| Digest::of(&body.inline)), Digest::of(&whole));
            // All room is given back but for what stands inline, which goes with the record.
            assert_eq!(memory.free.get() + body.inline.len(), free);
        }
    }

    #[test]
    fn caps_body_but_keeps_digesting() {
        let memory = memory(1 << 20);
        let body = copy(LIMITS, &memory, &[vec![7; 15_000], vec![8; 15_000]]);
        assert_eq!(memory.chunks.borrow().concat().len(), 20_000);
        assert_eq!((body.chunks, body.bytes, body.truncated), (4, 30_000, true));
    }

    #[test]
    fn withholds_what_is_too_large_to_redact() {
        let limits = Limits {
            over: Over::Withheld,
            ..LIMITS
        };
        let memory = memory(1000);
        let body = copy(limits, &memory, &[vec![1; 90], vec![2; 20], vec![3; 20]]);
        assert!(body.withheld && body.truncated && body.inline.is_empty());
        assert_eq!((body.bytes, memory.free.get()), (130, 1000));
    }

    #[test]
    fn a_sender_that_breaks_off_leaves_a_truncated_body() {
        let memory = memory(1000);
        let mut body = BodyCopy::new(LIMITS);
        body.data(&Bytes::from_static(b"half"), &memory);
        let body = body.finish(false, &memory);
        assert!(body.truncated);
        assert_eq!(body.inline, "half");
    }
}
